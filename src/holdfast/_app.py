"""The app: a database, the workflows that belong to it, and a worker in this process while it is open."""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import ModuleType
from typing import Any, Final, ParamSpec, TypeVar, overload

from holdfast._client import Client
from holdfast._flow.definitions import AsyncWorkflow, SyncWorkflow, Workflow, WorkflowDecorator
from holdfast._model.bounds import shown
from holdfast._runtime.engine import Engine
from holdfast._runtime.events import Events
from holdfast._runtime.options import WorkerOptions
from holdfast._store.journal import JournalOptions
from holdfast._store.sqlite import SqliteStore
from holdfast._store.uri import parse
from holdfast._sync import SyncClient
from holdfast._world import SystemWorld, World
from holdfast.errors import UsageError

P = ParamSpec("P")
R = TypeVar("R")

DEFAULT_URI: Final = "sqlite:///holdfast.db"


class Holdfast(Client):
    """An app. ``async with app:`` makes this process a worker and a client; before that nothing is opened.

    Args:
        uri: the database, such as ``sqlite:///orders.db`` (relative) or ``sqlite:////var/lib/orders.db``;
            ``?synchronous=normal`` trades the last commits of a power cut for speed. By default `HOLDFAST_URI`, then
            `uri` in ``holdfast.toml`` or ``[tool.holdfast]`` of ``pyproject.toml`` here, then
            ``sqlite:///holdfast.db``.
        worker: how runs are executed here.
        journal: bounds of the journal.

    Raises:
        UsageError: the URI or an option is wrong.
    """

    def __init__(
        self,
        uri: str | None = None,
        *,
        worker: WorkerOptions | None = None,
        journal: JournalOptions | None = None,
    ) -> None:
        self.uri = find_uri(uri)
        self._parsed = parse(self.uri)
        _check_options("worker", worker, WorkerOptions)
        _check_options("journal", journal, JournalOptions)
        self._known: dict[str, Workflow[..., Any]] = {}
        self._worker_options = worker or WorkerOptions()
        self._journal_options = journal
        self._world: World = SystemWorld()
        self._events = Events()
        super().__init__(self._known, lambda: self._new_engine(self._worker_options))

    def __repr__(self) -> str:
        return f"<Holdfast {self.uri!r}, workflows: {', '.join(sorted(self._known)) or 'none'}>"

    @overload
    def workflow(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncWorkflow[P, R]: ...  # type: ignore[overload-overlap]
    @overload
    def workflow(self, function: Callable[P, R], /) -> SyncWorkflow[P, R]: ...
    @overload
    def workflow(self, /, *, name: str | None = None) -> WorkflowDecorator: ...
    def workflow(self, function: Callable[..., Any] | None = None, /, *, name: str | None = None) -> Any:
        """Make a function a workflow of this app; like `holdfast.workflow` followed by `include`."""
        decorate = WorkflowDecorator(name=name, register=self.include)
        return decorate if function is None else decorate(function)

    def include(self, *sources: Workflow[..., Any] | ModuleType) -> None:
        """Add workflows, or all workflows defined in modules, to this app.

        Raises:
            UsageError: something is neither, a module has no workflow, or a name is taken by another workflow.
        """
        for source in sources:
            for workflow in _workflows_of(source):
                taken = self._known.setdefault(workflow.name, workflow)
                if taken is not workflow:
                    raise UsageError(
                        f"this app has another workflow called {workflow.name!r}: {taken!r}",
                        hint='give one of them a name: @workflow(name="...")',
                    )

    @property
    def workflows(self) -> tuple[str, ...]:
        """The names of this app's workflows, sorted."""
        return tuple(sorted(self._known))

    def client(self) -> Client:
        """The same calls without executing anything: ``async with app.client() as client``."""
        return Client(self._known, lambda: self._new_engine(None))

    def sync(self, *, worker: bool = False) -> SyncClient:
        """The same calls for blocking code: ``with app.sync() as client``.

        Args:
            worker: also execute runs, on an event loop in a background thread.

        Raises:
            UsageError: `worker` is not a boolean.
        """
        if not isinstance(worker, bool):
            raise UsageError(
                f"sync(worker={shown(worker)}) must be True or False", hint="options belong to Holdfast(...)"
            )
        return SyncClient(
            lambda: Client(self._known, lambda: self._new_engine(self._worker_options if worker else None))
        )

    def _new_engine(self, worker: WorkerOptions | None) -> Engine:
        return Engine(
            store=SqliteStore(self._parsed, world=self._world),
            world=self._world,
            workflows=self._known,
            events=self._events,
            journal=self._journal_options,
            worker=worker,
            retention=self._worker_options.retention,
        )


def _check_options(name: str, value: object, kind: type) -> None:
    if value is not None and not isinstance(value, kind):
        raise UsageError(
            f"Holdfast({name}={shown(value)}) must be a {kind.__name__}", hint=f"write {kind.__name__}(...)"
        )


def find_uri(uri: str | None) -> str:
    """The database to use: the argument, `HOLDFAST_URI`, ``holdfast.toml``, ``pyproject.toml``, or the default."""
    if uri is not None:
        if not isinstance(uri, str):
            raise UsageError(f"Holdfast({shown(uri)}) must be a URI", hint=f"for example {DEFAULT_URI!r}")
        return uri
    from_environment = os.environ.get("HOLDFAST_URI")
    if from_environment:
        return _checked(from_environment, "HOLDFAST_URI")
    return _uri_in(Path("holdfast.toml"), ()) or _uri_in(Path("pyproject.toml"), ("tool", "holdfast")) or DEFAULT_URI


def _uri_in(path: Path, tables: tuple[str, ...]) -> str | None:
    if not os.path.lexists(path):
        return None
    if not path.is_file():  # reading a pipe would wait for somebody who writes
        raise UsageError(f"{path} is not a file", hint="correct that, or set HOLDFAST_URI")
    import tomllib  # 15 ms at every start, and mostly there is no such file

    try:
        settings: Any = tomllib.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, OSError) as error:
        raise UsageError(f"{path} cannot be read: {error}", hint="correct the file, or set HOLDFAST_URI") from error
    where = str(path)
    for table in tables:
        settings, where = settings.get(table, {}), f"{where}: {table}" if where == str(path) else f"{where}.{table}"
        if not isinstance(settings, dict):
            raise UsageError(f"{where} = {shown(settings)} must be a table", hint=f"write [{'.'.join(tables)}]")
    uri = settings.get("uri")
    if uri is not None and not isinstance(uri, str):
        raise UsageError(f"{path}: uri = {shown(uri)} must be a string", hint=f'such as uri = "{DEFAULT_URI}"')
    return _checked(uri, str(path)) if uri else None


def _checked(uri: str, place: str) -> str:
    """A URI that can be understood; else the error tells where it stands."""
    try:
        parse(uri)
    except UsageError as error:
        raise type(error)(f"{place}: {error.message}", hint=error.hint) from None
    return uri


def _workflows_of(source: object) -> list[Workflow[..., Any]]:
    if isinstance(source, Workflow):
        return [source]
    if isinstance(source, ModuleType):
        # By the type: `isinstance` asks proxies, such as settings that are loaded when they are first used.
        found = {id(value): value for value in vars(source).values() if issubclass(type(value), Workflow)}
        if found:
            return list(found.values())
        raise UsageError(f"module {source.__name__!r} defines no workflow", hint="decorate one with @workflow")
    raise UsageError(
        f"include({shown(source)}) takes workflows and modules", hint="decorate the function with @workflow"
    )

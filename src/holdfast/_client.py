"""The client: starting, finding and steering runs. It executes nothing; an app is a client with a worker.

Everything that changes a run goes through the journal and is answered from its acknowledgement; everything that is read
comes from the database's rows.
"""

from __future__ import annotations

import asyncio
import difflib
import os
from asyncio import _get_running_loop
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar, overload

from holdfast import _options
from holdfast._conflicts import check_conflict, fork_problem
from holdfast._flow.definitions import AsyncWorkflow, SyncWorkflow, Workflow, checked_name
from holdfast._flow.loop import WorkflowLoop
from holdfast._looking import check_may_open
from holdfast._model.bounds import shown
from holdfast._model.codec import codec_for
from holdfast._model.copies import Backup
from holdfast._model.lifecycle import ENDED, RunState
from holdfast._model.payloads import check_payload
from holdfast._model.records import (
    CancelRequested,
    Forked,
    PauseRequested,
    Requested,
    RetryRequested,
    RunForked,
    RunStarted,
    Started,
)
from holdfast._model.retention import Pruned
from holdfast._model.runinfo import RunInfo, WorkerInfo
from holdfast._rows import worker_of
from holdfast._run import Run, Start
from holdfast._runtime.engine import STARTS_PER_TURN, Engine
from holdfast._runtime.pruning import prune, would_prune
from holdfast._runtime.results import Ended
from holdfast._search import Conditions, Page, conditions_from, count_runs, find_all, find_page
from holdfast._stats import Stats, gather_stats
from holdfast.errors import (
    NotAllowedInWorkflow,
    NotOpen,
    RunConflict,
    RunNotFound,
    UnknownWorkflow,
    UsageError,
)

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class Client:
    """Starts, finds and steers runs. Open it with ``async with app.client() as client``.

    Every method raises `NotOpen` outside of that block and `StoreError` when the database fails.
    """

    def __init__(self, workflows: Mapping[str, Workflow[..., Any]], make_engine: Callable[[], Engine]) -> None:
        self._workflows = workflows
        self._make_engine = make_engine
        self._opened: Engine | None = None
        self._opened_in: asyncio.AbstractEventLoop | None = None

    async def __aenter__(self) -> Self:
        if self._opened is not None:
            raise UsageError(f"this {type(self).__name__} is open already", hint="open it once, or make another one")
        check_may_open(type(self).__name__)
        engine = self._opened = self._make_engine()
        self._opened_in = asyncio.get_running_loop()
        try:
            await engine.open()
        except BaseException:
            self._opened = None
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        engine, self._opened = self._engine, None
        await engine.close()

    @overload
    async def start(
        self,
        workflow: AsyncWorkflow[P, R],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Run[R]: ...
    @overload
    async def start(
        self,
        workflow: SyncWorkflow[P, R],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Run[R]: ...
    # A parameter specification takes no further keywords (PEP 612): with an option, arguments are checked when called.
    @overload
    async def start(self, workflow: Workflow[..., R], /, *args: Any, id: str, **kwargs: Any) -> Run[R]: ...
    @overload
    async def start(self, workflow: Workflow[..., R], /, *args: Any, on_conflict: str, **kwargs: Any) -> Run[R]: ...
    @overload
    async def start(self, workflow: Workflow[..., R], /, *args: Any, priority: int, **kwargs: Any) -> Run[R]: ...
    @overload
    async def start(
        self, workflow: Workflow[..., R], /, *args: Any, delay: float | timedelta, **kwargs: Any
    ) -> Run[R]: ...
    @overload
    async def start(self, workflow: Workflow[..., R], /, *args: Any, at: datetime, **kwargs: Any) -> Run[R]: ...
    @overload
    async def start(
        self, workflow: Workflow[..., R], /, *args: Any, timeout: float | timedelta, **kwargs: Any
    ) -> Run[R]: ...
    @overload
    async def start(
        self, workflow: Workflow[..., R], /, *args: Any, attributes: Mapping[str, Any], **kwargs: Any
    ) -> Run[R]: ...
    @overload
    async def start(self, workflow: str, /, *args: Any, **kwargs: Any) -> Run[Any]: ...
    async def start(self, workflow: Any, /, *args: Any, **kwargs: Any) -> Run[Any]:
        """Start a run. It is durable when this returns.

        Args:
            workflow: the workflow, or its name. By an unknown name, a client may start it with keyword arguments;
                the run waits until a worker knows the workflow.
            args, kwargs: its arguments; checked and encoded before anything is written.
            id: the run's id: the same id is the same run. A new one by default.
            on_conflict: when the id is taken: ``"return"`` the existing run (`RunConflict` if its workflow or input
                differ), ``"raise"``, or ``"restart"`` it if it has ended.
            priority: higher goes first among runs that wait; -1,000,000 to 1,000,000.
            delay, at: not before so many seconds (or a timedelta), or not before an aware datetime.
            timeout: seconds (or a timedelta) from when it begins; then it is cancelled and fails with `RunTimeout`.
            attributes: searchable metadata: names to strings, numbers, booleans, lists of these, or further names.

        Raises:
            UsageError: an option or argument is wrong; nothing was written.
            RunConflict: the id is taken, see `on_conflict`.
        """
        names = _options.OPTION_NAMES & kwargs.keys()
        options = _options.StartOptions(**{name: kwargs.pop(name) for name in names})
        definition, record = self._record(workflow, args, kwargs, options)
        engine = self._engine
        await engine.journal.wait_for_room()
        started = engine.start(record)
        return self._handle(definition, record, options, await started)

    async def run(self, workflow: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Start a run and await its result; takes what `start` takes.

        Cancelling the caller leaves the run going on.
        """
        run: Run[Any] = await self.start(workflow, *args, **kwargs)
        return await run.result()

    async def start_many(self, starts: Iterable[Start[T]]) -> list[Run[T]]:
        """Start many runs in few transactions. All are durable when this returns, in the order given.

        Arguments and options of all of them are checked before the first is written. One that conflicts raises after
        the others have been started.

        Raises:
            UsageError: an option or argument of one is wrong; nothing was written.
            RunConflict: the id of one is taken, see `start`.
        """
        prepared: list[tuple[Start[T], Workflow[..., Any] | None, RunStarted]] = []
        if not isinstance(starts, Iterable):
            raise UsageError(f"start_many({shown(starts)}) takes a list of Start", hint="write [Start(workflow, ...)]")
        for place, start in enumerate(starts, 1):
            if not isinstance(start, Start):
                raise UsageError(f"start_many: {shown(start)} is not a Start", hint="write Start(workflow, ...)")
            prepared.append((start, *self._record(start.workflow, start.args, start.kwargs, start.options)))
            if place % STARTS_PER_TURN == 0:
                await asyncio.sleep(0)
        outcomes = await self._engine.start_all([record for _, _, record in prepared])
        return [
            self._handle(definition, record, start.options, outcome)
            for (start, definition, record), outcome in zip(prepared, outcomes, strict=True)
        ]

    def get(self, run_id: str) -> Run[Any]:
        """A handle to the run with this id. Nothing is looked up until the handle is used."""
        return Run(self, _options.check_id(run_id))

    async def list(
        self,
        *,
        where: str | None = None,
        state: str | Iterable[str] | None = None,
        workflow: Workflow[..., Any] | str | None = None,
        attributes: Mapping[str, Any] | None = None,
        id_prefix: str | None = None,
        created_from: datetime | None = None,
        created_before: datetime | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> Page:
        """Runs that match every condition given, newest first.

        Args:
            where: a query such as ``state:failed workflow:checkout customer:42 started:>2h``; see the guide.
            state: one state or several; of an empty list, no run is in one.
            workflow: the workflow or its name.
            attributes: names with the exact values that the run's attributes must have.
            id_prefix: what the id begins with.
            created_from, created_before: aware datetimes; from is included, before is not.
            after: the `next` of the page before, which was asked for with the same conditions. Runs that are started
                meanwhile move nothing: each run comes once.
            limit: at most so many, 1 to 10,000.

        Returns:
            A list with one attribute more: `next`, the cursor of the next page, or none.

        Raises:
            QueryError: `where` cannot be understood, or names a key that no run has.
            UsageError: a condition is wrong, such as an unknown state.
        """
        asked = Conditions(
            where=where,
            state=state,
            workflow=workflow,
            attributes=attributes,
            id_prefix=id_prefix,
            created_from=created_from,
            created_before=created_before,
        )
        engine = self._engine
        return await find_page(engine.store, asked, after=after, limit=limit, now=engine.world.now_us())

    async def iterate(self, **conditions: Any) -> AsyncIterator[RunInfo]:
        """Every run that matches, newest first: pages of `list`, read as they are needed.

        Takes the conditions of `list`. Leaving the loop early is fine; what ends or is removed meanwhile is left out.
        """
        asked = conditions_from(conditions, "iterate")
        async for run in find_all(lambda: self._engine.store, asked, now=self._engine.world.now_us()):
            yield run

    async def count(self, *, limit: int | None = None, **conditions: Any) -> int:
        """How many runs match; the conditions are those of `list`.

        Args:
            limit: count no further: the answer is at most this. Ask for one more than you show, and `10,001` is
                "more than 10,000", whatever the database holds.
        """
        asked = conditions_from(conditions, "count")
        engine = self._engine
        return await count_runs(engine.store, asked, limit=limit, now=engine.world.now_us())

    async def stats(self, *, window: float | timedelta = 3_600.0) -> Stats:
        """Counts of runs by workflow and state, how it went for those that ended lately, and the workers.

        Args:
            window: seconds (or a timedelta): how far back the durations, the throughput and the failures look.

        Raises:
            UsageError: the window is wrong.
        """
        engine = self._engine
        return await gather_stats(engine.store, window=window, now=engine.world.now_us())

    async def prune(
        self,
        *,
        older_than: float | timedelta | None = None,
        states: str | Iterable[str] | None = None,
        workflow: Workflow[..., Any] | str | None = None,
        limit: int | None = None,
        dry_run: bool = False,
        on_progress: Callable[[Pruned], object] | None = None,
    ) -> Pruned:
        """Remove runs that have ended, with all their rows, and give back the space that they took.

        Workers do so by themselves, see `Retention`; this does it now, and works without a worker. Only runs that have
        succeeded, failed or been cancelled are ever removed. After that a run's id is free again: starting it makes a
        new run.

        It works in batches of a few milliseconds. Cancelling the caller takes effect between two of them: what was
        removed stays so, the rest is there as it was.

        Args:
            older_than: remove runs that ended so long ago (seconds or a timedelta), whatever the app's retention says,
                0 for every ended run. By default the app's retention decides.
            states: only runs that ended so: ``"succeeded"``, ``"failed"``, ``"cancelled"``, or several of them.
            workflow: only runs of this workflow, or of this name.
            limit: remove at most so many.
            dry_run: remove nothing, only say what would be.
            on_progress: called after each batch with what was removed so far.

        Raises:
            UsageError: an option is wrong, or the app keeps runs for ever and `older_than` is not given.
        """
        engine = self._engine
        if not isinstance(dry_run, bool):
            raise UsageError(f"dry_run={shown(dry_run)} must be True or False")
        options = _options.PruneOptions(
            engine.retention,
            older_than=older_than,
            states=states,
            workflow=workflow,
            limit=limit,
            on_progress=on_progress,
        )
        groups, now = await engine.store.ended_groups(), engine.world.now_us()
        if dry_run:
            return await would_prune(engine.store, groups, age=options.age, now=now, runs_max=options.runs_max)
        return await prune(
            engine.store,
            engine.journal,
            groups,
            age=options.age,
            now=now,
            runs_max=options.runs_max,
            on_progress=on_progress,
        )

    async def backup(self, path: str | os.PathLike[str], *, force: bool = False) -> Backup:
        """Copy the database into a new file, while everybody goes on working.

        The copy is one consistent state, verified, readable by its owner alone, and on the disk when this returns;
        until then nothing has its name. Commits are not held up; the write-ahead log grows by what is written while
        pages are copied. Cancelling gives the copy up. A restored backup is the past: see the operations page.

        Args:
            path: the file; it must not exist.
            force: replace an existing file, by a whole copy or not at all.

        Raises:
            UsageError: the path exists, is the database itself, or the database is in memory.
            StoreError: no room, no such folder, or the database is damaged.
        """
        target = _options.path_of(path)
        if not isinstance(force, bool):
            raise UsageError(f"backup(force={shown(force)}) must be True or False")
        return await self._engine.store.backup(target, force=force)

    async def workers(self, *, gone: bool = False) -> tuple[WorkerInfo, ...]:
        """The workers that live, oldest first.

        Args:
            gone: also those that have left or were declared dead within the last seven days.

        Raises:
            UsageError: `gone` is not a boolean.
        """
        if not isinstance(gone, bool):
            raise UsageError(f"workers(gone={shown(gone)}) must be True or False")
        rows = await self._engine.store.workers()
        return tuple(worker_of(row) for row in rows if gone or row.state == "live")

    # Leaves.

    @property
    def _engine(self) -> Engine:
        if self._opened is None:
            name = type(self).__name__
            raise NotOpen(f"this {name} is not open", hint="use it inside `async with ...:`")
        loop = _get_running_loop()
        if type(loop) is WorkflowLoop:
            raise NotAllowedInWorkflow(
                "an app was used inside a workflow; child runs are not part of this release",
                hint="do it in a step, or move the shared code into a plain function",
            )
        if self._opened_in is not loop:
            where = "another event loop" if loop is not None else "an event loop, and none is running here"
            raise UsageError(
                f"this app was opened in {where}", hint="use it in the loop that opened it; after a fork open another"
            )
        return self._opened

    def _record(
        self, workflow: object, args: tuple[Any, ...], kwargs: dict[str, Any], options: _options.StartOptions
    ) -> tuple[Workflow[..., Any] | None, RunStarted]:
        engine = self._engine
        definition, name = self._resolve(workflow, executes=engine.worker is not None)
        text = (
            _options.raw_input(name, args, kwargs) if definition is None else definition.arguments.encode(args, kwargs)
        )
        chars_max = engine.journal.payload_max
        check_payload(text, f"arguments of workflow {name!r}", chars_max=chars_max)
        if options.attributes_text is not None:
            check_payload(options.attributes_text, "attributes", chars_max=chars_max)
        now = engine.world.now_us()
        due_at = options.due_us(now)
        fields = (
            options.id if options.id is not None else engine.world.new_id(),
            name,
            RunState.READY if due_at is None else RunState.SCHEDULED,
            text,
            options.attributes_text,
            options.priority,
            engine.world.seed(),
            None,  # worker
            now,
            due_at,
            None,  # started_at
            options.timeout_us,
            None,  # deadline_at
            options.pairs,
            options.on_conflict == "restart",
        )
        record = RunStarted(*fields)
        return definition, record

    def _resolve(self, workflow: object, *, executes: bool) -> tuple[Workflow[..., Any] | None, str]:
        if isinstance(workflow, Workflow):
            if self._workflows.get(workflow.name) is workflow:
                return workflow, workflow.name
            raise UnknownWorkflow(
                f"workflow {workflow.name!r} is not part of this app", hint="add it with app.include(...)"
            )
        if not isinstance(workflow, str):
            raise UsageError(
                f"{shown(workflow)} is not a workflow", hint="pass a function decorated with @workflow, or a name"
            )
        name = checked_name("workflow", workflow)
        definition = self._workflows.get(name)
        if definition is None and (executes or self._workflows):
            near = difflib.get_close_matches(name, self._workflows, n=1)
            known = ", ".join(sorted(self._workflows)) or "none"
            hint = f"did you mean {near[0]!r}?" if near else f"known here: {known}"
            raise UnknownWorkflow(f"no workflow is called {name!r}", hint=hint)
        return definition, name

    def _handle(
        self,
        definition: Workflow[..., Any] | None,
        record: RunStarted,
        options: _options.StartOptions,
        started: Started,
    ) -> Run[Any]:
        if not started.created:
            check_conflict(record, options.on_conflict, started)
        run: Run[Any] = Run(self, record.id, definition)
        if started.created:
            run._expected = self._engine.results.expected(record.id)
        return run

    async def _request(self, run: Run[Any], kind: type[Any]) -> RunState:
        engine = self._engine
        run._expected = None
        answer: Requested = await engine.journal.write(kind(run.id, engine.world.now_us()))
        if not answer.found or answer.before is None or answer.after is None:
            raise RunNotFound(run.id)
        if kind is RetryRequested and answer.before not in (RunState.FAILED, RunState.CANCELLED, RunState.BLOCKED):
            raise RunConflict(
                f"run {run.id!r} is {answer.before}; only a failed, cancelled or blocked run can be retried",
                run_id=run.id,
                hint="fork it to execute parts again" if answer.before is RunState.SUCCEEDED else "wait for its end",
            )
        self._requested(run, kind, answer)
        return answer.after

    def _requested(self, run: Run[Any], kind: type[Any], answer: Requested) -> None:
        engine, worker = self._engine, self._engine.worker
        if answer.after is RunState.CANCELLED and answer.before not in ENDED:
            engine.results.ended(run.id, Ended(RunState.CANCELLED, None, None))
        if worker is None or answer.number is None:
            return
        if (
            answer.after is RunState.RUNNING
            and answer.worker == worker.id
            and kind in (CancelRequested, PauseRequested)
        ):
            worker.executor.request_soon(answer.number, "cancel" if kind is CancelRequested else "pause")
        elif answer.after in (RunState.READY, RunState.SCHEDULED):
            worker.dispatcher.poke()

    async def _fork(
        self, run: Run[T], *, at: int, id: str | None, result: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Run[T]:
        engine = self._engine
        new_id = engine.world.new_id() if id is None else _options.check_id(id)
        _options.check_at(at)
        definition = self._workflows.get((await run.describe()).workflow)
        text: str | None = None
        if args or kwargs:
            name = "the workflow" if definition is None else definition.name
            text = definition.arguments.encode(args, kwargs) if definition else _options.raw_input(name, args, kwargs)
            check_payload(text, f"arguments of {name}", chars_max=engine.journal.payload_max)
        output = None if result is _options.UNSET else codec_for(Any).settle(result, where="result")[0]
        if output is not None:
            check_payload(output, f"fork(result=...) of entry {at}", chars_max=engine.journal.payload_max)
        record = RunForked(run.id, new_id, at, text, output, engine.world.seed(), engine.world.now_us())
        answer: Forked = await engine.journal.write(record)
        if answer.problem is not None:
            raise fork_problem(answer.problem, run.id, new_id, at)
        if engine.worker is not None:
            engine.worker.dispatcher.poke()
        return Run(self, new_id, definition)

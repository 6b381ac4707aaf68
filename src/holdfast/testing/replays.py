"""Histories that must replay: what a run has recorded, against the code at hand.

    a run, or a file of `holdfast export` ─> replay here ─> replay in a child process, once for each hash seed
                                                 └── the first difference is the failure's message ──┘

Nothing is executed: no step's body begins, nothing is written. A run that has not ended must be able to go on; one that
has ended must end as it did. This is `holdfast replay` as an assertion, judged by the same function.

Why other processes: the order of a set of strings depends on PYTHONHASHSEED, which is another one in each process. Code
whose steps depend on such an order replays where it was recorded, and is blocked in the worker that takes it over.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

from holdfast._app import Holdfast
from holdfast._client import Client
from holdfast._flow.definitions import Workflow
from holdfast._model.bounds import plain, shown
from holdfast._model.exported import header, lines_of, read
from holdfast._model.records import ExportedRun
from holdfast._model.stored import of_export
from holdfast._run import Run
from holdfast._runtime.replay import Standing, Verdict, against_outcome, replay
from holdfast._store.exporting import exported, schema_of
from holdfast._store.readonly import ReadOnlyDatabase
from holdfast._sync import SyncRun
from holdfast.errors import NotOpen, RunNotFound, UsageError
from holdfast.testing.apps import ClockStore, Source, included
from holdfast.testing.clock import is_loop_running
from holdfast.testing.seeds import check_seeds, under_seeds

Recorded: TypeAlias = Run[Any] | SyncRun[Any] | str | os.PathLike[str]
"""A run of an open app, or the path of a file that `holdfast export` or `export_run` has made."""
HASH_SEEDS: Final = (1, 2)
SECONDS: Final = 60.0


def assert_replays(
    recorded: Recorded, *sources: Source, hash_seeds: Sequence[int] = HASH_SEEDS, seconds: float = SECONDS
) -> None:
    """Fail unless what was recorded replays against this code, here and in processes with other hash seeds.

    Call it anywhere, in an event loop too; it blocks for a fraction of a second for each hash seed. What is durable is
    replayed, so a run may be going on.

    Args:
        recorded: a run of an open app on a file, or the path of an exported file, of which every run is replayed.
        sources: the workflow, or workflows, modules of workflows, or an app.
        hash_seeds: values of PYTHONHASHSEED, 0 to 4294967295, each for a child process. The children import the
            workflows' modules anew. None: ``()``.
        seconds: how long one child may take.

    Raises:
        AssertionError: it does not replay; the message has the run, the entry, both sides and the seed.
        UsageError: the source or an option is wrong, or a child cannot import a workflow.
        RunNotFound: there is no such run.
    """
    __tracebackhide__ = True
    check_seeds(hash_seeds)
    app = included(Holdfast("sqlite://"), sources)
    if not app._known:
        raise UsageError("assert_replays needs the code", hint="assert_replays(run, checkout)")
    runs, schema = _recorded(recorded)
    told = _outside_of_loops(lambda: differences(runs, app._known))
    if told:
        raise AssertionError(told[0])
    used = [app._known[name] for name in sorted({of_export(run).row.workflow for run in runs})]
    problem = under_seeds(_lines(runs, schema), used, hash_seeds, seconds=seconds)
    if problem is not None:
        raise AssertionError(problem)


def export_run(run: Run[Any] | SyncRun[Any], path: str | os.PathLike[str]) -> None:
    """Write a run with its history into a file, as `holdfast export` does; an existing file is replaced.

    Keep such files beside the tests, and let `assert_replays` hold new code against them.

    Raises:
        UsageError: this is no run, or its database is in memory.
        RunNotFound: there is no such run.
    """
    if not isinstance(run, Run | SyncRun):
        raise UsageError(f"export_run({shown(run)}) takes a run", hint="app.get(run_id)")
    runs, schema = _recorded(run)
    Path(path).write_text("".join(f"{line}\n" for line in _lines(runs, schema)), encoding="utf-8")


def differences(
    runs: Iterable[ExportedRun], workflows: Mapping[str, Workflow[..., Any]], *, hints: bool = True
) -> list[str]:
    """What does not replay, one text for each run. Call it outside of any event loop."""
    told = []
    for exported_run in runs:
        run = of_export(exported_run)
        workflow = workflows.get(run.row.workflow)
        if workflow is None:
            known = ", ".join(sorted(workflows))
            told.append(f"run {run.row.id!r} is of workflow {run.row.workflow!r}, and the code given has {known}")
            continue
        standing = against_outcome(replay(run.row, workflow, run.history), state=run.state, output=run.output)
        if standing.verdict is not Verdict.GOES_ON:
            told.append(
                f"run {run.row.id!r} of workflow {run.row.workflow!r} does not replay: {_told(standing, hints)}"
            )
    return told


def _told(standing: Standing, hints: bool) -> str:
    at = "" if standing.entry is None else f" at entry {standing.entry}"
    lines = [f"{standing.verdict}{at}"]
    for label, text in (("recorded: ", standing.recorded), ("requested:", standing.requested)):
        if text:
            lines.append(f"  {label} {text}")
    if standing.problem:
        lines.append(f"  {standing.problem}")
    if standing.traceback:
        lines += [f"  {line}" for line in standing.traceback.rstrip().splitlines()]
    if standing.hint and hints:
        lines.append(f"hint: {standing.hint}")
    return "\n".join(lines)


def _recorded(recorded: Recorded) -> tuple[list[ExportedRun], int]:
    if isinstance(recorded, str | os.PathLike):
        return _of_file(Path(plain(os.fsdecode(recorded)))), 0
    run = recorded._run if isinstance(recorded, SyncRun) else recorded
    if not isinstance(run, Run):
        raise UsageError(
            f"assert_replays({shown(recorded)}) takes a run or a path", hint="of a file made by export_run"
        )
    with ReadOnlyDatabase(_database_of(run)) as database:
        sql = database.statement("run_of_id")
        row = database.read(lambda connection: connection.execute(sql, (run.id,)).fetchone())
        found = None if row is None else exported(database, row["number"])
        if found is None:
            raise RunNotFound(run.id)
        return [found], schema_of(database)


def _of_file(path: Path) -> list[ExportedRun]:
    try:
        with path.open("rb") as lines:
            return read(lines, source=str(path))
    except (OSError, ValueError) as error:  # a ValueError: no path at all, such as one with a NUL
        reason = error.strerror if isinstance(error, OSError) else error
        raise UsageError(
            f"cannot read {shown(str(path))}: {reason}", hint="make it with `holdfast export ID > FILE` or export_run"
        ) from error


def _database_of(run: Run[Any]) -> Path:
    client = run._client
    engine = client._opened if isinstance(client, Client) else None
    if engine is None:
        raise NotOpen(f"the app of run {run.id!r} is not open", hint="call it inside `async with app:`")
    store: Any = engine.store
    path: Path | None = (store.inner if isinstance(store, ClockStore) else store).uri.path
    if path is None:
        raise UsageError("a database in memory cannot be read from outside", hint="use a file: holdfast_app gives one")
    return path


def _lines(runs: Iterable[ExportedRun], schema: int) -> list[str]:
    return [header(schema), *(line for run in runs for line in lines_of(run))]


def _outside_of_loops(call: Any) -> Any:
    """A workflow's loop cannot run inside another one: then a thread without any."""
    if not is_loop_running():
        return call()
    answers: list[Any] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            answers.append(call())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work, name="assert-replays")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return answers[0]

"""`holdfast export` and `holdfast import`: runs as files."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import chain
from pathlib import Path
from typing import BinaryIO, Final

import click
from rich.text import Text

from holdfast import Client, RunState
from holdfast._model.exported import header, lines_of, read
from holdfast._model.records import ExportedRun, Imported, RunsImported
from holdfast._options import check_id
from holdfast._store.exporting import exported, schema_of
from holdfast._store.port import RecordRefused
from holdfast._store.readonly import ReadOnlyDatabase
from holdfast.cli.answers import write_list
from holdfast.cli.filters import Filters, filter_options
from holdfast.cli.harmless import harmless_json, one_line
from holdfast.cli.opening import existing, location, with_client
from holdfast.cli.settings import Settings, pass_settings, shared_options
from holdfast.cli.words import state_text
from holdfast.errors import RunConflict, RunNotFound, SchemaMismatch, UsageError

HEADER_BYTES_MAX: Final = 10_000


@click.command("export")
@click.argument("run_ids", metavar="[ID]...", nargs=-1)
@filter_options
@shared_options
@pass_settings
def export_runs(settings: Settings, run_ids: tuple[str, ...], filters: Filters) -> None:
    """Write runs with their whole histories to standard output, as JSON lines: `holdfast export ID > run.jsonl`.

    The database is only read, and may be in use. `holdfast replay` replays such a file, `holdfast import` puts it into
    another database.
    """
    if bool(run_ids) == filters.any:
        raise UsageError("export which runs?", hint="give ids, or conditions such as --where 'state:failed', not both")
    for run_id in run_ids:
        check_id(run_id)
    ids = _matching(settings, filters) if filters.any else [*dict.fromkeys(run_ids)]
    with ReadOnlyDatabase(existing(location(settings))) as database:
        keys = _keys(database, ids)
        missing = next((run_id for run_id, key in keys.items() if key is None), None)
        if missing is not None and not filters.any:  # all must be there before the first line is written
            raise RunNotFound(missing)
        print(harmless_json(header(schema_of(database))))
        for key in keys.values():
            run = None if key is None else exported(database, key)
            for line in lines_of(run) if run is not None else ():
                print(harmless_json(line))
        sys.stdout.flush()
    if not ids and settings.err.is_terminal:
        settings.err.print("no runs", style="dim")


@click.command("import")
@click.argument("file", metavar="FILE")
@click.option("--as", "new_id", metavar="ID", help="Another id, for a file with one run.")
@click.option("--resume", is_flag=True, help="Let runs that have not ended go on; without it they come in as paused.")
@shared_options
@pass_settings
def import_runs(settings: Settings, file: str, new_id: str | None, resume: bool) -> None:
    """Put exported runs into the database, all of them or none. FILE may be - for standard input.

    A run that has not ended comes in as paused, so that nothing executes by surprise.
    """
    runs = read_file(file)
    if new_id is not None:
        check_id(new_id)
        if len(runs) != 1:
            raise UsageError(f"--as {new_id} names one run, and {file} has {len(runs)}", hint="leave --as out")
        runs = [runs[0].called(new_id)]

    async def work(client: Client) -> None:
        engine = client._engine
        try:
            answer: Imported = await engine.journal.write(RunsImported(tuple(runs), resume, engine.world.now_us()))
        except RecordRefused as error:
            raise RecordRefused(
                f"{file}: {error.message}; nothing was imported", hint="export the runs again"
            ) from error
        _check(answer, file, len(runs))
        _write(settings, [(run.id, state) for run, state in zip(runs, answer.states, strict=True)])

    with_client(settings, work, create=True)


def read_file(file: str) -> list[ExportedRun]:
    """The runs of an export; - is standard input.

    Raises:
        UsageError: there is no such file, or a line of it is wrong.
    """
    try:
        with _opened(file) as lines:
            first = lines.readline(HEADER_BYTES_MAX)  # what is no export may have no line ends, or no end at all
            return read(chain([first] if first else [], lines), source="standard input" if file == "-" else file)
    except OSError as error:
        raise UsageError(
            f"cannot read {file}: {error.strerror}", hint="give a file made by `holdfast export ID > FILE`"
        ) from error


def _opened(file: str) -> AbstractContextManager[BinaryIO]:
    return nullcontext(sys.stdin.buffer) if file == "-" else Path(file).open("rb")


def _matching(settings: Settings, filters: Filters) -> list[str]:
    """The ids of runs that match, oldest first."""

    async def work(client: Client) -> list[str]:
        return [run.id async for run in client.iterate(**filters.conditions())]

    return with_client(settings, work)[::-1]


def _keys(database: ReadOnlyDatabase, run_ids: Sequence[str]) -> dict[str, int | None]:
    """The keys of runs; none for one that is not there."""
    sql = database.statement("run_of_id")

    def key(run_id: str) -> int | None:
        row = database.read(lambda connection: connection.execute(sql, (run_id,)).fetchone())
        return None if row is None else int(row["number"])

    return {run_id: key(run_id) for run_id in run_ids}


def _check(answer: Imported, file: str, runs: int) -> None:
    if answer.problem == "id-taken":
        hint = "--as gives another id" if runs == 1 else "export it alone, and give it another id with --as"
        raise RunConflict(
            f"run {answer.what!r} exists already; nothing was imported",
            run_id=answer.what,
            hint=hint,
        )
    if answer.problem is not None:
        raise SchemaMismatch(
            f"{file} has a column {answer.what} that this database lacks; nothing was imported",
            hint="the file is from a newer release: upgrade holdfast",
        )


def _write(settings: Settings, imported: list[tuple[str, RunState]]) -> None:
    if settings.is_json:
        write_list(settings, [{"id": run_id, "state": state.value} for run_id, state in imported])
        return
    for run_id, state in imported:
        settings.out.print(Text.assemble(one_line(run_id), "  ", state_text(state)), soft_wrap=True)

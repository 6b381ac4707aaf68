"""Pruning on SQLite: its query plans, its argument under random schedules, and the size of the file."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.store.test_sqlite import a_store

from holdfast._model.lifecycle import ENDED, RunState
from holdfast._model.records import Cutoff, Removed, RunsPruned
from holdfast._store import sqlite_prune
from holdfast._store.migrate import migrate
from holdfast._store.sqlfile import load
from holdfast._store.sqlite import SqliteStore
from holdfast._store.sqlite_space import PAGES_AT_ONCE, compact, space
from holdfast._store.sqlitefile import LOG_BYTES_MAX, SqliteFile
from holdfast._store.uri import SqliteUri
from holdfast._world import SystemWorld
from holdfast.testing.store_conformance.bench import FAR, WORKER, Bench, ended, entry, started

S = RunState
SQL = load("sqlite.sql")
PLANNED: dict[str, tuple[Any, ...]] = {
    "ended_groups": (),
    "count_ended": ("flow", "failed", 5),
    "count_ended_entries": ("flow", "failed", 5, 100),
    "prune_candidates": ("flow", "failed", 5, 100),
    "prune_histories": ("[1]",),
    "prune_numbers": ("[1]",),
    "prune_runs": ("[1]",),
    "prune_mark": (1, "x"),
    "prune_attributes": (1,),
    "prune_marked": ("a", "b"),
    "prune_slice": (1, 5),
}
TABLES = ("holdfast_runs", "holdfast_history", "holdfast_attributes")


@contextmanager
def a_file(path: Path | None) -> Iterator[SqliteFile]:
    file = SqliteFile(SqliteUri(path=path), joins=True)
    try:
        migrate(file.writer(), file.turnstile, now_us=0)
        yield file
    finally:
        file.close()


def fill(connection: sqlite3.Connection, runs: int, *, entries: int, state: str = "succeeded") -> None:
    """Ended runs with histories; their numbers follow those that are there."""
    first = connection.execute(SQL["next_number"]).fetchone()[0]
    connection.execute("begin immediate")
    for number in range(first, first + runs):
        connection.execute(
            "insert into holdfast_runs (number, id, workflow, state, input, seed, created_at, ended_at)"
            " values (?, ?, 'flow', ?, '{}', 1, 1, 1)",
            (number, f"r{number}", state),
        )
        connection.executemany(
            "insert into holdfast_history (run, seq, after, ordinal, kind, name, state, output, attempts)"
            " values (?, ?, ?, ?, 'step', 'work', 'succeeded', ?, 1)",
            [(number, seq, seq, seq, f'"{"x" * 100}"') for seq in range(1, entries + 1)],
        )
    connection.execute("commit")


def prune_all(connection: sqlite3.Connection, file: SqliteFile) -> int:
    """Batches of one chunk each, until nothing is left; how many."""
    pruner = sqlite_prune.Pruner(connection, SQL, lambda: 0)
    batches = 0
    more = True
    while more:
        with file.turnstile.turn():
            connection.execute("begin immediate")
            more = pruner.prune(RunsPruned((Cutoff("flow", S.SUCCEEDED, FAR),), 10_000, 0)).more
            connection.execute("commit")
        batches += 1
    return batches


@pytest.mark.parametrize("name", PLANNED)
def test_pruning_finds_its_rows_through_indexes(name: str) -> None:
    with a_file(None) as file:
        rows = file.writer().execute(f"explain query plan {SQL[name]}", PLANNED[name]).fetchall()
    plan = [row[3] for row in rows]
    assert not [line for line in plan if line.startswith(("SCAN holdfast_runs", "SCAN holdfast_history"))], plan


def test_groups_are_found_by_jumps_and_candidates_in_the_order_of_the_index() -> None:
    with a_file(None) as file:
        connection = file.writer()
        groups, candidates = (
            " | ".join(row[3] for row in connection.execute(f"explain query plan {SQL[name]}", PLANNED[name]))
            for name in ("ended_groups", "prune_candidates")
        )
    assert "SEARCH holdfast_runs USING COVERING INDEX holdfast_runs_ended (workflow>?)" in groups
    assert "SEARCH holdfast_runs USING COVERING INDEX holdfast_runs_ended (workflow=? AND state=? AND" in groups
    assert "COVERING INDEX holdfast_runs_ended (workflow=? AND state=? AND ended_at<?)" in candidates
    assert "TEMP B-TREE" not in candidates


def test_the_index_of_ended_runs_holds_only_those() -> None:
    with a_file(None) as file:
        (sql,) = file.writer().execute("select sql from sqlite_master where name = 'holdfast_runs_ended'").fetchone()
    assert " ".join(sql.split()).endswith("on holdfast_runs (workflow, state, ended_at) where ended_at is not null")


Model = dict[str, tuple[RunState, int, int]]
"""For each run its state, when it ended, and how many entries it has."""


async def random_database(bench: Bench, dice: random.Random, *, runs: int) -> Model:
    """Runs in random states; many share an instant, some histories go in slices."""
    model: Model = {}
    for place in range(runs):
        run_id, state = f"r{place}", dice.choice([*RunState, *ENDED, *ENDED])
        entries = dice.choice((0, 1, 3, 9, 21, 22, 60))
        number = await bench.put(run_id, state) if state not in ENDED else await bench.start(run_id)
        records: list[Any] = [entry(number, seq, seq) for seq in range(1, entries + 1)]
        ended_at = dice.choice((5, 5, 5, 6, 7, 20))
        if state in ENDED:
            records.append(ended(number, state, ended_at=ended_at))
        if records:
            await bench.post(records)
        model[run_id] = (state, ended_at, entries)
    return model


async def compare(bench: Bench, path: Path, kept: Model) -> None:
    """What must be kept is there with every row; what may go is there as a whole, or cannot be found by its id."""
    for run_id, (state, _, entries) in kept.items():
        row = await bench.row(run_id)
        assert (row.state, len(await bench.entries(row.number))) == (state, entries), run_id
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        assert connection.execute("pragma foreign_key_check").fetchall() == []
    finally:
        connection.close()


@asynccontextmanager
async def opened_again(path: Path) -> AsyncIterator[Bench]:
    store = SqliteStore(SqliteUri(path=path), world=SystemWorld())
    await store.open(on_change=lambda: None)
    try:
        yield Bench(store, lambda: store)
    finally:
        await store.close()


@given(seed=st.integers(0, 2**32))
@settings(max_examples=30, deadline=None)
def test_whatever_is_pruned_and_interrupted_the_rest_is_whole(
    seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A store that is closed after a batch stands for a process that ended there: only the file is left of it."""
    dice = random.Random(seed)
    path = tmp_path_factory.mktemp("random") / "a.db"

    async def main() -> None:
        async with a_store(path) as bench:
            model = await random_database(bench, dice, runs=20)
        cuts: dict[RunState, int] = {}
        for _ in range(dice.randint(1, 4)):
            async with opened_again(path) as bench:
                for _ in range(dice.randint(1, 6)):
                    state, before = dice.choice([*RunState]), dice.choice((5, 6, 7, 8, 21))
                    cuts[state] = max(before, cuts.get(state, 0))
                    await bench.submit(RunsPruned((Cutoff("flow", state, before),), dice.randint(0, 5), 0))
                kept = {
                    run_id: run for run_id, run in model.items() if run[0] not in ENDED or run[1] >= cuts.get(run[0], 0)
                }
                await compare(bench, path, kept)
        async with opened_again(path) as bench:
            cutoffs = tuple(Cutoff("flow", state, before) for state, before in cuts.items())
            removed: Removed = await bench.submit(RunsPruned(cutoffs, 1000, FAR))
            assert not removed.more
            await compare(bench, path, kept)
        entries = sum(run[2] for run in kept.values())
        assert rows_of(path) == {"holdfast_runs": len(kept), "holdfast_history": entries, "holdfast_attributes": 0}

    before = sqlite_prune.CHUNK_ENTRIES, sqlite_prune.CHUNK_RUNS
    sqlite_prune.CHUNK_ENTRIES, sqlite_prune.CHUNK_RUNS = 21, 4  # type: ignore[misc]
    try:
        asyncio.run(main())
    finally:
        sqlite_prune.CHUNK_ENTRIES, sqlite_prune.CHUNK_RUNS = before  # type: ignore[misc]


def rows_of(path: Path) -> dict[str, int]:
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return {table: connection.execute(f"select count(*) from {table}").fetchone()[0] for table in TABLES}
    finally:
        connection.close()


def test_two_workers_that_prune_at_once_share_the_work(tmp_path: Path) -> None:
    async def main() -> None:
        async with a_store(tmp_path / "a.db") as first:
            await first.post([started(f"r{place}") for place in range(2_000)])
            await first.post([ended(number) for number in range(1, 2_001)])
            second = first.make()
            await second.open(on_change=lambda: None)
            other = Bench(second, first.make)
            record = RunsPruned((Cutoff("flow", S.SUCCEEDED, FAR),), 10_000, 0)
            counts = [0, 0]
            more = True
            while more:
                answers: list[Removed] = await asyncio.gather(first.submit(record), other.submit(record))
                counts = [count + answer.runs[0] for count, answer in zip(counts, answers, strict=True)]
                more = any(answer.more for answer in answers)
            await second.close()
            assert sum(counts) == 2_000
            assert min(counts) > 0

    asyncio.run(main())


def test_a_fenced_worker_prunes_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        async with a_store(tmp_path / "a.db") as bench:
            await bench.submit(ended(await bench.start("a")))
            await bench.store.leave(WORKER, now=5)
            await bench.refused(RunsPruned((Cutoff("flow", S.SUCCEEDED, FAR),), 10, 0), worker=WORKER)
            assert (await bench.row("a")).id == "a"

    asyncio.run(main())


def test_the_file_shrinks_in_small_pieces_and_keeps_what_it_is_told_to(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with a_file(path) as file:
        connection = file.writer()
        fill(connection, 300, entries=20)
        prune_all(connection, file)
        before = space(connection)
        assert before.free > before.size // 2
        page = 4096
        given = []
        with file.turnstile.turn():
            while piece := compact(connection, keep=100 * page):
                given.append(piece)
        assert max(given) <= (PAGES_AT_ONCE + 2) * page, "with the page that maps the others"
        assert len(given) >= 3
        after = space(connection)
        assert after.free == 100 * page
        assert path.stat().st_size == after.size, "the last piece has moved the log into the file"


def test_a_file_that_was_not_made_to_shrink_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    made = sqlite3.connect(path)
    made.execute("create table mine (x)")
    made.close()
    with a_file(path) as file:
        connection = file.writer()
        fill(connection, 50, entries=20)
        prune_all(connection, file)
        before = space(connection)
        assert before.free > 0
        with file.turnstile.turn():
            assert compact(connection, keep=0) == 0
        assert space(connection) == before


def test_the_log_stays_small_while_much_is_pruned(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with a_file(path) as file:
        connection = file.writer()
        fill(connection, 4, entries=30_000)
        connection.execute("pragma wal_checkpoint(truncate)").fetchall()
        assert prune_all(connection, file) > 100
        log = path.with_name("a.db-wal").stat().st_size
        assert log < LOG_BYTES_MAX / 2, "checkpoints keep pace with batches"

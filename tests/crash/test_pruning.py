"""Processes that prune are killed between any two of their instructions: what is kept is whole, what went is gone."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from tests.crash.figures import Add

from holdfast._store.migrate import migrate
from holdfast._store.sqlitefile import SqliteFile
from holdfast._store.uri import SqliteUri

pytestmark = pytest.mark.crash

PRUNING = """
import asyncio, os, sys
from datetime import timedelta
from holdfast import Holdfast
from holdfast._runtime import pruning
from holdfast._store import sqlite_prune

pruning.BUDGET_US = 0
sqlite_prune.CHUNK_RUNS, sqlite_prune.CHUNK_ENTRIES = 20, 100

async def main():
    async with Holdfast(sys.argv[1]).client() as client:
        pruned = await client.prune(older_than=timedelta(days=5), on_progress=lambda _: os.write(1, b"."))
    os.write(1, b"!")

asyncio.run(main())
"""
DAY_US = 86_400_000_000
STATES = ("scheduled", "ready", "running", "waiting", "succeeded", "failed", "cancelled", "paused", "blocked")
WHOLE = """
select r.id, r.state, (select count(*) from holdfast_history where run = r.number) as entries,
    (select count(*) from holdfast_attributes where run = r.number) as attributes
from holdfast_runs as r where r.ended_at is null or r.ended_at >= ? order by r.id
"""


def fill(path: Path, dice: random.Random, *, runs: int, now_us: int) -> None:
    """Runs in every state, half of them older than what is pruned; several share an instant, some are long."""
    file = SqliteFile(SqliteUri(path=path))
    connection = file.writer()
    migrate(connection, file.turnstile, now_us=0)
    connection.execute("begin immediate")
    for number in range(1, runs + 1):
        state = dice.choice(STATES)
        at = now_us - dice.choice((1, 2, 10, 10, 10, 20)) * DAY_US
        ended = at if state in {"succeeded", "failed", "cancelled"} else None
        connection.execute(
            "insert into holdfast_runs (number, id, workflow, state, input, seed, created_at, ended_at)"
            " values (?, ?, ?, ?, '{}', 1, ?, ?)",
            (number, f"r{number}", dice.choice("abc"), state, at, ended),
        )
        connection.execute("insert into holdfast_attributes values ('k', ?, ?)", (number, number))
        connection.executemany(
            "insert into holdfast_history (run, seq, after, ordinal, kind, name, state, attempts)"
            " values (?, ?, ?, ?, 'step', 'work', 'succeeded', 1)",
            [(number, seq, seq, seq) for seq in range(1, dice.choice((1, 5, 5, 5, 99, 100, 350)))],
        )
    connection.execute("commit")
    file.close()


def whole(path: Path, cutoff: int) -> list[tuple[str, str, int, int]]:
    """What must be kept, with the number of its rows."""
    connection = sqlite3.connect(path)
    try:
        assert connection.execute("pragma integrity_check").fetchone() == ("ok",)
        assert connection.execute("pragma foreign_key_check").fetchall() == []
        return connection.execute(WHOLE, (cutoff,)).fetchall()
    finally:
        connection.close()


def test_killed_pruners_leave_every_kept_run_whole_and_the_last_one_finishes(
    tmp_path: Path, figures: Add, capsys: pytest.CaptureFixture[str]
) -> None:
    seed = int(os.environ.get("HOLDFAST_SEED", random.randrange(2**32)))
    kills = max(int(os.environ.get("HOLDFAST_KILLS", "6")) // 5, 6)
    dice = random.Random(seed)
    path = tmp_path / "a.db"
    now_us = int(os.stat(tmp_path).st_mtime) * 1_000_000
    cutoff = now_us - 5 * DAY_US
    fill(path, dice, runs=1_500, now_us=now_us)
    kept = whole(path, cutoff)

    def pruner() -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", PRUNING, f"sqlite:///{path}"], stdout=subprocess.PIPE)

    ended = 0
    for _ in range(kills):
        with pruner() as first, pruner() as second:
            for process in (first, second):
                assert process.stdout is not None
                told = 0
                wanted = dice.randint(1, 4)
                while told < wanted and (read := os.read(process.stdout.fileno(), 1)):
                    told += 1
                    ended += read == b"!"
                process.send_signal(signal.SIGKILL)
        assert whole(path, cutoff) == kept, f"HOLDFAST_SEED={seed}"
    with pruner() as last:
        assert last.stdout is not None
        assert last.stdout.read().endswith(b"!"), f"HOLDFAST_SEED={seed}"
    assert whole(path, cutoff) == kept, f"HOLDFAST_SEED={seed}"
    assert rows(path) == (len(kept), sum(row[2] for row in kept), sum(row[3] for row in kept)), f"HOLDFAST_SEED={seed}"
    figures("pruning", trials=f"{2 * kills} kills", facts=len(kept) * (kills + 1), lost=0, damaged=0, seed=seed)
    with capsys.disabled():
        print(f"\n{2 * kills} pruners killed, {ended} had ended before; seed {seed}")


def rows(path: Path) -> tuple[int, ...]:
    connection = sqlite3.connect(path)
    try:
        tables = "holdfast_runs", "holdfast_history", "holdfast_attributes"
        return tuple(connection.execute(f"select count(*) from {table}").fetchone()[0] for table in tables)
    finally:
        connection.close()

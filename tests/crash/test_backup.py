"""Backups of a database on which two real workers are working; real workers go on with the copies."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from tests.crash.load import app_on, in_a_row, napping, plainly, side_by_side

from holdfast import Start
from holdfast.cli import run

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_SECONDS = 60.0
STEPS_BEFORE = 200
RUNS = 400
COPIES = 3
pytestmark = pytest.mark.crash


@contextmanager
def process(role: str, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "tests.crash.load", role, str(folder)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        try:
            yield child
        finally:
            child.kill()


async def start_all(folder: Path) -> None:
    flows = (in_a_row, side_by_side, plainly, napping)
    async with app_on(folder).client() as client:
        await client.start_many(
            [Start(flows[number % 4], 2 + number % 4, id=f"run-{number}") for number in range(RUNS)]
        )


def copies_under_load(folder: Path) -> list[Path]:
    """Made while steps are executed: each after so many more of them."""
    copies: list[Path] = []
    asyncio.run(start_all(folder))
    with process("worker", folder) as first, process("worker", folder) as second:
        for number in range(COPIES):
            for worker in (first, second):
                assert worker.stdout is not None
                worker.stdout.read(STEPS_BEFORE // 2)
            copy = folder / f"copy-{number}" / "storm.db"
            copy.parent.mkdir()
            assert run(["backup", str(copy), "--db", f"sqlite:///{folder / 'storm.db'}", "-o", "json"]) == 0
            copies.append(copy)
        for worker in (first, second):
            worker.communicate(timeout=PATIENCE_SECONDS)
    return copies


def compare(copy: Path) -> int:
    """Every run of a copy is consistent; returns how many have not ended."""
    with closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("pragma integrity_check").fetchall() == [("ok",)]
        assert connection.execute("pragma foreign_key_check").fetchall() == []
        runs = connection.execute("select number, state, output, worker from holdfast_runs").fetchall()
        for number, state, output, worker in runs:
            found = connection.execute("select ordinal from holdfast_history where run = ?", (number,)).fetchall()
            ordinals = sorted(row[0] for row in found if row[0] is not None)
            assert ordinals == list(range(1, len(ordinals) + 1))
            assert (output is not None) == (state == "succeeded")
            assert (worker is not None) == (state == "running")
        return sum(state != "succeeded" for _, state, _, _ in runs)


def unfinished(copy: Path) -> int:
    with closing(sqlite3.connect(f"file:{copy}?mode=ro", uri=True)) as connection:
        sql = "select count(*) from holdfast_runs where state != 'succeeded'"
        count: int = connection.execute(sql).fetchone()[0]
        return count


def test_copies_made_under_load_are_consistent_and_go_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copies = copies_under_load(tmp_path)
    capsys.readouterr()
    left = [compare(copy) for copy in copies]
    assert any(left), "no run was under way when a copy was made"
    for copy in copies:
        deadline = time.monotonic() + PATIENCE_SECONDS
        with process("worker", copy.parent) as worker:
            while unfinished(copy):
                assert worker.poll() is None, "the worker has died"
                assert time.monotonic() < deadline, f"{unfinished(copy)} runs of {copy} do not end"
                time.sleep(0.02)
            worker.communicate(timeout=PATIENCE_SECONDS)
        assert compare(copy) == 0

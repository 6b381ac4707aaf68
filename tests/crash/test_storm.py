"""Real processes, real kills. `make crash` runs this with 200 of them (HOLDFAST_KILLS)."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.crash.checker import check
from tests.crash.figures import Add, Progress, seed_in

ROOT = Path(__file__).resolve().parents[2]
KILLS = os.environ.get("HOLDFAST_KILLS", "6")
pytestmark = pytest.mark.crash


@pytest.fixture(scope="module")
def storm(
    tmp_path_factory: pytest.TempPathFactory, progress: Progress
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    folder = tmp_path_factory.mktemp("storm")
    command = [sys.executable, "-m", "tests.crash.storm", "--kills", KILLS, "--folder", str(folder)]
    return folder, progress.run(command)


def test_killed_workers_lose_and_repeat_nothing(
    storm: tuple[Path, subprocess.CompletedProcess[str]], figures: Add, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, process = storm
    with capsys.disabled():
        print(f"\n{process.stdout.strip()}")
    found = check(folder)
    counts = {"lost": len(found.lost), "repeated": len(found.repeated), "damaged": len(found.damaged)}
    figures("storm", trials=f"{KILLS} kills", facts=found.facts, seed=seed_in(process.stdout), **counts)
    assert process.returncode == 0, process.stdout + process.stderr


def steps_again(folder: Path, *, workflow: str) -> None:
    """A recorded step begins once more."""
    connection = sqlite3.connect(folder / "storm.db")
    run = connection.execute(
        "select id from holdfast_runs where workflow = ? and state = 'succeeded' limit 1", (workflow,)
    ).fetchone()[0]
    connection.close()
    with (folder / "steps.log").open("a") as log:
        log.write(f"B {run} 0.1 0.feed\n")


def told_cancelled(folder: Path) -> None:
    """A client was told that a run is cancelled, and it has succeeded."""
    connection = sqlite3.connect(folder / "storm.db")
    run = connection.execute("select id from holdfast_runs where state = 'succeeded' limit 1").fetchone()[0]
    connection.close()
    with (folder / "client.log").open("a") as log:
        log.write(f"X {run}\n")


def change(statement: str) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        connection = sqlite3.connect(folder / "storm.db", isolation_level=None)
        connection.execute(statement)
        connection.close()

    return apply


FIRST = "(select number from holdfast_runs where state = 'succeeded' limit 1)"
TAMPERINGS: dict[str, tuple[Callable[[Path], None], str]] = {
    "a step is repeated": (lambda folder: steps_again(folder, workflow="side_by_side"), "repeated"),
    "a step before the last is repeated": (lambda folder: steps_again(folder, workflow="in_a_row"), "repeated"),
    "a cancelled run succeeds": (told_cancelled, "lost"),
    "a run is gone": (change(f"delete from holdfast_runs where number = {FIRST}"), "lost"),
    "a run is not finished": (change(f"update holdfast_runs set state = 'ready' where number = {FIRST}"), "lost"),
    "a result is another": (change(f"update holdfast_runs set output = '\"x\"' where number = {FIRST}"), "lost"),
    "a step's result is another": (change(f"update holdfast_history set output = '\"x\"' where run = {FIRST}"), "lost"),
    "an entry is of no run": (change("insert into holdfast_attributes values ('k', 1, 10000000)"), "damaged"),
}


@pytest.mark.parametrize("name", TAMPERINGS)
def test_the_checker_notices_when(
    name: str, storm: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(storm[0], folder)
    assert check(folder).ok
    tamper, kind = TAMPERINGS[name]
    tamper(folder)
    assert getattr(check(folder), kind)

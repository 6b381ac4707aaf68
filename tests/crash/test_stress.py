"""Commits and checkpoints of several processes. `make crash` runs this for minutes (HOLDFAST_STRESS_SECONDS)."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.crash.figures import Add, Progress, seed_in
from tests.crash.stress import Report, check

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.crash


@pytest.fixture(scope="module")
def stress(
    tmp_path_factory: pytest.TempPathFactory, progress: Progress
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    folder = tmp_path_factory.mktemp("stress")
    seconds = os.environ.get("HOLDFAST_STRESS_SECONDS", "5")
    command = [sys.executable, "-m", "tests.crash.stress", "--seconds", seconds, "--folder", str(folder)]
    return folder, progress.run(command)


def test_commits_and_checkpoints_of_several_processes_lose_and_damage_nothing(
    stress: tuple[Path, subprocess.CompletedProcess[str]], figures: Add, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, process = stress
    with capsys.disabled():
        print(f"\n{process.stdout.strip()}")
    found, wrong = checked(folder), process.stdout.strip().count("\n")
    trials = f"{found.turns:,} turns, {found.checkpoints:,} of them checkpoints"
    figures("stress", trials=trials, facts=found.facts, seed=seed_in(process.stdout), lost=wrong, damaged=wrong)
    assert process.returncode == 0, process.stdout + process.stderr


def checked(folder: Path) -> Report:
    report = Report()
    check(folder, report)
    return report


def change(statement: str) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        connection = sqlite3.connect(folder / "stress.db", isolation_level=None)
        connection.execute(statement)
        connection.execute("pragma wal_checkpoint(truncate)")
        connection.close()

    return apply


def a_page_is_an_older_one(folder: Path) -> None:
    """What the bug does: frames that are taken for moved were not."""
    path = folder / "stress.db"
    change("pragma user_version = 1")(folder)
    content = bytearray(path.read_bytes())
    middle = len(content) // 4096 // 2 * 4096
    content[middle : middle + 4096] = content[middle - 4096 : middle]
    path.write_bytes(content)


LAST = "number = (select max(number) from facts f where f.life = facts.life)"
DAMAGES: dict[str, Callable[[Path], None]] = {
    "the last fact of each is lost": change(f"delete from facts where {LAST}"),
    "a fact is lost": change("delete from facts where number = 1 and life = (select min(life) from facts)"),
    "a sum is an older one": change("update sums set facts = facts - 1 where life = (select min(life) from facts)"),
    "a page is another": a_page_is_an_older_one,
}


@pytest.mark.parametrize("name", DAMAGES)
def test_the_stress_notices_when(
    name: str, stress: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(stress[0], folder)
    before = checked(folder)
    assert before.wrong == []
    assert before.facts > 0
    assert before.turns > before.checkpoints > 0
    DAMAGES[name](folder)
    assert checked(folder).wrong

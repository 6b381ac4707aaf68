"""`holdfast prune`: what it shows, asks, removes and leaves; what `doctor` says of retention and space."""

from __future__ import annotations

import io
import signal
import sqlite3
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Cli = Callable[..., Any]
DAY_US = 86_400_000_000
TABLES = ("holdfast_runs", "holdfast_history", "holdfast_attributes")


def age_runs(shop: Path, days: int) -> None:
    """As if everything here had happened so long ago."""
    connection = sqlite3.connect(shop / "orders.db")
    with connection:
        connection.execute("update holdfast_runs set ended_at = ended_at - ?", (days * DAY_US,))
    connection.close()


def left(cli: Cli) -> set[str]:
    return {run["id"] for run in cli("ls", "-o", "json").json}


def on_a_terminal(monkeypatch: pytest.MonkeyPatch, typed: str) -> None:
    stdin = io.StringIO(typed)
    monkeypatch.setattr(stdin, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdin", stdin)


def test_dry_run_shows_workflows_and_states_and_removes_nothing(worked_off: Cli, shop: Path) -> None:
    age_runs(shop, 40)
    before = left(worked_off)
    answer = worked_off("prune", "--dry-run")
    assert answer.code == 0
    assert [line.split() for line in answer.out.splitlines()] == [
        ["workflow", "state", "runs", "oldest", "ended"],
        ["checkout", "✓", "succeeded", "1", "40", "d"],
        ["declined", "✗", "failed", "1", "40", "d"],
        ["would", "remove", "2", "runs", "with", "4", "entries;", "nothing", "was", "changed"],
    ]
    assert left(worked_off) == before
    assert worked_off("prune", "--dry-run", "-o", "json").json["entries"] == 4


def test_prune_goes_by_the_default_retention_or_by_the_apps(worked_off: Cli, shop: Path) -> None:
    age_runs(shop, 8)
    assert worked_off("prune", "--dry-run", "-o", "json").json["runs"] == 1
    with (shop / "shop.py").open("a") as code:
        code.write("\nfrom holdfast import Retention, WorkerOptions\n")
        code.write("app = Holdfast('sqlite:///orders.db', worker=WorkerOptions(retention=None))\n")
        code.write("app.include(checkout)\n")
    answer = worked_off("prune", "--app", "shop:app", "--yes")
    assert answer.code == 2
    assert "for ever" in answer.err
    assert worked_off("prune", "--app", "shop:app", "--older-than", "7d", "--yes").code == 0
    assert left(worked_off) == {"later", "ready-1"}


def test_without_a_terminal_it_wants_yes_and_then_removes_all_rows(worked_off: Cli, shop: Path) -> None:
    age_runs(shop, 40)
    answer = worked_off("prune", "-o", "json")
    assert (answer.code, answer.error["code"]) == (7, "confirmation-needed")
    assert "2 runs" in answer.error["message"]
    answer = worked_off("prune", "--yes", "-o", "json")
    assert (answer.code, answer.json["runs"], answer.json["dry_run"]) == (0, 2, False)
    assert [group["workflow"] for group in answer.json["groups"]] == ["checkout", "declined"]
    assert left(worked_off) == {"later", "ready-1"}
    connection = sqlite3.connect(shop / "orders.db")
    assert [connection.execute(f"select count(*) from {table}").fetchone()[0] for table in TABLES] == [2, 0, 0]
    connection.close()
    answer = worked_off("prune")
    assert (answer.code, answer.out) == (0, "nothing to remove\n")


@pytest.mark.parametrize(("typed", "code", "runs"), [("n\n", 7, 4), ("\n", 7, 4), ("y\n", 0, 3)])
def test_on_a_terminal_it_shows_what_and_asks(
    worked_off: Cli, monkeypatch: pytest.MonkeyPatch, typed: str, code: int, runs: int
) -> None:
    on_a_terminal(monkeypatch, typed)
    answer = worked_off("prune", "--older-than", "0", "--state", "failed")
    assert answer.code == code
    assert "remove 1 run with 2 entries for good? [y/N]" in answer.err
    assert "declined" in answer.err
    assert len(left(worked_off)) == runs


@pytest.mark.parametrize(
    "words",
    [
        ["--state", "paused"],
        ["--state", "nonsense"],
        ["--older-than", "a while"],
        ["--older-than", "99999d"],
        ["--limit", "0"],
    ],
)
def test_what_means_nothing_is_refused(worked_off: Cli, words: list[str]) -> None:
    before = left(worked_off)
    answer = worked_off("prune", "--yes", *words)
    assert answer.code == 2
    assert answer.err.startswith("error: ")
    assert left(worked_off) == before


def test_a_missing_database_is_not_made(cli: Cli, shop: Path) -> None:
    assert cli("prune", "--yes").code == 1
    assert not (shop / "orders.db").exists()


def test_ctrl_c_leaves_with_a_count_and_a_sound_database(
    worked_off: Cli, shop: Path, process: Callable[..., Any]
) -> None:
    connection = sqlite3.connect(shop / "orders.db")
    with connection:
        connection.executemany(
            "insert into holdfast_runs (id, workflow, state, input, seed, created_at, ended_at)"
            " values (?, 'flow', 'succeeded', '{}', 1, 1, 1)",
            [(f"x{number}",) for number in range(60_000)],
        )
    prune = process("prune", "--yes")
    while connection.execute("select count(*) from holdfast_runs where workflow = 'flow'").fetchone()[0] == 60_000:
        assert prune.poll() is None, prune.stderr.read()
        time.sleep(0.001)  # between two looks; the number of the rows is what is waited for
    prune.send_signal(signal.SIGINT)
    _, told = prune.communicate(timeout=30)
    runs = connection.execute("select count(*) from holdfast_runs where workflow = 'flow'").fetchone()[0]
    connection.close()
    assert prune.returncode == 130
    assert f"interrupted: {60_000 - runs:,} runs removed" in told
    assert "Traceback" not in told
    assert 0 < runs < 60_000
    assert worked_off("prune", "--yes", "-o", "json").json["runs"] == runs


# doctor


def findings_of(cli: Cli, name: str) -> list[dict[str, str]]:
    return [check for check in cli("doctor", "-o", "json").json["checks"] if check["name"] == name]


def test_doctor_tells_of_runs_that_nobody_removes(worked_off: Cli, shop: Path) -> None:
    assert [check["level"] for check in findings_of(worked_off, "retention")] == ["ok"]
    age_runs(shop, 9)
    (finding,) = findings_of(worked_off, "retention")
    assert (finding["level"], finding["message"][:6]) == ("warn", "1 runs")
    assert "holdfast prune" in finding["advice"]


def test_doctor_says_how_a_file_learns_to_shrink(cli: Cli, shop: Path) -> None:
    made = sqlite3.connect(shop / "orders.db")
    made.execute("create table mine (x)")
    made.close()
    assert cli("migrate").code == 0
    cli("start", "any", "--id", "a")
    (finding,) = findings_of(cli, "space")
    assert (finding["level"], "vacuum" in finding["advice"]) == ("warn", True)
    command = finding["advice"].split("'")[1]
    connection = sqlite3.connect(shop / "orders.db", isolation_level=None)
    connection.executescript(command)
    connection.close()
    assert [check["level"] for check in findings_of(cli, "space")] == ["ok"]
    assert left(cli) == {"a"}

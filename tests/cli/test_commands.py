"""The command line as a whole: where options may stand, help, typing errors, exit codes that need no run."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import holdfast.cli.version as version_module
from holdfast import __version__
from holdfast.cli import problems
from holdfast.cli.commands import COMMANDS
from holdfast.errors import (
    Fenced,
    HoldfastError,
    InternalError,
    NondeterminismError,
    RunCancelled,
    RunConflict,
    RunFailed,
    RunNotFound,
    SchemaMismatch,
    StoreBusy,
    StoreCorrupt,
    StoreFull,
    UnknownWorkflow,
    WaitTimeout,
)

Cli = Callable[..., Any]


def test_version_names_holdfast_python_and_sqlite(cli: Cli) -> None:
    assert set(cli("version", "-o", "json").json) == {"holdfast", "python", "sqlite"}
    assert cli("version").out.splitlines()[0].split() == ["holdfast", __version__]


def test_importing_holdfast_imports_neither_click_nor_rich() -> None:
    code = "import sys, holdfast; print([m for m in ('click', 'rich', 'holdfast.cli') if m in sys.modules])"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": ":".join(sys.path)}
    )
    assert found.stdout.strip() == "[]"


def test_help_lists_every_command_and_the_exit_codes(cli: Cli) -> None:
    answer = cli("--help")
    assert answer.code == 0
    assert all(f"\n  {name} " in answer.out for name in COMMANDS)
    assert "7 confirmation needed" in answer.out


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "demo"])
def test_every_command_has_help(cli: Cli, name: str) -> None:
    answer = cli(name, "--help")
    assert answer.code == 0
    assert "--db" in answer.out


def test_no_command_shows_the_help(cli: Cli) -> None:
    answer = cli()
    assert answer.code == 0
    assert answer.out.startswith("Usage:")


def test_misspelt_command_is_corrected(cli: Cli) -> None:
    answer = cli("shwo")
    assert (answer.code, answer.out) == (2, "")
    assert answer.err == "error: there is no command 'shwo' (hint: did you mean `show`?)\n"


def test_misspelt_option_is_a_usage_error_in_one_line(cli: Cli) -> None:
    answer = cli("ls", "--limt", "3")
    assert answer.code == 2
    assert answer.err.startswith("error: no such option")
    assert len(answer.err.splitlines()) == 1


def test_usage_error_is_json_even_when_the_line_cannot_be_parsed(cli: Cli) -> None:
    answer = cli("lss", "-o", "json")
    assert answer.code == 2
    assert answer.error["code"] == "usage"
    assert answer.error["hint"] == "did you mean `ls`?"


def test_shared_options_stand_before_or_after_the_command(cli: Cli, shop: Path) -> None:
    cli("start", "a", "--db", "sqlite:///other.db", "--id", "x")
    before = cli("--db", "sqlite:///other.db", "-o", "json", "ls").json
    assert before == cli("ls", "--db", "sqlite:///other.db", "-o", "json").json
    assert [run["id"] for run in before] == ["x"]


def test_option_after_the_command_wins(cli: Cli) -> None:
    assert cli("-o", "jsonl", "version", "-o", "json").out.startswith("{\n")


def test_wrong_uri_is_a_usage_error_with_a_hint(cli: Cli) -> None:
    answer = cli("ls", "--db", "orders.db")
    assert answer.code == 2
    assert "sqlite:///orders.db" in answer.err


LOOKING = [
    *["ls", "count", "stats", "workers", "prune", "show x", "wait x", "export x", "backup b.db", "check shop:app"],
    *["cancel x", "pause x", "resume x", "retry x", "retry --state failed", "fork x --at 1", "ls --watch"],
]


@pytest.mark.parametrize("args", [tuple(line.split()) for line in LOOKING])
def test_commands_on_runs_make_no_database(cli: Cli, shop: Path, args: tuple[str, ...]) -> None:
    answer = cli(*args)
    assert answer.code == 1
    assert answer.err.startswith(f"error: no database at {shop / 'orders.db'} (hint: ")
    assert [path.name for path in shop.iterdir()] == ["shop.py"]


def test_a_database_beside_the_one_that_is_not_there_is_named(cli: Cli, shop: Path) -> None:
    cli("migrate", "--db", "sqlite:///shop.db")
    assert cli("ls").err.endswith("(hint: there is --db sqlite:///shop.db)\n")
    elsewhere = cli("ls", "--db", f"sqlite:///{shop / 'missing.db'}").err
    assert elsewhere.endswith(f"(hint: there is --db sqlite:///{shop / 'shop.db'})\n")
    assert not (shop / "orders.db").exists()


def test_the_database_of_another_program_is_named_by_its_tables(cli: Cli, shop: Path) -> None:
    with closing(sqlite3.connect(shop / "orders.db")) as connection:
        for table in ("users", "bills", "carts", "towns"):
            connection.execute(f"create table {table} (id integer primary key autoincrement)")
    answer = cli("ls", "-o", "json")
    assert (answer.code, answer.error["code"]) == (1, "no-database")
    assert answer.error["message"].endswith("but tables of another program: bills, carts, towns, ...")
    assert answer.error["hint"].startswith("choose another with --db or HOLDFAST_URI")
    assert cli("migrate").code == 0
    assert cli("ls").code == 0


def test_file_without_our_tables_is_no_database_of_ours(cli: Cli, shop: Path) -> None:
    (shop / "orders.db").touch()
    answer = cli("ls", "-o", "json")
    assert (answer.code, answer.error["code"]) == (1, "no-database")
    assert (shop / "orders.db").stat().st_size == 0


def test_database_in_memory_is_refused(cli: Cli) -> None:
    assert cli("ls", "--db", "sqlite://").code == 2


def test_damaged_file_is_told_as_such(cli: Cli, shop: Path) -> None:
    (shop / "orders.db").write_bytes(b"no database at all" * 500)
    answer = cli("ls", "-o", "json")
    assert (answer.code, answer.error["code"]) == (1, "store-corrupt")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (HoldfastError("x"), 1),
        (StoreCorrupt("x"), 1),
        (Fenced("x"), 1),
        (InternalError("x"), 1),
        (problems.NoDatabase("x"), 1),
        (UnknownWorkflow("x"), 2),
        (RunNotFound("x"), 3),
        (RunFailed("x"), 4),
        (RunCancelled("x"), 4),
        (NondeterminismError(run_id="x", seq=1, recorded="a", requested="b", hint=""), 4),
        (WaitTimeout("x"), 5),
        (RunConflict("x", run_id="x"), 6),
        (problems.ConfirmationNeeded("x"), 7),
        (SchemaMismatch("x"), 8),
        (StoreBusy("x"), 9),
        (StoreFull("x"), 9),
        (KeyError("x"), 1),
    ],
)
def test_every_kind_of_error_has_its_exit_code(error: Exception, code: int) -> None:
    assert problems.exit_code(error) == code


def test_unexpected_error_is_one_line_that_asks_for_a_report(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("oh")

    monkeypatch.setattr(version_module, "write_json", broken)
    answer = cli("version", "-o", "json")
    assert (answer.code, answer.error["code"]) == (1, "unexpected")
    assert answer.error["message"].startswith("ZeroDivisionError: oh at test_commands.py:")
    assert "please report it" in answer.error["hint"]
    monkeypatch.setenv("HOLDFAST_DEBUG", "1")
    assert "Traceback" in cli("version", "-o", "json").err


def test_ctrl_c_ends_quietly(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(version_module, "write_json", interrupted)
    answer = cli("version", "-o", "json")
    assert answer.code == 130
    assert "Traceback" not in answer.err


def test_colours_only_where_they_are_wanted(worked_off: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\x1b" not in worked_off("ls").out
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b[" in worked_off("ls").out
    assert "\x1b" not in worked_off("ls", "--no-color").out
    monkeypatch.setenv("NO_COLOR", "1")
    for args in (("ls",), ("show", "declined-1"), ("stats",), ("doctor",), ("show", "nowhere")):
        answer = worked_off(*args)
        assert "\x1b" not in answer.out + answer.err

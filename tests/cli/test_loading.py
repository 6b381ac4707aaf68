"""`MOD:APP`: importing code that does more than define things. `check` must neither be fooled by it nor let it work."""

from __future__ import annotations

import importlib
import os
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from holdfast.cli.loading import load_app

Cli = Callable[..., Any]

APP = """
import asyncio, sys
from holdfast import Holdfast, step

app = Holdfast("sqlite:///orders.db")

@step
async def charge() -> None:
    open("charged", "w")

@app.workflow
async def checkout() -> None:
    await charge()
"""


def module(name: str, *lines: str) -> str:
    """A module with the app and these lines at its end; its name for the command line."""
    Path(f"{name}.py").write_text("\n".join([APP, *lines, ""]))
    importlib.invalidate_caches()
    return f"{name}:app"


@pytest.fixture
def started(cli: Cli) -> Cli:
    """The command line, on a database with one run that is ready."""
    cli("start", "checkout", "--id", "order-1")
    return cli


@pytest.mark.parametrize(
    ("name", "opening"),
    [
        ("working", "async def main():\n    async with app:\n        await app.run(checkout)\nasyncio.run(main())"),
        (
            "asking",
            "async def main():\n    async with app.client() as c:\n        pass\nasyncio.run(main())",
        ),
        ("blocking", "with app.sync(worker=True) as client:\n    client.run(checkout)"),
    ],
)
@pytest.mark.parametrize("command", ["check", "replay"])
def test_module_that_opens_an_app_when_it_is_imported_is_refused(
    started: Cli, name: str, opening: str, command: str
) -> None:
    Path("run.jsonl").write_text(started("export", "order-1").out)
    before = {path: os.stat(path).st_mtime_ns for path in Path().iterdir() if path.name.startswith("orders.db")}
    target = module(f"{name}_{command}", opening)
    answer = started(*(["check", target] if command == "check" else ["replay", "run.jsonl", target]), "-o", "json")
    assert (answer.code, answer.error["code"]) == (2, "usage")
    assert f"{name}_{command}.py:" in answer.error["message"]
    assert "opened while" in answer.error["message"]
    assert "__main__" in answer.error["hint"]
    assert not Path("charged").exists()
    assert {p: os.stat(p).st_mtime_ns for p in Path().iterdir() if p.name.startswith("orders.db")} == before


def test_workflow_that_opens_an_app_does_not_open_it_in_a_check(cli: Cli) -> None:
    opens = "@app.workflow\ndef inner() -> None:\n    with app.sync() as client:\n        client.start(checkout)"
    target = module("opens_inside", opens)
    cli("start", "inner", "--id", "inner-1")
    answer = cli("check", target, "-o", "json")
    assert (answer.code, answer.json["verdicts"][0]["verdict"]) == (1, "raises")
    connection = sqlite3.connect("orders.db")
    assert connection.execute("select count(*) from holdfast_runs").fetchone() == (1,)
    connection.close()


def test_app_can_be_opened_again_after_a_check(started: Cli) -> None:
    assert started("check", module("harmless")).code == 0
    assert started("start", "checkout", "--id", "order-2").code == 0


@pytest.mark.parametrize(("name", "code"), [("zero", "0"), ("three", "3"), ("text", "'bye'"), ("bare", "")])
def test_module_that_ends_the_process_does_not_pass_for_checked(started: Cli, name: str, code: str) -> None:
    answer = started("check", module(f"ending_{name}", f"sys.exit({code})"), "-o", "json")
    assert answer.code == 2
    assert "it ends the process" in answer.error["message"]


def test_what_a_module_prints_stays_out_of_the_answer(started: Cli) -> None:
    answer = started("check", module("talking", "print('hello')"), "-o", "json")
    assert answer.json["ok"] is True
    assert answer.err == "hello\n"


def test_what_a_module_prints_in_a_worker_goes_where_it_prints(
    started: Cli, capsys: pytest.CaptureFixture[str]
) -> None:
    code = "import logging, sys\nHANDLER = logging.StreamHandler(sys.stdout)\nprint('hello')"
    load_app(module("logging_to_stdout", code), prints=True)
    assert capsys.readouterr() == ("hello\n", "")
    assert sys.modules["logging_to_stdout"].HANDLER.stream is sys.stdout


def test_place_of_a_syntax_error_is_its_own(started: Cli) -> None:
    answer = started("check", module("unfinished", "def f(:"), "-o", "json")
    line = len(Path("unfinished.py").read_text().splitlines())
    assert answer.error["message"] == (
        f"module 'unfinished' cannot be imported: SyntaxError: invalid syntax at unfinished.py:{line}"
    )


def test_factory_is_told_from_an_app(started: Cli) -> None:
    module("factories", "def make(): return app")
    answer = started("check", "factories:make", "-o", "json")
    assert answer.code == 2
    assert "app = make()" in answer.error["hint"]

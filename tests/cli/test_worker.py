"""The worker as a process: loading an app, stopping by signals, going on later."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from holdfast.cli import worker as worker_module
from holdfast.cli.logs import _LineFormatter

Cli = Callable[..., Any]
Process = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def begun(shop: Path) -> Path:
    """A pipe through which a step says that it has begun."""
    pipe = shop / "begun"
    os.mkfifo(pipe)
    return pipe


def ready(worker: subprocess.Popen[str]) -> dict[str, Any]:
    assert worker.stdout is not None
    event: dict[str, Any] = json.loads(worker.stdout.readline())
    assert event["event"] == "ready"
    return event


def test_worker_says_when_it_is_ready_and_what_it_did(cli: Cli, process: Process) -> None:
    cli("start", "checkout", 'order="1"', "--id", "o1")
    worker = process("worker", "shop:app", "-o", "jsonl")
    event = ready(worker)
    assert event["workflows"] == ["checkout", "declined", "lasting", "optioned", "sleeper"]
    assert cli("wait", "o1", "--timeout", "30").code == 0
    worker.send_signal(signal.SIGINT)
    out, err = worker.communicate()
    assert worker.returncode == 0
    assert json.loads(out) == {
        "event": "stopped",
        "worker": event["worker"],
        "succeeded": 1,
        "failed": 0,
        "cancelled": 0,
    }
    assert f"worker {event['worker']} ready: sqlite:///orders.db" in err
    assert "stopped: 1 succeeded, 0 failed, 0 cancelled" in err
    assert "\x1b" not in err


def test_quiet_worker_says_nothing(process: Process) -> None:
    worker = process("worker", "shop:app", "-q", "-o", "jsonl")
    ready(worker)
    worker.terminate()
    assert worker.communicate()[1] == ""


def test_sigterm_in_the_middle_of_a_step_gives_the_run_back(cli: Cli, process: Process, begun: Path) -> None:
    cli("start", "lasting", "--id", "l1")
    first = process("worker", "shop:app", "--stop-timeout", "50ms", BEGUN=str(begun))
    assert begun.read_text() == "begun"
    first.terminate()
    first.communicate()
    assert first.returncode == 0
    shown = cli("show", "l1", "-o", "json").json
    assert (shown["state"], shown["worker"]) == ("ready", None)
    second = process("worker", "shop:app", PROMPT="1")
    assert cli("wait", "l1", "--timeout", "30").json.startswith("done after")
    second.terminate()
    second.communicate()
    history = cli("show", "l1", "-o", "json").json["history"]
    assert (history[0]["name"], history[0]["attempts"]) == ("pack", 1)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_second_signal_leaves_at_once_and_loses_nothing(
    cli: Cli, process: Process, begun: Path, number: signal.Signals, code: int
) -> None:
    cli("start", "lasting", "--id", "l1")
    first = process("worker", "shop:app", "--stop-timeout", "600", BEGUN=str(begun))
    assert begun.read_text() == "begun"
    first.send_signal(number)
    assert first.stderr is not None
    while "stopping: 1 run under way" not in first.stderr.readline():
        assert first.poll() is None
    first.send_signal(number)
    assert first.wait() == code
    process("worker", "shop:app", PROMPT="1")
    assert cli("wait", "l1", "--timeout", "30").code == 0


def test_worker_leaves_in_time_even_when_a_step_blocks_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    left, codes = Event(), []
    monkeypatch.setattr(worker_module, "GRACE_SECONDS", 0.0)
    monkeypatch.setattr(worker_module.os, "_exit", lambda code: (codes.append(code), left.set()))

    async def blocked() -> bool:
        with worker_module.Signals(0.0):
            signal.raise_signal(signal.SIGTERM)
            return left.wait(30)

    assert asyncio.run(blocked())
    assert codes == [1]


def test_worker_takes_another_database(cli: Cli, process: Process, shop: Path) -> None:
    worker = process("worker", "shop:app", "--db", "sqlite:///other.db", "-o", "jsonl")
    assert ready(worker)["database"] == "sqlite:///other.db"
    assert not (shop / "orders.db").exists()
    assert (shop / "other.db").exists()


def test_worker_that_was_declared_dead_goes_on_as_another(cli: Cli, process: Process, shop: Path) -> None:
    worker = process("worker", "shop:app", "-o", "jsonl")
    event = ready(worker)
    with sqlite3.connect(shop / "orders.db") as connection:
        connection.execute("update holdfast_workers set state = 'dead' where id = ?", (event["worker"],))
    connection.close()
    cli("start", "checkout", 'order="1"', "--id", "o1")
    assert cli("wait", "o1", "--timeout", "30").code == 0
    again = ready(worker)
    assert again["worker"] != event["worker"]
    assert [w["id"] for w in cli("workers", "-o", "json").json] == [again["worker"]]
    worker.terminate()
    out, err = worker.communicate()
    assert worker.returncode == 0
    assert (json.loads(out)["worker"], json.loads(out)["succeeded"]) == (again["worker"], 1)
    assert f"worker {event['worker']} was declared dead" in err
    assert "Traceback" not in err


# Loading.


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("shpo:app", "there is no module 'shpo' (hint: did you mean 'shop'?)"),
        ("shop:ap", "module 'shop' has no 'ap' (hint: did you mean 'app'?)"),
        ("shop:checkout", "shop:checkout is a AsyncWorkflow, not a Holdfast app (hint: say shop:app)"),
        ("shop:", "'shop:' names no app"),
        ("empty", "module 'empty' has no Holdfast app (hint: make one there"),
        ("failing:app", "module 'failing' cannot be imported: ZeroDivisionError: division by zero at failing.py:2"),
        ("lacking:app", "module 'lacking' cannot be imported: ModuleNotFoundError: No module named 'nothing_such'"),
        ("twice", "module 'twice' has several apps (hint: say twice:a or twice:b)"),
    ],
)
def test_what_can_be_mistyped_is_explained(cli: Cli, shop: Path, target: str, message: str) -> None:
    (shop / "empty.py").write_text("")
    (shop / "failing.py").write_text("\n1 / 0\n")
    (shop / "lacking.py").write_text("import nothing_such\n")
    (shop / "twice.py").write_text("from holdfast import Holdfast\na, b = Holdfast(), Holdfast()\n")
    answer = cli("worker", target)
    assert answer.code == 2
    assert answer.err.startswith(f"error: {message}")
    assert "Traceback" not in answer.err


def test_module_alone_and_path_are_understood(cli: Cli, shop: Path) -> None:
    for target in ("shop", "shop.py:app", "./shop.py"):
        assert cli("start", "checkout", 'order="1"', "--app", target).code == 0


def test_debug_shows_the_traceback_of_a_module_that_fails(
    cli: Cli, shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (shop / "failing.py").write_text("1 / 0\n")
    monkeypatch.setenv("HOLDFAST_DEBUG", "1")
    assert "Traceback" in cli("worker", "failing:app").err


def test_each_line_of_a_traceback_says_which_process_it_is_of() -> None:
    record = logging.LogRecord("holdfast.run", logging.ERROR, "", 0, "run a failed: Traceback\n  File x\nE", None, None)
    lines = _LineFormatter("[2] ").format(record).splitlines()
    assert [line[:6] for line in lines] == [lines[0][:6], "[2]   ", "[2]   "]
    assert lines[0].startswith("[2] ")
    assert _LineFormatter("").format(record).splitlines()[1:] == ["    File x", "  E"]

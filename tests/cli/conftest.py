"""A small real app in a folder of its own, and the command line on it: in this process, or as a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from holdfast.cli import run

SHOP = '''
import asyncio, os
from pathlib import Path
from holdfast import Holdfast, Retry, current, step

app = Holdfast("sqlite:///orders.db")

@step(retry=Retry(attempts=2, first_delay=0.0))
async def charge(order: str, cents: int) -> str:
    if current().attempt == 1:
        raise ConnectionError("the provider is down")
    return f"payment-{order}"

@step
def pack(order: str) -> None:
    pass

@step
async def decline() -> None:
    raise ValueError("the card was declined")

@step
async def long_step() -> str:
    """Tells the test that it has begun, then never ends, unless the test wants it to."""
    if "PROMPT" in os.environ:
        return f"done after {current().attempt}"
    Path(os.environ["BEGUN"]).write_text("begun")  # a pipe
    await asyncio.Event().wait()

@app.workflow
async def checkout(order: str, cents: int = 100) -> dict[str, str]:
    payment, _ = await asyncio.gather(charge(order, cents), pack(order))
    return {"payment": payment}

@app.workflow
async def declined() -> None:
    await pack("a")
    await decline()

@app.workflow
async def sleeper() -> None:
    await asyncio.sleep(86_400)

@app.workflow
async def lasting() -> str:
    await pack("b")
    return await long_step()

@app.workflow
async def optioned(id: str, timeout: int) -> list[str | int]:
    return [id, timeout]
'''


@dataclass(frozen=True)
class Answer:
    """What a command line gave."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def error(self) -> dict[str, Any]:
        error: dict[str, Any] = json.loads(self.err)["error"]
        return error


Cli = Callable[..., Answer]


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current directory, with `shop.py` and no database yet."""
    (tmp_path / "shop.py").write_text(SHOP)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("HOLDFAST_URI", "sqlite:///orders.db")
    for name in ("NO_COLOR", "FORCE_COLOR", "HOLDFAST_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.fixture
def cli(shop: Path, capsys: pytest.CaptureFixture[str]) -> Cli:
    """The command line in this process."""

    def call(*args: str) -> Answer:
        capsys.readouterr()
        code = run(args)
        out, err = capsys.readouterr()
        return Answer(code, out, err)

    return call


@pytest.fixture
def process(shop: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """The command line as a process; those that still live at the end of the test are killed."""
    running: list[subprocess.Popen[str]] = []

    def spawn(*args: str, **environment: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "holdfast", *args]
        child = subprocess.Popen(
            command,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p), **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        running.append(child)
        return child

    yield spawn
    for child in running:
        if child.poll() is None:
            child.kill()
        child.communicate()


@pytest.fixture
def worked_off(cli: Cli, process: Callable[..., subprocess.Popen[str]]) -> Cli:
    """The command line on a database with runs in several states, and no worker any more."""
    cli("start", "checkout", 'order="A-17"', "cents=5", "--id", "order-17", "--attribute", "customer=anna")
    cli("start", "declined", "--id", "declined-1")
    worker = process("worker", "shop:app", "-o", "jsonl")
    cli("wait", "order-17", "--timeout", "30")
    cli("wait", "declined-1", "--timeout", "30")
    worker.terminate()
    worker.communicate()
    cli("start", "sleeper", "--id", "later", "--delay", "1h")
    cli("start", "sleeper", "--id", "ready-1", "--priority", "3")
    return cli

"""The command line in this process, on folders made for it, and what every answer of it must be like."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import sqlite3
import sys
import time
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from unittest import mock

from holdfast.cli import run
from holdfast.cli.loading import load_app
from holdfast.cli.problems import ExitCode

SECONDS_MAX: Final = 30.0
SHOP: Final = """
import asyncio
from holdfast import Holdfast, step

app = Holdfast("sqlite:///orders.db")

@step
async def charge(order: str) -> str:
    return f"payment for {order}"

@step
async def decline(order: str) -> None:
    raise ValueError("declined \\x1b]0;owned\\x07\\u202e " + order)

@app.workflow
async def checkout(order: str = "A-1") -> str:
    return await charge(order) + await charge(order)

@app.workflow
async def declined(order: str = "A-2") -> None:
    await charge(order)
    await decline(order)

@app.workflow
async def sleeper() -> None:
    await charge("before")
    await asyncio.sleep(86400 * 365)
"""

STEERING: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""Characters that a terminal obeys or that hide what follows. Line ends and tabs are the output's own."""
OURS: Final = ("report it", "fault of holdfast", "InternalError", "internal error")
ANSWERS_WITH_1: Final = {"doctor", "check", "replay"}
"""Commands whose answer may be no: they say so on standard output."""


@dataclass(frozen=True)
class Answer:
    """What a command line gave."""

    args: tuple[str, ...]
    code: int
    out: str
    err: str
    seconds: float = 0.0

    def told(self) -> str:
        """All of it, for messages."""
        return f"{self.args!r:.600}\ncode {self.code}\nout: {self.out!r:.1500}\nerr: {self.err!r:.3000}"


@contextlib.contextmanager
def inside(folder: Path) -> Generator[Path]:
    """`folder` as the current directory, with the app `shop:app` and nothing in the environment."""
    before = Path.cwd()
    (folder / "shop.py").write_text(SHOP)
    os.chdir(folder)
    environment = {"HOLDFAST_URI": "sqlite:///orders.db", "TERM": "dumb"}
    path = [*sys.path]
    try:
        with mock.patch.dict(os.environ, environment):
            for name in ("NO_COLOR", "FORCE_COLOR", "HOLDFAST_DEBUG", "COLUMNS"):
                os.environ.pop(name, None)
            yield folder
    finally:
        sys.path[:] = path
        sys.modules.pop("shop", None)  # the next folder has its own
        os.chdir(before)


def call(*args: str, stdin: bytes = b"") -> Answer:
    """One command line, with the streams as the console script sets them up."""
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", errors="replace") for _ in range(2))
    began = time.monotonic()
    given = io.TextIOWrapper(io.BytesIO(stdin), "utf-8")
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), mock.patch.object(sys, "stdin", given):
        code = run(args)
    texts = []
    for stream in (out, err):
        stream.flush()
        texts.append(stream.buffer.getvalue().decode())  # type: ignore[attr-defined]
    return Answer(args, code, *texts, time.monotonic() - began)


def check(answer: Answer, *, output: str | None = None) -> Answer:
    """What must hold for every answer, whatever was asked: a documented code, and words that are ours."""
    told = answer.told()
    assert answer.code in set(ExitCode), told
    assert answer.seconds < SECONDS_MAX, told
    assert not any(word in answer.out + answer.err for word in OURS), told
    assert "Traceback" not in answer.err, told  # in an answer it may be that of a step
    assert not STEERING.search(answer.out + answer.err), told
    helped = answer.out.startswith(("Usage:", "holdfast "))
    if output is not None and not helped:
        _check_json(answer, output)
    elif answer.code and not (answer.args[0] in ANSWERS_WITH_1 and answer.code == 1 and answer.out):
        assert "error: " in answer.err, told
        assert answer.err.partition("error: ")[2].strip(), told
    return answer


def _check_json(answer: Answer, output: str) -> None:
    try:
        lines = output == "jsonl" or "export" in answer.args  # an export is lines in any case
        values = answer.out.splitlines() if lines else [answer.out]
        for value in values:
            if value.strip():
                json.loads(value)
        told: list[Any] = [json.loads(line) for line in answer.err.splitlines()]
    except ValueError as error:
        raise AssertionError(f"not JSON: {error}: {answer.told()}") from error
    if answer.code and not (answer.args[0] in ANSWERS_WITH_1 and answer.code == 1 and answer.out):
        errors = [value["error"] for value in told if "error" in value]
        assert errors, answer.told()
        assert all(error["code"] not in {"unexpected", "internal"} and error["message"] for error in errors), (
            answer.told()
        )


def fresh(template: Path, folder: Path) -> Path:
    """`folder` as a new copy of `template`."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(template, folder, symlinks=True)
    return folder


def rows(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Every row that a refused command must leave as it was: all but the workers' leases."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        names = [row[0] for row in database.execute("select name from sqlite_master where type = 'table'")]
        return {name: database.execute(f'select * from "{name}"').fetchall() for name in names if "worker" not in name}


def files(folder: Path) -> dict[str, bytes | None]:
    """Every name below a folder, with the bytes of what is a file."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() and not path.is_symlink() else None
        for path in sorted(folder.rglob("*"))
        if "__pycache__" not in path.parts
    }


def make_shop(folder: Path) -> Path:
    """A folder with `orders.db`: runs that have succeeded, failed, sleep, wait for a worker, and are paused."""
    folder.mkdir(parents=True, exist_ok=True)
    with inside(folder):
        app = load_app("shop:app")
        with app.sync(worker=True) as client:
            client.start("checkout", "A-17", id="done", attributes={"customer": "anna", "n": 5}).result()
            client.start("declined", "A-18", id="failed-1", attributes={"customer": "ben\n\x1b[2J"})
            client.start("sleeper", id="asleep")
            client.start("checkout", id="later", delay=86400.0, attributes={"deep": {"er": [1, "x"]}})
            for run_id in ("failed-1", "asleep"):
                until(lambda run_id=run_id: client.get(run_id).describe().state in {"failed", "waiting"})
        for args in (("start", "unknown", "--id", "ready-1"), ("start", "checkout", "--id", "paused-1"),
                     ("pause", "paused-1")):  # fmt: skip
            assert call(*args).code == 0, args
    return folder


def until(condition: Callable[[], bool]) -> None:
    """Look until it holds."""
    end = time.monotonic() + SECONDS_MAX
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)

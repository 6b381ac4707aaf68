"""What somebody has put into the database never steers the terminal of whoever looks at it, nor forges a line."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import re
import sqlite3
from collections.abc import Generator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from tests.fuzz.commandline import STEERING, call, check, fresh, inside, rows
from tests.fuzz.hostile import ANY_TEXT, CONTROLS, examples

from holdfast import Holdfast, step, workflow
from holdfast.cli.harmless import harmless, harmless_json, json_text, one_line
from holdfast.cli.logs import log_to_stderr
from holdfast.cli.settings import Settings

pytestmark = pytest.mark.crash

EVIL = "e\x1b]0;owned\x07\x1b[2J\x9b2J\u202e\u2028\x7f\r\x08"
FORGED = "forged-1  checkout  ✓ succeeded"
TWO_LINES = f"{EVIL}\n{FORGED}\n2026-01-01 INFO {FORGED}"
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
LOOKS = (
    ("ls",),
    ("ls", "--limit", "1"),
    ("show", "done"),
    ("show", "failed-1", "--traceback"),
    ("show", "asleep"),
    ("stats",),
    ("workers", "--all"),
    ("check", "shop:app"),
    ("doctor",),
    ("count",),
    ("wait", "failed-1"),
    ("wait", "done"),
    ("wait", "asleep", "--timeout", "0"),
    ("export", "done", "failed-1"),
    ("prune", "--older-than", "0", "--dry-run"),
    ("replay", "runs.jsonl", "shop:app"),
)


@pytest.fixture(scope="module")
def template(shop_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shop whose rows say evil things wherever a row can say anything, beside what SQL alone could put there."""
    folder = fresh(shop_folder, tmp_path_factory.mktemp("template") / "shop")
    error = json.dumps({"type": TWO_LINES, "message": TWO_LINES, "traceback": f"  File {TWO_LINES}",
                        "causes": [TWO_LINES], "state": {"hint": TWO_LINES}})  # fmt: skip
    poison(folder / "orders.db", TWO_LINES, error)
    with inside(folder):
        Path("runs.jsonl").write_text(call("export", "done", "failed-1").out)
    return folder


def poison(path: Path, text: str, error: str) -> None:
    """Put a text everywhere where a person may see it. Ids of runs that are named stay as they are."""
    said = json.dumps({"a": text, text: [text]})
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("update holdfast_runs set attributes = ?, input = ?, worker = ?", (said, said, text))
        database.execute("update holdfast_runs set workflow = ?, id = ? where id = 'ready-1'", (text, f"{text} "))
        database.execute("update holdfast_runs set state = 'blocked', reason = ? where id = 'paused-1'", (text,))
        database.execute("update holdfast_runs set output = ? where output is not null", (said,))
        database.execute("update holdfast_runs set error = ? where error is not null or id = 'paused-1'", (error,))
        database.execute("update holdfast_runs set workflow = ? where id = 'failed-1'", (text,))
        database.execute("update holdfast_history set name = ?, error = iif(error is null, null, ?)", (text, error))
        database.execute("update holdfast_attributes set key = ? || key", (text,))
        database.execute(
            "update holdfast_workers set id = ?, host = ?, workflows = ?, state = 'live', lease_until = ?",
            (text, text, json.dumps([text]), 2**50),
        )


@pytest.fixture
def here(template: Path, tmp_path: Path) -> Generator[Path]:
    with inside(tmp_path):
        fresh(template, tmp_path / "shop")
        os.chdir(tmp_path / "shop")
        yield tmp_path / "shop"


@pytest.mark.parametrize("output", [None, "json", "jsonl"])
@pytest.mark.parametrize("look", LOOKS, ids=" ".join)
def test_stored_text_neither_steers_the_terminal_nor_forges_a_line(
    look: tuple[str, ...], output: str | None, here: Path
) -> None:
    answer = check(call(*look, *(["-o", output] if output else [])), output=output)
    for line in (answer.out + answer.err).splitlines():
        assert not line.startswith((FORGED, "2026-01-01")), answer.told()


def test_with_colours_the_only_escapes_are_those_of_colours(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    for look in (("ls",), ("show", "failed-1", "--traceback"), ("stats",), ("workers", "--all"), ("show", "missing")):
        answer = call(*look)
        assert "\x1b[" in answer.out + answer.err, "colours are on"
        assert not STEERING.search(COLOUR.sub("", answer.out + answer.err)), answer.told()


def test_any_text_in_rows_is_shown_and_harms_nothing(here: Path) -> None:
    before = Path("orders.db").read_bytes()

    @examples(6, share=0.05)
    @given(CONTROLS)
    def shown(text: str) -> None:
        Path("orders.db").write_bytes(before)
        poison(Path("orders.db"), text.replace("\0", "") or "x", json.dumps({"type": text, "message": text}))
        for look in (("ls",), ("show", "failed-1", "--traceback"), ("stats",), ("workers", "--all")):
            assert check(call(*look)).code == 0

    shown()


@examples(50)
@given(ANY_TEXT | CONTROLS)
def test_harmless_text_is_as_long_and_json_means_the_same(text: str) -> None:
    assert len(harmless(text)) == len(one_line(text)) == len(text)
    assert not STEERING.search(harmless(text))
    assert len(one_line(text).split("\n")) == 1
    encoded = json_text({text: [text]})
    assert not STEERING.search(encoded)
    if text.isprintable() or not any("\ud800" <= character <= "\udfff" for character in text):
        assert json.loads(encoded) == {text: [text]}
        assert json.loads(harmless_json(json.dumps(text, ensure_ascii=False))) == text


def test_export_is_the_same_run_after_it_was_made_harmless(here: Path) -> None:
    Path("out.jsonl").write_text(call("export", "done", "failed-1").out)
    assert call("import", "out.jsonl", "--db", "sqlite:///other.db").code == 0
    wanted, found = rows(Path("orders.db")), rows(Path("other.db"))
    name = {run[1]: run for run in wanted["holdfast_runs"]}
    for run in found["holdfast_runs"]:
        assert run[2:10] == name[run[1]][2:10]


@step
async def evil_step() -> None:
    raise ValueError(TWO_LINES)


@workflow
async def evil_flow() -> None:
    await evil_step()


def test_what_a_step_raises_forges_no_line_of_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers[:] = []
    try:
        log_to_stderr(Settings(), level=logging.INFO)
        handler = root.handlers[0]
        assert isinstance(handler, logging.StreamHandler)
        stream = handler.stream = io.StringIO()
        asyncio.run(failed())
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        logging.getLogger("holdfast").setLevel(logging.NOTSET)
    lines = stream.getvalue().splitlines()
    assert any("step evil_step" in line for line in lines)
    assert not any(line.startswith((FORGED, "2026-01-01 INFO")) for line in lines), lines
    assert not STEERING.search(stream.getvalue())


async def failed() -> None:
    app = Holdfast("sqlite://")
    app.include(evil_flow)
    async with app:
        run = await app.start(evil_flow)
        with pytest.raises(ValueError):
            await run.result()

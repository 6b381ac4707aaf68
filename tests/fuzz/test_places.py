"""Where the database is said to be: URIs, configuration files, and what may stand at a path instead of a database."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fuzz.commandline import Answer, call, check, files, inside
from tests.fuzz.hostile import ANY_TEXT, NAMES, examples, fault
from tests.fuzz.lines import URIS

from holdfast import Holdfast, HoldfastError
from holdfast._store.uri import parse
from holdfast.errors import UsageError

pytestmark = pytest.mark.crash

SECRET = "hunter2"
ODD = ["folder", "pipe", "socket", "null", "zero", "loop", "dangling", "x" * 5000, "missing/a.db", "text/a.db"]
COMMANDS = [
    ("ls",), ("show", "r"), ("stats",), ("start", "flow"), ("migrate",), ("migrate", "--dry-run"), ("doctor",),
    ("export", "r"),
    ("backup", "copy"), ("restore", "text"), ("prune", "--dry-run"), ("check", "shop:app"), ("import", "run.jsonl"),
    ("wait", "r"),
]  # fmt: skip


@pytest.fixture
def here(tmp_path: Path) -> Generator[Path]:
    """A folder with everything at a path that is no database."""
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    (folder / "folder").mkdir()
    os.mkfifo(folder / "pipe")
    (folder / "null").symlink_to("/dev/null")
    (folder / "zero").symlink_to("/dev/zero")
    (folder / "loop").symlink_to("loop")
    (folder / "text").write_text("some text\n" * 500)
    with inside(folder), socket.socket(socket.AF_UNIX) as listening:
        with suppress(OSError):  # a path that is too long for a socket
            listening.bind("socket")
        os.environ.pop("HOLDFAST_URI")
        yield folder


def test_no_uri_makes_a_file_where_it_is_refused_or_only_looked_at(here: Path) -> None:
    before = files(here.parent)

    @examples(40)
    @given(URIS)
    def looked(uri: str) -> None:
        answer = check(call("ls", "--db", uri))
        assert answer.code in {1, 2, 9}, answer.told()
        assert SECRET not in answer.err, answer.told()
        with suppress(HoldfastError):
            assert SECRET not in repr(Holdfast(uri))
        assert files(here.parent) == before, answer.told()

    looked()


@examples(200)
@given(ANY_TEXT | URIS)
def test_any_text_is_a_uri_or_is_refused_by_name(uri: str) -> None:
    error = fault(UsageError, lambda: parse(uri))
    if error is None:
        path = parse(uri).path
        assert path is None or os.fsencode(path)
    else:
        assert error.hint, error
        assert SECRET not in str(error)


@examples(100)
@given(st.sampled_from([name for name in NAMES if name]) | st.text(st.characters(exclude_characters="\0/"), min_size=1))
def test_an_encoded_name_is_that_file_and_no_other(name: str) -> None:
    with suppress(UnicodeEncodeError):
        if quote(name, safe="") != ":memory:":
            assert parse(f"sqlite:///{quote(name, safe='')}").path == Path(name)


@pytest.mark.parametrize("uri", [
    "mysql://user:hunter2@host/x", "sqlite://user:hunter2@host/x", "postgresql://user:hunter2@host/x",
    "user:hunter2@host",
    "postgresql:user:hunter2@host/x", "sqlite://:hunter2@host", "oracle+x://u:hunter2@h?x", "sqlite:///a.db?u:hunter2@h",
])  # fmt: skip
@pytest.mark.parametrize("how", ["argument", "HOLDFAST_URI", "holdfast.toml", "pyproject.toml"])
def test_a_password_is_never_printed_and_the_place_is(uri: str, how: str, here: Path) -> None:
    if how == "HOLDFAST_URI":
        os.environ[how] = uri
    elif how != "argument":
        Path(how).write_text(f'{"[tool.holdfast]" if how == "pyproject.toml" else ""}\nuri = "{uri}"\n')
    answer = check(call("ls", *(["--db", uri] if how == "argument" else [])))
    assert answer.code == 2, answer.told()
    assert SECRET not in answer.err
    assert "(hint: " in answer.err
    assert how == "argument" or f"error: {how}: " in answer.err, answer.told()


ALL = """
import contextlib, io, json, sys
from holdfast.cli import run
for args in json.loads(sys.argv[1]):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run(args)
    print(json.dumps([args, code, out.getvalue(), err.getvalue()]), flush=True)
"""


def all_of(lines: list[list[str]]) -> list[Answer]:
    """Command lines in a process of their own, which does not hang for ever."""
    command = [sys.executable, "-c", ALL, json.dumps(lines)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done: Any = subprocess.run(
        command, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120, check=False
    )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == len(lines), done.stderr
    return [Answer(tuple(args), code, out, err) for args, code, out, err in answers]


def test_what_is_no_file_is_refused_at_once_by_every_command(here: Path) -> None:
    (here / "dangling").symlink_to("folder/nothing/there")
    (here / "run.jsonl").write_text("")
    before = files(here.parent)
    lines = [[*command, "--db", f"sqlite:///{name}"] for name in ODD for command in COMMANDS]
    for answer in all_of(lines):
        check(answer)
        assert answer.code in {1, 2, 9} or answer.args[0] == "migrate", answer.told()
    after = files(here.parent)
    assert {name: data for name, data in after.items() if name in before} == before
    assert set(after) - set(before) == set()


def test_opening_what_is_no_file_is_refused_at_once(here: Path) -> None:
    before = files(here.parent)
    for name in ("folder", "null", "zero", "loop", "x" * 5000, "missing/a.db", "text/a.db", "text", "pipe", "socket"):
        with pytest.raises(HoldfastError), Holdfast(f"sqlite:///{name}").sync(worker=True):
            pass
        with pytest.raises(HoldfastError), Holdfast(f"sqlite:///{name}").sync():
            pass
    assert files(here.parent) == before


# Configuration.

TOML = st.one_of(
    st.sampled_from(
        ["uri", "uri =", "uri = 5", "uri = []", 'uri = ""', 'uri = "x', 'uri = "orders.db"',
         'uri = "sqlite:///\\u0000"', "[uri]",
         'uri = "a"\nuri = "b"', "[tool]\nholdfast = 5", "tool = 5", "tool = []", "[[tool]]\nholdfast = 1",
         "[tool.holdfast]\nuri = 1",
         "[tool.holdfast.uri]", "[tool]\nholdfast = [1]", "a = " + "[" * 5000, "a = 2026-99-99", "\ufeffuri = 1",
         "x = 1" * 5000,
         'uri = "sqlite:///a.db?x=1"', '"uri" = { a = 1 }', "uri = 1e999", "uri = " + "9" * 5000]
    ).map(str.encode),
    st.binary(max_size=40),
    st.text(max_size=40).map(lambda text: text.encode("utf-8", "replace")),
    st.builds(lambda text: f"uri = {text}".encode("utf-8", "replace"), st.text(max_size=20)),
)  # fmt: skip


@pytest.mark.parametrize("name", ["holdfast.toml", "pyproject.toml"])
def test_any_configuration_is_read_or_refused_by_name(name: str, here: Path) -> None:
    @examples(30)
    @given(TOML)
    def read(content: bytes) -> None:
        Path(name).write_bytes(content)
        answer = check(call("ls"))
        assert answer.code in {1, 2}, answer.told()
        assert answer.code == 1 or name in answer.err, answer.told()

    read()


@pytest.mark.parametrize("name", ["holdfast.toml", "pyproject.toml"])
@pytest.mark.parametrize("instead", ["folder", "pipe", "loop", "null", "unreadable"])
def test_a_configuration_file_that_is_none_is_refused_at_once(name: str, instead: str, here: Path) -> None:
    if instead == "unreadable":
        Path(name).write_bytes(b"\xff\xfe")
    else:
        Path(name).symlink_to(instead)
    (answer,) = all_of([["ls"]])
    assert check(answer).code == 2, answer.told()
    assert name in answer.err, answer.told()


@pytest.mark.parametrize("junk", ["x", "sqlit:///x", "\x1b[2J", "sqlite://host/x", "\ud800", " ", "a\nb"])
def test_junk_in_the_environment_is_refused_with_its_place(junk: str, here: Path) -> None:
    with suppress(UnicodeEncodeError):
        os.environ["HOLDFAST_URI"] = junk
        answer = check(call("ls", "-o", "json"), output="json")
        assert answer.code == 2
        assert "HOLDFAST_URI" in answer.err

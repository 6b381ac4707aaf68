"""Every command with every option: a clear error or a right answer, and what is refused writes nothing."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fuzz.commandline import STEERING, Answer, call, check, fresh, inside, rows
from tests.fuzz.hostile import TEXT, examples
from tests.fuzz.lines import ALWAYS, LEFT_OUT, VALUES, commands, lines, values_of

from holdfast.cli.problems import ExitCode

pytestmark = pytest.mark.crash

UNWRITTEN = {ExitCode.USAGE, ExitCode.CONFIRMATION_NEEDED, ExitCode.SCHEMA_MISMATCH, ExitCode.NOT_FOUND}
"""Codes after which nothing may have been written. (Of several runs that are steered, some may have been found.)"""
SECRET = "hunter2"


@pytest.fixture(scope="module")
def template(shop_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shop, and beside its database files of every kind."""
    folder = fresh(shop_folder, tmp_path_factory.mktemp("template") / "shop")
    with inside(folder):
        Path("runs.jsonl").write_text(call("export", "done", "asleep").out)
        Path("cut.jsonl").write_bytes(Path("runs.jsonl").read_bytes()[:-40])
        assert call("backup", "copy.db").code == 0
        Path("cut.db").write_bytes(Path("copy.db").read_bytes()[:30_000])
        Path("empty").touch()
        Path("text").write_text("no database, no JSON, no CSV\n" * 100)
        Path("folder").mkdir()
        Path("secret").write_text("x")
        Path("secret").chmod(0)
        Path("link").symlink_to("orders.db")
        Path("loop").symlink_to("loop")
        Path("broken.py").write_text("import nothing_like_this\n")
    return folder


@pytest.fixture
def here(template: Path, tmp_path: Path) -> Generator[Callable[[], Path]]:
    """Makes the current directory a new copy of the template; two folders deep, for who climbs up."""
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    with inside(folder):

        def again() -> Path:
            fresh(template, folder)
            os.chdir(folder)
            return folder

        yield again


def test_every_parameter_of_every_command_is_drawn_or_left_out_for_a_reason() -> None:
    known: set[str] = set()
    for name, command in commands():
        for parameter in command.params:
            if parameter.name not in {"output", "help"}:
                values_of(name, parameter)
                known |= {f"{name} {parameter.name}", str(parameter.name)}
    assert set(VALUES) | set(LEFT_OUT) <= known, "of a parameter that is gone"
    assert {f"{name} {option}" for name, option in ALWAYS.items()} <= known


@pytest.mark.parametrize(("name", "command"), [*commands()], ids=lambda value: value if isinstance(value, str) else "")
def test_any_command_line_gets_a_right_answer_or_a_clear_error(
    name: str, command: click.Command, here: Callable[[], Path]
) -> None:
    @examples(6, share=0.25)
    @given(lines(name, command))
    def answered(drawn: tuple[str | None, tuple[str, ...]]) -> None:
        output, args = drawn
        folder = here()
        before = rows(folder / "orders.db")
        answer = check(call(*args), output=output)
        assert SECRET not in answer.out + answer.err, answer.told()
        if answer.code in UNWRITTEN and not partly(answer):
            assert rows(folder / "orders.db") == before, answer.told()

    answered()


def partly(answer: Answer) -> bool:
    """Whether some of several runs were steered, and others not found."""
    return answer.code == ExitCode.NOT_FOUND and answer.args[0] in {"cancel", "pause", "resume", "retry"}


def test_any_words_at_all_are_answered(here: Callable[[], Path]) -> None:
    names = [name for name, _ in commands() if name not in {"demo", "worker"}]
    options = sorted({option for _, command in commands() for item in command.params for option in item.opts})
    harmless = [option for option in options if option not in {"-w", "--watch", "--wait"}]
    words = st.sampled_from([*names, *harmless, "done", "json"]) | TEXT.filter(lambda text: not text.startswith("/"))
    here()

    @examples(15, share=0.25)
    @given(st.lists(words, max_size=6))
    def answered(args: list[str]) -> None:
        if args[:1] != ["wait"] and not {"demo", "worker", "-w", "--wait", "--watch"} & set(args):
            check(call(*(args or ["--help"])))

    answered()


@pytest.mark.parametrize("verb", ["cancel", "pause", "resume", "retry"])
def test_one_id_that_is_none_keeps_all_from_being_steered(verb: str, here: Callable[[], Path]) -> None:
    before = rows(here() / "orders.db")
    answer = check(call(verb, "asleep", "paused-1", "failed-1", "a\nb", "--yes"))
    assert answer.code == ExitCode.USAGE
    assert rows(Path("orders.db")) == before


@pytest.mark.parametrize("run_id", ["$(reboot)", "a b", "x;y", "-rf", "a'b"])
def test_commands_that_are_named_in_messages_can_be_copied_into_a_shell(run_id: str, here: Callable[[], Path]) -> None:
    here()
    assert call("start", "unknown", f"--id={run_id}").code == 0
    answer = check(call("wait", "--timeout=0", "--", run_id))
    words = shlex.split(answer.err.partition("`")[2].partition("`")[0])
    assert words[:2] == ["holdfast", "show"]
    assert check(call(*words[1:])).code == 0


REAL = (
    (b"show", b"\xff\xfe"),
    (b"start", b"flow", b"a=\xff", b"--id", b"\x1b]0;owned\x07"),
    (b"start", b"flow", b"a=" + b"[" * 100_000),
    (b"ls", b"\xff:1", b"-o", b"json"),
    (b"ls", b"--db", b"sqlite:///\xff"),
    (b"ls", b"--after", b"zz\n\x1b[2J"),
    (b"export", b"\xff"),
    (b"import", b"missing\xff", b"-o", b"jsonl"),
    (b"check", b"\xff:\xff"),
    (b"worker", b"\xff:app", b"--stop-timeout", b"1e99h"),
    (b"\xff",),
)


def real(*args: bytes, timeout: float = 60.0, **environment: str) -> Answer:
    """The console script itself."""
    command = [os.fsencode(sys.executable), b"-m", b"holdfast", *args]
    done: Any = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p), **environment},
        capture_output=True, stdin=subprocess.DEVNULL, timeout=timeout, check=False,
    )  # fmt: skip
    return Answer(tuple(map(repr, args)), done.returncode, done.stdout.decode(), done.stderr.decode())


@pytest.mark.parametrize("args", REAL[:3] if not os.environ.get("HOLDFAST_FUZZ") else REAL, ids=repr)
def test_the_script_itself_answers_the_same(args: tuple[bytes, ...], here: Callable[[], Path]) -> None:
    before = rows(here() / "orders.db")
    answer = real(*args)
    assert answer.code in {2, 1}, answer.told()
    assert "error" in answer.err, answer.told()
    assert "Traceback" not in answer.err, answer.told()
    assert not STEERING.search(answer.out + answer.err), answer.told()
    assert rows(Path("orders.db")) == before


def test_a_terminal_that_knows_no_utf8_gets_question_marks(here: Callable[[], Path]) -> None:
    here()
    answer = real(b"ls", PYTHONIOENCODING="ascii", PYTHONUTF8="0", LC_ALL="C")
    assert answer.code == 0, answer.told()
    assert "done" in answer.out

"""Every block of code in README.md and docs/ is executed, in the order of its page, in a folder of the page's own.

    ```python    run; what it prints must be what its `#>` lines say. The blocks of a page share their names.
                 With `await` at its top level it is the body of `async with app:`.
                 With a first line `# name.py` it is that file, which a later block must use.
    ```console   every `$ ` line is run by a shell, must print what follows and exit with 0, unless `echo $?` is next.
                 `^C` and `Killed` in the output: the signal is sent once everything above has been printed, and
                 SIGKILL once a step has been recorded as well.
                 A command that ends with `&` stays until the end of the page.
    ```sql       run on the page's database; must find rows.
    ```toml      parsed; with a first line `# name.toml` it is that file.

Measured values (durations, instants, sizes, ids of 26 characters) are compared by their form only. A block of any other
language, or one under `<!-- not run: why -->`, counts as not run, and there are to be none.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import io
import logging
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
import tomllib
import types
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SECONDS_MAX = 60.0
SIGNALS = {"^C": signal.SIGINT, "Killed": signal.SIGKILL}
LANGUAGES = {"python", "console", "sql", "toml"}


@dataclass(frozen=True)
class Block:
    """A fenced block; `line` is that of its first line of code."""

    page: Path
    line: int
    language: str
    text: str
    excuse: str | None

    @property
    def file(self) -> str | None:
        """The file that it is, by its first line."""
        match = re.match(r"# (\S+\.(?:py|toml))\n", self.text)
        return match[1] if match else None

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    blocks: list[Block] = []
    fence: tuple[str, int, str | None] | None = None
    before, body = "", list[str]()
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
        assert not re.match(r"\s+```|\s*~~~", line), f"{page}:{number}: fences are not indented, and of back-ticks"
        if line.startswith("```"):
            if fence is None:
                excuse = re.fullmatch(r"<!-- not run: (.+) -->", before)
                fence, body = (line[3:], number + 1, excuse[1] if excuse else None), []
            else:
                blocks.append(Block(page, fence[1], fence[0], "".join(body), fence[2]))
                fence = None
        elif fence is not None:
            body.append(line + "\n")
        before = line if line.strip() else before
    assert fence is None, f"{page}: a block is not closed"
    return blocks


def form_of(text: str) -> str:
    """What is left of a line when measured values and the width of columns are taken away."""
    text = re.sub(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d+)?( ?[A-Z]{1,4}\b|[+-]\d\d:\d\d)?", "<instant>", text)
    text = re.sub(r"\b\d+(\.\d+)? ?(µs|ms|s|min|h|d)\b( \d+ (s|min|h)\b)?", "<time>", text)
    text = re.sub(r"\b\d+(\.\d+)? ?(bytes|[kMGT]?B)\b", "<size>", text)
    text = re.sub(r"\b[0-9a-z]{26}\b", "<id>", text)
    text = re.sub(r"\b\d+\.\d+\.\d+\b", "<version>", text)
    return " ".join(re.sub(r"[━─]+", "", text).split())


def forms_of(lines: list[str]) -> list[str]:
    return [form for line in lines if (form := form_of(line))]


@dataclass
class Session:
    """One page being executed: its folder, its names, and what it has started."""

    page: Path
    folder: Path
    module: types.ModuleType = field(default_factory=lambda: types.ModuleType("page"))
    files: set[str] = field(default_factory=set)
    background: list[subprocess.Popen[str]] = field(default_factory=list)

    def execute(self, block: Block) -> None:
        self.files -= {name for name in self.files if Path(name).stem in block.text or name.endswith(".toml")}
        if block.language == "toml":
            tomllib.loads(block.text)
        if block.file is not None:
            (self.folder / block.file).write_text(block.text, encoding="utf-8")
            self.files.add(block.file)
        elif block.language == "python":
            self._python(block)
        elif block.language == "console":
            self._console(block)
        elif block.language == "sql":
            self._sql(block)

    def close(self) -> None:
        for child in self.background:
            child.terminate()
            child.communicate(timeout=SECONDS_MAX)

    # Python.

    def _python(self, block: Block) -> None:
        source = "\n" * (block.line - 1) + block.text  # so that tracebacks have the page's line numbers
        code = compile(source, str(block.page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            if code.co_flags & inspect.CO_COROUTINE:
                asyncio.run(self._inside_the_app(code))
            else:
                exec(code, vars(self.module))
        told = [line[3:] for line in block.text.splitlines() if line.startswith("#> ")]
        assert forms_of(printed.getvalue().splitlines()) == forms_of(told), block.place

    async def _inside_the_app(self, code: types.CodeType) -> None:
        async with vars(self.module)["app"]:
            await eval(code, vars(self.module))

    # Shell.

    def _console(self, block: Block) -> None:
        status = 0
        for command, told in commands_of(block):
            place = f"{block.place}: $ {command}"
            if command == "echo $?":
                assert [str(status)] == told, place
                status = 0
                continue
            assert status == 0, f"{place}: the command before has failed with {status}"
            if command.endswith("&"):
                self.background.append(self._spawn(command.removesuffix("&")))
                continue
            status = self._run(command, told, place)
        assert status == 0, f"{block.place}: the last command has failed with {status}"

    def _spawn(self, command: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["sh", "-c", f"exec {command}" if re.match(r"(python|holdfast) [^|;&>]*$", command) else command],
            cwd=self.folder,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def _run(self, command: str, told: list[str], place: str) -> int:
        """Run it to its end; the exit status, which is 0 for one that was meant to be killed."""
        with self._spawn(command) as child:
            assert child.stdout is not None
            at = next((index for index, line in enumerate(told) if line in SIGNALS), None)
            printed: list[str] = []
            if at is not None:
                while len(forms_of(printed)) < len(forms_of(told[:at])):
                    line = child.stdout.readline()
                    assert line, f"{place}: ended too early, after {printed}"
                    printed.append(line)
                if told[at] == "Killed":
                    self._wait_for_a_recorded_step()
                child.send_signal(SIGNALS[told[at]])
                told = told[:at] + told[at + 1 :]
            printed += child.communicate(timeout=SECONDS_MAX)[0].splitlines()
        shown = [line.replace(str(self.folder), "/srv/shop") for line in printed]
        assert forms_of(shown) == forms_of(told), place
        return 0 if at is not None and child.returncode < 0 else child.returncode

    # SQL.

    def _wait_for_a_recorded_step(self) -> None:
        until = time.monotonic() + SECONDS_MAX
        with contextlib.closing(self._database()) as connection:
            while not connection.execute("select 1 from holdfast_history where state = 'succeeded'").fetchall():
                assert time.monotonic() < until, "no step was recorded"
                time.sleep(0.01)

    def _database(self) -> sqlite3.Connection:
        (database,) = self.folder.glob("*.db")
        return sqlite3.connect(f"file:{database}?mode=ro", uri=True)

    def _sql(self, block: Block) -> None:
        with contextlib.closing(self._database()) as connection:
            for statement in block.text.split(";"):
                if statement.strip():
                    assert connection.execute(statement).fetchall(), f"{block.place}: found nothing:\n{statement}"


def commands_of(block: Block) -> Iterator[tuple[str, list[str]]]:
    """Commands, long ones joined, each with the lines that it is said to print."""
    text = block.text.replace("\\\n", "")
    assert text.startswith("$ "), block.place
    for piece in text[2:].split("\n$ "):
        command, *told = piece.splitlines()
        yield command.partition("  # ")[0].strip(), told


def environment() -> dict[str, str]:
    """As on a person's machine: pytest says more where `CI` is set."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HOLDFAST_", "COV_"))}
    kept.pop("CI", None)
    path = os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", "")])
    kept.update(PATH=path, PYTHONUNBUFFERED="1", PYTHONPATH=str(ROOT / "src"), TZ="UTC", NO_COLOR="1")
    kept.pop("COLUMNS", None)
    return kept


@pytest.fixture
def session(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    folder = tmp_path / "shop"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delenv("HOLDFAST_URI", raising=False)
    before = set(sys.modules)
    opened = Session(page, folder)
    monkeypatch.setitem(sys.modules, "page", opened.module)
    handlers = [*logging.getLogger("holdfast.run").handlers]
    yield opened
    logging.getLogger("holdfast.run").handlers = handlers
    opened.close()
    for name in set(sys.modules) - before:
        if str(folder) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_of_the_page_runs_and_prints_what_it_says(page: Path, session: Session) -> None:
    for block in blocks_of(page):
        if block.language in LANGUAGES and block.excuse is None:
            session.execute(block)
    assert not {name for name in session.files if name.endswith(".py")}, "files that no later block uses"


def test_no_block_is_left_out() -> None:
    blocks = [block for page in PAGES for block in blocks_of(page)]
    left_out = [block.place for block in blocks if block.language not in LANGUAGES or block.excuse is not None]
    assert blocks
    assert left_out == []


def test_readme_shows_sixteen_lines_on_a_file() -> None:
    first = blocks_of(ROOT / "README.md")[0]
    lines = [line for line in first.text.splitlines() if line and not line.startswith(("#", "import", "from"))]
    assert first.file == "orders.py"
    assert len(lines) == 16


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings_that_exist(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        other = (page.parent / name).resolve() if name else page
        assert other.exists(), f"{page.name}: {target}"
        if anchor:
            assert anchor in anchors_of(other), f"{page.name}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_make_targets_and_commands_that_are_named_exist(page: Path) -> None:
    from holdfast.cli.commands import COMMANDS

    text = page.read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(re.findall(r"`make ([a-z-]+)", text)) <= targets
    assert set(re.findall(r"(?:`|\$ )holdfast ([a-z]+)", text)) <= set(COMMANDS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_public_names_that_are_written_as_code_exist(page: Path) -> None:
    import holdfast

    named: set[Any] = set(re.findall(r"`holdfast\.([a-z_0-9]+)\(", page.read_text(encoding="utf-8")))
    assert named <= set(holdfast.__all__)


def test_markers_for_the_figures_are_in_the_readme() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text.index("<!-- bench -->") < text.index("<!-- /bench -->")


def anchors_of(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}

"""What `make crash` has done, as one table: on the terminal in the end, and in docs/reliability.md when asked for.

A test that proves something reports it with the fixture `figures`; what takes minutes says with `progress` how far it
is. The figures of a long run are kept as JSON beside the page, and what is between the page's markers is that JSON as a
table and nothing else (`tests/test_reliability.py` compares them).

The page is not touched by a run that failed, that left a part out, or that was not longer than CI's.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import re
import sqlite3
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias

import pytest

import holdfast
from holdfast._store.place import file_system

ROOT: Final = Path(__file__).resolve().parents[2]
PROGRESS_SECONDS: Final = 10.0
SETTINGS: Final = {
    "KILLS": ("HOLDFAST_KILLS", 6),
    "STRESS": ("HOLDFAST_STRESS_SECONDS", 5),
    "CUTS": ("HOLDFAST_CUTS", 240),
    "LOCKED": ("HOLDFAST_LOCKED_SECONDS", 3),
    "SIM": ("HOLDFAST_SIM", 80),
    "PROGRAMS": ("HOLDFAST_PROGRAMS", 60),
}
"""Variables of `make crash`: how they reach the tests, and what a test takes without: the short form."""
PARTS: Final = {
    "storm": "workers killed under load",
    "pruning": "pruning processes killed",
    "ends": "processes that end at any write",
    "full": "power cuts, FULL",
    "normal": "control: power cuts, NORMAL",
    "off": "control: power cuts, OFF",
    "stress": "commits beside checkpoints, four processes",
    "simulator": "seeds of the simulator",
    "programs": "generated racy programs",
}
"""What a long run consists of, in the order of the table. All of it, or the page is not written."""
CONTROLS: Final = ("normal", "off")
"""Parts that lose on purpose: they show that the trials can."""
COUNTS: Final = ("lost", "repeated", "damaged")
MARKERS: Final = ("<!-- crash -->", "<!-- /crash -->")

Report: TypeAlias = dict[str, Any]
Add: TypeAlias = Callable[..., None]


class Refused(Exception):
    """These figures are not for the page."""


# What tests use.


@pytest.fixture
def figures(record_property: Callable[[str, object], None]) -> Add:
    """`figures("storm", trials="200 kills", facts=9_000, lost=0, repeated=0, damaged=0, seed=4711)`.

    A count that a part does not look for is left out.
    """

    def add(part: str, *, trials: str, facts: int, seed: int | str, **counts: int) -> None:
        assert part in PARTS, part
        assert counts.keys() <= set(COUNTS), counts
        record_property("figures", {"part": part, "trials": trials, "facts": facts, "seed": seed, **counts})

    return add


class Progress:
    """Lines on the terminal, past the capture of pytest, seldom enough to be read."""

    def __init__(self, config: pytest.Config) -> None:
        self._plugins = config.pluginmanager
        self._last = time.monotonic()

    def __call__(self, text: str) -> None:
        if time.monotonic() - self._last < PROGRESS_SECONDS:
            return
        self._last = time.monotonic()
        with self._plugins.getplugin("capturemanager").global_and_fixture_disabled():
            print(f"\n  {text}", end="", flush=True)

    def run(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        """Run a program to its end; what it says on standard error after `progress: ` is passed on."""
        told: list[str] = []
        with (
            tempfile.TemporaryFile("w+") as output,
            subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=subprocess.PIPE, text=True) as process,
        ):
            assert process.stderr is not None
            for line in process.stderr:
                if line.startswith("progress: "):
                    self(line.removeprefix("progress: ").rstrip())
                else:
                    told.append(line)
            process.wait()
            output.seek(0)
            return subprocess.CompletedProcess(command, process.returncode, output.read(), "".join(told))


@pytest.fixture(scope="session")
def progress(pytestconfig: pytest.Config) -> Progress:
    return Progress(pytestconfig)


# What pytest calls.


class Collector:
    """Gathers what the tests report; in the end shows it, and writes it where `HOLDFAST_REPORT` says."""

    def __init__(self) -> None:
        self.parts: list[Report] = []
        self._seconds: dict[str, float] = {}
        self._outcomes: Counter[str] = Counter()
        self._began = time.monotonic()
        self._page = os.environ.get("HOLDFAST_REPORT", "")
        self._said = ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._seconds[report.nodeid] = self._seconds.get(report.nodeid, 0.0) + report.duration
        if report.when == "call" or report.skipped:
            self._outcomes[report.outcome] += 1
        if report.when == "call":
            mine = {"test": report.nodeid, "passed": report.passed, "seconds": round(self._seconds[report.nodeid], 1)}
            self.parts += [{**value, **mine} for name, value in report.user_properties if name == "figures"]

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """Refuse at once what half an hour later would be refused."""
        if not self._page:
            return
        try:
            settings_of(os.environ)
            around(ROOT / self._page)
            if session.config.option.keyword or session.config.args_source is not pytest.Config.ArgsSource.TESTPATHS:
                raise Refused("these are some of the tests only")
        except Refused as reason:
            raise pytest.UsageError(f"{self._page} would not be written: {reason}") from None

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        page = self._page
        if not page or exitstatus == pytest.ExitCode.USAGE_ERROR:
            return
        try:
            refuse_unfinished(self.parts, passed=exitstatus == 0)
            write(ROOT / page, self._report(settings_of(os.environ)))
        except Refused as reason:
            self._said = f"{page} was not written: {reason}"
            session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED
        else:
            self._said = f"written to {page}"

    def _report(self, settings: dict[str, str]) -> Report:
        folder = Path(tempfile.gettempdir()).resolve()
        return {
            "command": " ".join(["make crash", *(f"{name}={value}" for name, value in settings.items())]),
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "commit": commit(),
            "holdfast": holdfast.__version__,
            "python": platform.python_version(),
            "sqlite": sqlite3.sqlite_version,
            "system": platform.system() + " " + ".".join(platform.release().split(".")[:2]),
            "cpus": os.cpu_count(),
            "file_system": file_system(folder),
            "tests": dict(self._outcomes),
            "seconds": round(time.monotonic() - self._began),
            "parts": sorted(self.parts, key=lambda part: [*PARTS].index(part["part"])),
        }

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        failed = [part for part in self.parts if not part["passed"]]
        if self.parts and (failed or self._said or is_long(os.environ)):
            terminalreporter.section("figures")
            for line in aligned(table(self.parts)):
                terminalreporter.write_line(line)
        if self._said:
            terminalreporter.write_line(self._said)


# What goes into the page.


def is_long(environment: Mapping[str, str]) -> bool:
    try:
        return bool(settings_of(environment))
    except Refused:
        return False


def settings_of(environment: Mapping[str, str]) -> dict[str, str]:
    """The values of `make crash`; refused if one is missing or not above the short form."""
    settings: dict[str, str] = {}
    for name, (variable, short) in SETTINGS.items():
        value = environment.get(variable, "0")
        if float(value) <= short:
            raise Refused(f"{name}={value} is a short form (say more than {short})")
        settings[name] = value
    return settings


def refuse_unfinished(parts: list[Report], *, passed: bool) -> None:
    """Only a whole run without a failure is for the page."""
    if not passed:
        raise Refused("not everything passed")
    if missing := [label for part, label in PARTS.items() if part not in {found["part"] for found in parts}]:
        raise Refused(f"left out: {', '.join(missing)}")
    for part in parts:
        wrong = sum(part.get(count, 0) for count in COUNTS)
        if part["facts"] <= 0 or not part["passed"] or (wrong and part["part"] not in CONTROLS):
            raise Refused(f"{PARTS[part['part']]}: {part}")


def commit() -> str:
    """The commit that was tested; with a `+` if files have been changed since."""
    command = ["git", "describe", "--always", "--abbrev=10", "--dirty=+", "--exclude=*"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"


def write(page: Path, report: Report) -> None:
    """Put the figures between the markers of a page, and as JSON beside it."""
    before, after = around(page)
    page.write_text(f"{before}\n\n{block(report)}\n\n{after}", encoding="utf-8")
    page.with_suffix(".json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def around(page: Path) -> tuple[str, str]:
    """What is before and after the figures of a page, with the markers."""
    begin, end = MARKERS
    text = page.read_text(encoding="utf-8") if page.exists() else ""
    if text.count(begin) != 1 or text.count(end) != 1:
        raise Refused(f"the page needs one {begin} and one {end}")
    return text.partition(begin)[0] + begin, end + text.partition(end)[2]


def block(report: Report) -> str:
    """The figures of a run as Markdown."""
    rows = table(report["parts"])
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "|---|---:|---:|---:|---:|---:|---:|---:|")
    outcomes = " and ".join(f"{count} {outcome}" for outcome, count in report["tests"].items())
    head = [
        f"`{report['command']}` on {report['date']}, commit {report['commit']}:",
        f"{outcomes}, in {took(report['seconds'])}. Holdfast {report['holdfast']}, Python {report['python']},",
        f"SQLite {report['sqlite']} with `synchronous=full` where nothing else is said,",
        f"{report['system']}, {report['cpus']} cores, {report['file_system']}.",
    ]
    return "\n".join([*head, "", *lines])


def table(parts: list[Report]) -> list[list[str]]:
    """Rows of words, the first one is the head."""
    rows = [["", "trials", "facts checked", *COUNTS, "seed", "took"]]
    for part in parts:
        counts = [f"{part[count]:,}" if count in part else "–" for count in COUNTS]
        label = PARTS[part["part"]] + ("" if part["passed"] else " FAILED")
        rows.append(
            [label, part["trials"], f"{part['facts']:,}", *counts, str(part["seed"]), took(round(part["seconds"]))]
        )
    return rows


def aligned(rows: list[list[str]]) -> list[str]:
    """The same for a terminal."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for label, *cells in rows:
        right = [cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)]
        lines.append("  ".join([label.ljust(widths[0]), *right]))
    return lines


def took(seconds: int) -> str:
    return f"{seconds} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def seed_in(text: str) -> str:
    """The seed that a program has printed."""
    found = re.findall(r"seed (\d+)", text)
    return found[-1] if found else "?"

"""`holdfast demo` from end to end, as a process: with kills, with wrong files, interrupted, and killed itself."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from holdfast.cli.demo.drive import DATABASE, LEDGER
from holdfast.cli.demo.orders import SHIPPED

WAIT_SECONDS = 60
COMMAND = [sys.executable, "-c", "from holdfast.cli import main; main()", "demo"]


def run(*arguments: object, temp: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"TMPDIR": str(temp)}
    command = [*COMMAND, *map(str, arguments)]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=WAIT_SECONDS, check=False, encoding="utf-8"
    )


@pytest.fixture
def temp(tmp_path: Path) -> Path:
    folder = tmp_path / "temp"
    folder.mkdir()
    return folder


@pytest.fixture
def sixty(tmp_path: Path) -> Path:
    path = tmp_path / "sixty.csv"
    path.write_text("".join(SHIPPED.read_text(encoding="utf-8").splitlines(keepends=True)[:61]), encoding="utf-8")
    return path


@pytest.mark.crash
def test_sixty_orders_survive_two_kills(sixty: Path, temp: Path, tmp_path: Path) -> None:
    kept = tmp_path / "a folder, kept"
    done = run("--file", sixty, "--kills", 2, "--seed", 3, "--keep", kept, temp=temp)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Killed 2 times: all 60 orders were charged exactly once, and none was lost." in done.stdout
    assert "✗" not in done.stdout
    assert done.stdout.count("✓") == 7
    assert len(re.findall(r"kill -9 \d+: worker \d dies", done.stderr)) == 2
    assert "\x1b" not in done.stdout + done.stderr
    assert all(line == line.rstrip() for line in done.stdout.splitlines())
    with closing(sqlite3.connect(kept / DATABASE)) as connection:
        states = connection.execute("select state, count(*) from holdfast_runs group by state").fetchall()
    assert states == [("succeeded", 60)]
    lines = [json.loads(line) for line in (kept / LEDGER).read_text(encoding="utf-8").splitlines()]
    assert sum(line["kind"] == "charge" for line in lines) == 60
    assert list(temp.iterdir()) == []


@pytest.mark.crash
def test_the_outcome_is_there_for_programs_and_the_files_are_removed(sixty: Path, temp: Path) -> None:
    done = run("--file", sixty, "--kills", 1, "--seed", 4, "-o", "json", temp=temp)
    facts = json.loads(done.stdout)
    assert done.returncode == 0
    assert (facts["passed"], facts["orders"], facts["charges"], facts["kills"]) == (True, 60, 60, 1)
    assert (facts["steps"], facts["integrity"], len(facts["checks"])) == (240, "ok", 7)
    assert facts["runs_resumed"] > 0
    assert list(temp.iterdir()) == []


def test_a_single_order_without_kills_gets_its_own_sentence(sixty: Path, temp: Path) -> None:
    sixty.write_text("".join(sixty.read_text(encoding="utf-8").splitlines(keepends=True)[:2]), encoding="utf-8")
    done = run("--file", sixty, "--kills", 0, temp=temp)
    assert done.returncode == 0
    assert "The only order was charged exactly once, and none was lost." in done.stdout


def test_a_malformed_file_starts_nothing(temp: Path, tmp_path: Path) -> None:
    path = tmp_path / "my.csv"
    path.write_text("order_id,customer,item,quantity,cents\nA1,Ann,Tea,1,12.50\nA1,Ann,Tea,1,1\n,Ann,Tea,1,1\n")
    kept = tmp_path / "kept"
    done = run("--file", path, "--keep", kept, temp=temp)
    assert done.returncode == 2
    assert done.stdout == ""
    assert f"error: {path} has 3 malformed lines; nothing was started" in done.stderr
    for place in ("line 2: cents:", "line 3: order_id:", "line 4: order_id:"):
        assert place in done.stderr
    assert not kept.exists()
    assert list(temp.iterdir()) == []


def test_a_folder_that_is_not_empty_is_not_touched(temp: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    done = run("--keep", tmp_path, temp=temp)
    assert done.returncode == 2
    assert "is not empty" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "temp"]


def test_a_database_of_the_user_is_refused(temp: Path, tmp_path: Path) -> None:
    done = run("--db", f"sqlite:///{tmp_path}/mine.db", temp=temp)
    assert done.returncode == 2
    assert "database of its own" in done.stderr
    assert not (tmp_path / "mine.db").exists()


class Demo:
    """A demo under way, with handles to its children."""

    def __init__(self, temp: Path) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, "--kills", "0"],
            env=os.environ | {"TMPDIR": str(temp)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )
        assert self.process.stderr is not None
        self.children: list[int] = []
        while len(self.children) < 2:
            line = self.process.stderr.readline()
            assert line, "the demo ended early"
            if found := re.search(r"\(pid (\d+)\)", line):
                self.children.append(os.pidfd_open(int(found[1])))

    def end(self) -> tuple[int, str]:
        _, errors = self.process.communicate(timeout=WAIT_SECONDS)
        return self.process.returncode, errors

    def children_are_gone(self) -> bool:
        """Wait for each of them; a process descriptor is readable when its process has ended."""
        gone = [bool(select.select([child], [], [], WAIT_SECONDS)[0]) for child in self.children]
        for child in self.children:
            os.close(child)
        return all(gone)


needs_pidfd = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs Linux's process descriptors")


@needs_pidfd
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_stops_its_children_and_cleans_up(temp: Path, number: signal.Signals) -> None:
    demo = Demo(temp)
    demo.process.send_signal(number)
    code, errors = demo.end()
    assert code == 130, errors
    assert "worker and payment provider are stopped" in errors
    assert "Traceback" not in errors
    assert demo.children_are_gone()
    assert list(temp.iterdir()) == []


@needs_pidfd
@pytest.mark.crash
def test_no_child_outlives_a_demo_that_is_killed(temp: Path) -> None:
    demo = Demo(temp)
    demo.process.kill()
    demo.end()
    assert demo.children_are_gone()


@needs_pidfd
@pytest.mark.crash
def test_a_provider_that_dies_is_an_error_and_not_a_pass(temp: Path) -> None:
    demo = Demo(temp)
    signal.pidfd_send_signal(demo.children[0], signal.SIGKILL)
    code, errors = demo.end()
    assert code == 1
    assert "payment provider" in errors
    assert demo.children_are_gone()


@needs_pidfd
@pytest.mark.crash
def test_a_worker_that_dies_by_another_hand_is_an_error(temp: Path) -> None:
    demo = Demo(temp)
    signal.pidfd_send_signal(demo.children[1], signal.SIGKILL)
    code, errors = demo.end()
    assert code == 1
    assert "worker 1" in errors
    assert demo.children_are_gone()

"""`holdfast worker --procs N`, and runs that kill their workers."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from tests.processes.conftest import Place, Process

pytestmark = pytest.mark.crash

LIVE = "select pid from holdfast_workers where state = 'live'"


def parent(place: Place, procs: int, *args: str, **environment: str) -> tuple[Process, dict[int, int]]:
    """The parent, and the process of each number, once all are ready."""
    process = place.python(
        *("holdfast", "worker", "tests.processes.shop:app", "--procs", str(procs), "-o", "jsonl", *args), **environment
    )
    numbers = sorted(int(place.event(process, "ready")["number"]) for _ in range(procs))
    assert numbers == list(range(1, procs + 1))
    pids = [row[0] for row in place.rows(LIVE)]
    assert len(pids) == procs
    return process, dict(enumerate(pids, 1))


def alive(pid: int) -> bool:
    """Whether this process, which may be nobody's child any more, still runs."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_killed_process_is_replaced_and_sigterm_lets_all_leave(place: Place) -> None:
    process, pids = parent(place, 2)
    place.cli("start", "held", "number=1", "--id", "h")
    place.until("one executes it", lambda: [s for s in place.steps() if s[0] == "hold"])
    (victim,) = {int(s[3]) for s in place.steps() if s[0] == "hold"}
    assert victim in pids.values()
    os.kill(victim, signal.SIGKILL)
    place.event(process, "ready")
    place.until("the other executes it", lambda: len([s for s in place.steps() if s[0] == "hold"]) == 2)
    (place.folder / "open").touch()
    assert place.cli("wait", "h", "--timeout", "30").strip() == "3"
    assert len(place.rows(LIVE)) == 2
    children = [row[0] for row in place.rows(LIVE)]
    assert place.stop(process) == 0
    assert not any(map(alive, children))
    assert place.locks() == set()
    assert "was ended by SIGKILL" in place.errors
    assert "another one starts now" in place.errors
    assert "[1] " in place.errors
    assert "[2] " in place.errors


def test_children_leave_when_their_parent_is_killed_and_give_their_runs_back(place: Place) -> None:
    process, pids = parent(place, 2, "--stop-timeout", "0.05")
    place.cli("start", "held", "number=1", "--id", "h")
    place.until("one executes it", lambda: [s for s in place.steps() if s[0] == "hold"])
    process.kill()
    place.until("all are gone", lambda: not any(map(alive, pids.values())))
    assert place.rows("select state, crashes from holdfast_runs") == [("ready", 0)]
    assert {row[0] for row in place.rows("select state from holdfast_workers")} == {"left"}
    assert place.errors.count("the parent process is gone") == 2


def test_a_second_signal_leaves_at_once(place: Place) -> None:
    process, pids = parent(place, 2, "--stop-timeout", "600")
    place.cli("start", "held", "number=1", "--id", "h")
    place.until("one executes it", lambda: [s for s in place.steps() if s[0] == "hold"])
    process.send_signal(signal.SIGINT)
    place.until("it stops", lambda: "stopping: 1 run under way" in place.errors)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 128 + signal.SIGINT
    assert not any(map(alive, pids.values()))
    assert place.states() == {"running": 1}


def test_an_app_that_cannot_be_imported_ends_the_parent_with_the_same_exit_code(place: Place) -> None:
    process = place.python("holdfast", "worker", "no_such_module:app", "--procs", "2")
    assert process.wait(60) == 2
    assert place.errors.count("there is no module 'no_such_module'") == 1, "said once, not by each process"
    assert "it cannot start: giving up" in place.errors


def test_processes_that_never_get_ready_are_tried_a_few_times(place: Place) -> None:
    (place.folder / "dying.py").write_text("import os\nos._exit(3)\n")
    process = place.python("holdfast", "worker", "dying:app", "--procs", "2")
    assert process.wait(60) == 1
    assert "5 in a row died before they were ready: giving up" in place.errors
    assert "another one starts in 0.5 s" in place.errors


def test_a_poison_run_is_set_aside_and_no_innocent_with_it(place: Place) -> None:
    innocent = 200
    process, _ = parent(place, 2)
    loader = place.python("tests.processes.loader", "30", str(innocent))
    assert place.line(loader) == "started"
    place.cli("start", "poison", "--id", "p")
    place.until("it is set aside", lambda: place.value("select state from holdfast_runs where id = 'p'") == "blocked")
    assert place.line(loader) == "ended"
    assert place.states() == {"blocked": 1, "succeeded": innocent}
    row: Any = place.rows("select reason, crashes, error from holdfast_runs where id = 'p'")[0]
    assert (row[0], row[1], json.loads(row[2])["message"].startswith("its worker died with it 5 times")) == (
        "poison",
        5,
        True,
    )
    assert [s[0] for s in place.steps() if s[1] == "p"] == ["act", *["kill"] * 5]
    for crashes in (3, 4):
        assert (
            f"run p of poison: its process has died with it {crashes} times in a row, without progress" in place.errors
        )
    assert "RunPoisoned" in place.cli("ls", "--state", "blocked")
    shown = place.cli("show", "p")
    assert "5 without progress" in shown
    assert "`holdfast resume ID` gives it another 5 tries" in shown
    assert place.stop(process) == 0
    fixed, _ = place.worker(FIXED="1")
    place.cli("resume", "p")
    assert place.cli("wait", "p", "--timeout", "30").strip() == '"fixed"'
    assert place.rows("select crashes, reason, error from holdfast_runs where id = 'p'") == [(0, None, None)]
    assert place.stop(fixed) == 0


def test_innocents_that_make_no_progress_become_suspects_and_are_cleared(place: Place) -> None:
    """They wait in a step that outlives every crash, so each crash counts for them as for the guilty one."""
    innocent = 40
    suspects = "select count(*) from holdfast_runs where crashes >= 3"

    def works_until_it_dies() -> None:
        worker = place.python("holdfast", "worker", "tests.processes.shop:app")
        assert worker.wait(60) == -signal.SIGKILL

    loader = place.python("tests.processes.loader", "held", str(innocent))
    assert place.line(loader) == "started"
    place.cli("start", "poison", "--id", "p")
    for _ in range(3):
        works_until_it_dies()
    fourth, _ = place.worker()
    place.until("all are suspects", lambda: place.value(suspects) == innocent + 1)
    (place.folder / "open").touch()
    assert fourth.wait(60) == -signal.SIGKILL, "the guilty one is tried, too, after all others"
    works_until_it_dies()
    last, _ = place.worker()
    assert place.line(loader) == "ended"
    place.until("it is set aside", lambda: place.value("select state from holdfast_runs where id = 'p'") == "blocked")
    assert place.states() == {"blocked": 1, "succeeded": innocent}
    assert place.stop(last) == 0

"""Several workers on one file: death, fencing, and who takes what."""

from __future__ import annotations

import signal
import time

import pytest
from tests.processes.conftest import Place

pytestmark = pytest.mark.crash

RUNS = 300
HELD = "select count(*) from holdfast_runs where worker = ? and state = 'running'"
ALL_ROWS = (
    "select r.id, r.state, r.output, r.worker, r.ended_at, h.seq, h.ordinal, h.state, h.output, h.attempts, "
    "h.finished_at from holdfast_runs r left join holdfast_history h on h.run = r.number where r.id like 'held-%' "
    "order by r.number, h.seq"
)


@pytest.mark.parametrize("load", [1, RUNS])
def test_a_worker_that_is_stopped_past_its_lease_writes_nothing_and_goes_on_as_another(place: Place, load: int) -> None:
    stopped = place.python("tests.processes.client", str(load), LEASE="1")
    assert place.line(stopped) == "started"
    old = place.value("select id from holdfast_workers")
    place.until("every step is under way", lambda: len([s for s in place.steps() if s[0] == "hold"]) == load)
    stopped.send_signal(signal.SIGSTOP)
    other, _ = place.worker(LEASE="1")
    place.until("its runs are taken over", lambda: place.value(HELD, old) == 0)
    (place.folder / "open").touch()
    place.until("the other has finished them", lambda: place.states() == {"succeeded": load})
    before, steps = place.rows(ALL_ROWS), place.steps()
    assert place.stop(other) == 0

    stopped.send_signal(signal.SIGCONT)

    assert place.line(stopped) == f"results {3 * sum(range(load))}"
    assert stopped.stdin is not None
    stopped.stdin.write("go on\n")
    stopped.stdin.flush()
    said, new = place.line(stopped).split()
    assert said == "after"
    assert new != old
    assert dict(place.rows("select id, state from holdfast_workers where id in (?, ?)", old, new)) == {
        old: "dead",
        new: "live",
    }
    assert place.locks() == {new}
    assert place.rows(ALL_ROWS) == before
    assert [s for s in place.steps() if not s[1].startswith("after-")] == steps, "a body began after it was continued"
    assert {s[3] for s in place.steps() if s[1].startswith("after-")} == {str(stopped.pid)}
    assert f"worker {old} was declared dead" in place.errors
    assert f"runs that go on elsewhere: {load}" in place.errors
    assert f"this process goes on as worker {new}" in place.errors
    assert "Traceback" not in place.errors
    stopped.stdin.close()
    assert stopped.wait(60) == 0
    assert place.locks() == set()


def test_a_worker_that_was_stopped_alone_renews_its_lapsed_lease(place: Place) -> None:
    worker = place.python("tests.processes.client", "20", LEASE="0.3")
    assert place.line(worker) == "started"
    (old,) = place.locks()
    worker.send_signal(signal.SIGSTOP)
    until = place.value("select lease_until from holdfast_workers")
    place.until("its lease has lapsed", lambda: time.time_ns() // 1000 > until + 300_000)
    worker.send_signal(signal.SIGCONT)
    (place.folder / "open").touch()
    assert place.line(worker) == f"results {3 * sum(range(20))}"
    assert place.rows("select id, state from holdfast_workers") == [(old, "live")]
    assert set(place.executions().values()) == {1}


def test_the_death_of_a_worker_is_noticed_within_a_second(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    first, old = place.worker()
    place.cli("start", "held", "number=3", "--id", "held-3")
    place.until("it executes the step", lambda: ["hold", "held-3", "2", str(first.pid)] in place.steps())
    second, _ = place.worker()
    first.kill()
    seconds = place.until("the other executes it", lambda: ["hold", "held-3", "2", str(second.pid)] in place.steps())
    with capsys.disabled():
        print(f" [kill -9 to the next execution of the step: {seconds:.2f} s]", end="")
    assert seconds < 10  # a busy machine; the sweep comes every 0.2 s here, each second by default
    (place.folder / "open").touch()
    assert place.cli("wait", "held-3", "--timeout", "30").strip() == "9"
    assert place.executions()["held-3", "1"] == 1
    assert old not in place.locks()


def test_processes_that_start_and_stop_under_load_steal_and_repeat_nothing(place: Place) -> None:
    place.worker()
    loader = place.python("tests.processes.loader", "60", "120")
    assert place.line(loader) == "started"
    for _ in range(4):
        visitor, _ = place.worker()
        assert place.stop(visitor) == 0
    assert place.line(loader) == "ended"
    assert place.states() == {"succeeded": 120}
    assert set(place.executions().values()) == {1}
    assert place.value("select count(*) from holdfast_workers where state = 'dead'") == 0


def test_a_run_of_an_unknown_workflow_waits_visibly_and_starts_with_a_worker_that_knows_it(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    place.worker()
    place.cli("start", "newer", "--id", "n")
    place.cli("start", "row", "number=1", "--id", "r")
    assert place.cli("wait", "r", "--timeout", "30").strip() == "20"
    assert "no worker knows this workflow" in place.cli("ls")
    assert "no worker knows this workflow" in place.cli("show", "n")
    assert "newer: 1 ready, no worker knows this workflow" in place.cli("stats")
    assert "1 run of newer ready, and no live worker knows it" in place.cli("doctor")
    began = time.monotonic()
    newer, _ = place.worker(NEWER="1")
    ready = time.monotonic()
    place.until("it is executed", lambda: place.states() == {"succeeded": 2})
    with capsys.disabled():
        print(f" [ready after {ready - began:.2f} s, ended {time.monotonic() - ready:.2f} s later]", end="")
    assert [s[3] for s in place.steps() if s[1] == "n"] == [str(newer.pid)]
    assert "no worker knows" not in place.cli("ls")

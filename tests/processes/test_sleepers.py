"""Sleeping runs and real processes: what is parked outlives its worker, and needs no room in the next one."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.processes.sleepers import app_at, nap

from holdfast import Start
from holdfast._sync import SyncClient

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_SECONDS = 30.0
pytestmark = pytest.mark.crash


@contextmanager
def worker(database: Path, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A worker's process that has said that it is ready; it is gone afterwards."""
    words = [f"{name}={value}" for name, value in options.items()]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.processes.sleepers", str(database), *words],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def until(client: SyncClient, count: int, state: str) -> None:
    """Look until so many runs are in a state."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while client.count(state=state) != count:
        assert time.monotonic() < deadline, f"{client.count(state=state)} runs are {state}, not {count}"
        time.sleep(0.01)


@pytest.fixture
def client(tmp_path: Path) -> Iterator[SyncClient]:
    with app_at(str(tmp_path / "a.db")).sync() as client:
        yield client


def start(client: SyncClient, tmp_path: Path, count: int, *, seconds: float) -> None:
    log = str(tmp_path / "log")
    client.start_many(Start(nap, log, f"r{number}", seconds, id=f"r{number}") for number in range(count))


def noted(tmp_path: Path) -> Counter[str]:
    return Counter((tmp_path / "log").read_text().split("\n")[:-1])


def test_parked_runs_outlive_a_killed_worker_and_wake_once_elsewhere(tmp_path: Path, client: SyncClient) -> None:
    start(client, tmp_path, 40, seconds=1.5)
    with worker(tmp_path / "a.db", park_after=0) as first:
        until(client, 40, "waiting")
        first.kill()
        first.wait()
    with worker(tmp_path / "a.db"):
        until(client, 40, "succeeded")
    names = [f"r{number}" for number in range(40)]
    assert noted(tmp_path) == {f"{word} {name}": 1 for name in names for word in ("asleep", "awake")}


def test_more_runs_sleep_than_fit_into_memory(tmp_path: Path, client: SyncClient) -> None:
    start(client, tmp_path, 300, seconds=3600.0)
    with worker(tmp_path / "a.db", runs_max=10, park_after=3600):
        until(client, 0, "ready")
        assert client.count(state="waiting") >= 290
        run = client.start(nap, str(tmp_path / "log"), "late", 0.0)
        assert run.result(timeout=PATIENCE_SECONDS) == "late"


def test_a_process_short_of_memory_parks_at_once(tmp_path: Path, client: SyncClient) -> None:
    start(client, tmp_path, 20, seconds=3600.0)
    with worker(tmp_path / "a.db", park_after=3600, memory_max=1):
        until(client, 20, "waiting")
    assert set(noted(tmp_path)) == {f"asleep r{number}" for number in range(20)}, "no finally block had an effect"


def test_a_worker_that_leaves_gives_back_what_sleeps_in_its_memory(tmp_path: Path, client: SyncClient) -> None:
    start(client, tmp_path, 20, seconds=1.0)
    with worker(tmp_path / "a.db", park_after=3600) as first:
        until(client, 20, "running")
        out, _ = first.communicate(timeout=PATIENCE_SECONDS)
        assert out == "bye\n"
    assert client.count(state="ready") == 20
    with worker(tmp_path / "a.db"):
        until(client, 20, "succeeded")
    assert set(noted(tmp_path).values()) == {1}

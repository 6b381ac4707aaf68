from __future__ import annotations

import threading
from collections.abc import Callable

from holdfast._runtime.threads import Job, StepThreads


class Counted:
    """Jobs that wait for their release and count how many are at work at once."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.active = 0
        self.most = 0
        self.names: set[int] = set()
        self.done = threading.Semaphore(0)

    def job(self, wait: Callable[[], object] = lambda: None) -> Job:
        def call() -> None:
            with self.lock:
                self.active += 1
                self.most = max(self.most, self.active)
                self.names.add(threading.get_ident())
            wait()
            with self.lock:
                self.active -= 1
            self.done.release()

        return Job(call)


def test_at_most_the_bound_is_at_work_and_everything_gets_done() -> None:
    pool, counted = StepThreads(3), Counted()
    barrier = threading.Barrier(3)
    for _ in range(30):
        pool.submit(counted.job(barrier.wait))
    for _ in range(30):
        counted.done.acquire()
    assert counted.most == 3
    pool.close()


def test_an_idle_thread_takes_the_next_job() -> None:
    pool, counted = StepThreads(8), Counted()
    for _ in range(20):
        pool.submit(counted.job())
        counted.done.acquire()
    assert len(counted.names) <= 2  # the one that has just finished may not be idle yet
    pool.close()


def test_a_job_abandoned_in_line_never_runs() -> None:
    pool, counted, release = StepThreads(1), Counted(), threading.Event()
    pool.submit(counted.job(release.wait))
    waiting = counted.job()
    pool.submit(waiting)
    pool.abandon(waiting)
    pool.abandon(waiting)
    assert pool.abandoned == 0
    release.set()
    counted.done.acquire()
    last = counted.job()
    pool.submit(last)
    counted.done.acquire()
    assert not waiting.started
    pool.close()


def test_an_abandoned_thread_makes_place_for_those_in_line_and_ends_when_it_comes_back() -> None:
    pool, counted, release, began = StepThreads(1), Counted(), threading.Event(), threading.Event()

    def hold() -> None:
        began.set()
        release.wait()

    stuck = counted.job(hold)
    pool.submit(stuck)
    began.wait()
    pool.submit(counted.job())
    pool.abandon(stuck)
    counted.done.acquire()
    assert pool.abandoned == 1
    release.set()
    counted.done.acquire()
    while pool.abandoned:
        threading.Event().wait(0)
    pool.submit(counted.job())
    counted.done.acquire()
    pool.close()

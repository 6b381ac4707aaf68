"""A bounded pool of threads for `def` steps, which knows that some threads never come back.

A body that ran into its timeout cannot be stopped: it is abandoned. Its thread no longer counts against the bound, so
that others take its place, and ends when the body does. Threads are daemons: a stuck body does not keep a process from
leaving.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue


class Job:
    """A call for a thread. `abandoned` is set on the event loop, read by the thread."""

    __slots__ = ("abandoned", "call", "finished", "started")

    def __init__(self, call: Callable[[], object]) -> None:
        self.call = call
        self.started = False
        self.finished = False
        self.abandoned = False


class StepThreads:
    """At most `bound` threads at work, besides the abandoned. `call`s must not raise."""

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        self._idle = 0
        self.abandoned = 0

    def submit(self, job: Job) -> None:
        """Run the job as soon as a thread is free."""
        with self._lock:
            if self._idle > 0:
                self._idle -= 1
            elif self._threads < self._bound:
                self._spawn()
            self._jobs.put(job)

    def abandon(self, job: Job) -> None:
        """Nobody waits for this job any more; its thread, if it has one, is written off."""
        with self._lock:
            if job.abandoned:
                return
            job.abandoned = True
            if job.started and not job.finished:
                self.abandoned += 1
                self._threads -= 1
                if not self._jobs.empty() and self._threads < self._bound:
                    self._spawn()

    def close(self) -> None:
        """Let idle threads end; busy ones end after their job."""
        with self._lock:
            for _ in range(self._threads):
                self._jobs.put(None)

    def _spawn(self) -> None:
        self._threads += 1
        threading.Thread(target=self._work, name="holdfast-step", daemon=True).start()

    def _work(self) -> None:
        while True:
            job = self._jobs.get()
            if job is None:
                return
            with self._lock:
                job.started = not job.abandoned
            if job.started:
                job.call()
            with self._lock:
                job.finished = True
                if job.started and job.abandoned:
                    self.abandoned -= 1
                    return
                self._idle += 1 if self._jobs.empty() else 0

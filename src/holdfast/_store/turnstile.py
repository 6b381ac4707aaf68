"""Turns at a database file, between threads and processes: one commit or checkpoint at a time, in fair order.

            door (…-turn-a)          room (…-turn-b)
    others ──> [ next one ] ───────> [ BEGIN IMMEDIATE ... COMMIT (checkpoint) ] ──> out

    take the door · take the room · let the door go · work · let the room go

Both are `flock` locks on two small files beside the database; the database itself is never touched.

Why turns at all. (1) The WAL-reset bug (SQLite 3.7.0 to 3.51.2 but for two patch releases, which is most libraries in
use) corrupts a database within a second when a checkpoint of one connection runs beside a commit of another. Whoever
commits through here also checkpoints here, so the two never meet. (2) SQLite's own waiting, `busy_timeout`, sleeps and
tries again, so whoever just committed wins again: with four processes one committed once in 6 s and others waited
2.5 to 5 s. With turns the longest wait was 10 ms, with equal shares.

Why two locks. With one, the process that lets go is awake and takes the lock again before the kernel has woken anybody.
Here the next one waits for the room while it *holds the door*. Whoever leaves the room finds the door shut and queues
behind it, so nobody enters the room twice in a row while another waits for it. Behind the door the kernel keeps the
order mostly; a list of those who wait there bounds how often one of them is overtaken, see `waiting.py`: between asking
and having a turn, each of the others begins at most one, beside the two that were in the room and in the door by then.

What can crash where. The kernel drops a flock with its process, so a killed holder frees door and room at once,
wherever it was, and SQLite rolls its transaction back. A *stopped* holder keeps them: nothing could be done about it
that would not corrupt a transaction which goes on when the process does, so the waiters say who it is. Each holder
leaves its pid in the file it holds, one read a turn, and one write when it changes.

Each thread has a seat of its own: its own descriptors, since flock belongs to the open file. Turns nest in a thread.
A forked child shares the open files, so it must call `abandon`: closing a copy does not let go of the parent's lock.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import TracebackType
from typing import Final
from weakref import WeakSet

from holdfast._store.waiting import WaitingList
from holdfast.errors import StoreReplaced, StoreUnavailable, StoreUnsupported

if sys.platform != "win32":
    from fcntl import LOCK_EX, LOCK_NB, LOCK_UN, flock

PATIENCE_SECONDS: Final = 5.0

OnWait = Callable[[int | None, float], object]
"""Called with the pid of the holder, where known, and a lower bound of the seconds waited."""

_STAMP_BYTES: Final = 12
_log = logging.getLogger("holdfast.engine")


class Turnstile:
    """Turns at one database file.

    Args:
        path: the database's real path.
        mode: permission bits of the two files when they are made.
        patience_s: a turn that takes longer to come is reported, no later than after twice this time, and again after
            twice, four times, ... as long.
        on_wait: called from a watching thread; by default a warning is logged on `holdfast.engine`.
    """

    def __init__(
        self,
        path: Path,
        *,
        mode: int = 0o600,
        patience_s: float = PATIENCE_SECONDS,
        on_wait: OnWait | None = None,
    ) -> None:
        if sys.platform == "win32":
            raise StoreUnsupported("this release needs POSIX file locks", hint="use Linux, macOS or WSL 2")
        self.path = path
        self.door = path.with_name(f"{path.name}-turn-a")
        self.room = path.with_name(f"{path.name}-turn-b")
        self._mode = mode
        self._patience_s = patience_s
        self._on_wait = on_wait or self._warn
        self._reset()

    def _reset(self) -> None:
        self._local = threading.local()
        self._seats: WeakSet[_Seat] = WeakSet()
        self._lock = threading.Lock()
        self._watcher: threading.Thread | None = None
        self._closing = threading.Event()

    def turn(self) -> AbstractContextManager[object]:
        """A turn of the calling thread: waits on entry, as long as it takes. May be nested.

        Raises:
            StoreUnavailable: the files cannot be made, opened or locked.
        """
        return self._seat()

    @property
    def held(self) -> bool:
        """Whether the calling thread is in its turn."""
        seat: _Seat | None = getattr(self._local, "seat", None)
        return seat is not None and seat.depth > 0

    def check(self) -> None:
        """Make sure that the files which this thread locks are still those that others find.

        Raises:
            StoreReplaced: one was removed or replaced, so that two processes could be in their turns at once.
        """
        seat: _Seat | None = getattr(self._local, "seat", None)
        if seat is None or seat.descriptors is None:
            return
        for path, descriptor in zip((self.door, self.room), seat.descriptors, strict=True):
            if not _is_same_file(path, descriptor):
                raise StoreReplaced(
                    f"{path} was removed or replaced while the database was open",
                    hint="stop every process that uses the database, then start again",
                )

    def close(self) -> None:
        """Close the descriptors; a later turn opens them again. Only while no thread takes a turn."""
        self._closing.set()
        with self._lock:
            for seat in self._seats:
                seat.close()

    def abandon(self) -> None:
        """In a forked child: let go of what was inherited, without letting go of the parent's turn."""
        for seat in list(self._seats):
            seat.close()
        self._reset()

    # Seats.

    def _seat(self) -> _Seat:
        try:
            seat: _Seat = self._local.seat
        except AttributeError:
            seat = self._local.seat = _Seat(self)
            with self._lock:
                self._seats.add(seat)
        return seat

    def open(self) -> tuple[int, int]:
        """Open door and room for a seat."""
        door = self._open(self.door)
        try:
            return door, self._open(self.room)
        except BaseException:
            os.close(door)
            raise

    def _open(self, path: Path) -> int:
        try:
            return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, self._mode)
        except OSError as error:
            raise StoreUnavailable(
                f"cannot open {path}: {error.strerror}",
                hint="every user of the database must be able to write this file and its folder",
            ) from error

    # Long waits.

    def watch(self) -> None:
        """See to it that somebody looks how long this wait takes. A thread is kept only while there are waits."""
        with self._lock:
            if self._watcher is None:
                self._closing.clear()
                self._watcher = threading.Thread(target=self._watch, name="holdfast-turnstile", daemon=True)
                self._watcher.start()

    def _watch(self) -> None:
        while not self._closing.wait(self._patience_s):
            with self._lock:
                waiting = [seat for seat in self._seats if seat.waiting]
                if not waiting:
                    self._watcher = None  # still in the lock: who begins to wait now starts another watcher
                    return
            for seat in waiting:
                if seat.looked_at():
                    self._on_wait(self.holder(), seat.looks * self._patience_s)
        with self._lock:
            self._watcher = None

    def holder(self) -> int | None:
        """The pid of whoever is in the room, else of whoever stands in the door; none if nobody, or if not known."""
        for path in (self.room, self.door):
            descriptor = self._open(path)
            try:
                flock(descriptor, LOCK_EX | LOCK_NB)
            except BlockingIOError:
                stamp = os.pread(descriptor, _STAMP_BYTES, 0).strip()
                return int(stamp) if stamp.isdigit() else None
            finally:
                os.close(descriptor)
        return None

    def _warn(self, holder: int | None, seconds: float) -> None:
        who = "another process" if holder is None else f"process {holder}"
        _log.warning(
            "waiting for %s to let go of %s since more than %g s; is it stopped, or is its disk stuck?",
            who,
            self.path,
            seconds,
            extra={"holder": holder, "seconds": seconds, "database": str(self.path)},
        )


class NoTurnstile(Turnstile):
    """For a database that nobody else can reach: a turn costs and means nothing."""

    def __init__(self) -> None:
        super().__init__(Path(":memory:"))

    def turn(self) -> AbstractContextManager[object]:
        return nullcontext()

    def holder(self) -> int | None:
        return None


class _Seat:
    """One thread's place at the turnstile, and the context manager of its turns."""

    __slots__ = (
        "__weakref__",
        "_list",
        "_seen",
        "_stamp",
        "_turnstile",
        "_waits",
        "depth",
        "descriptors",
        "looks",
        "waiting",
    )

    def __init__(self, turnstile: Turnstile) -> None:
        self._turnstile = turnstile
        self._stamp = b"%*d" % (_STAMP_BYTES, os.getpid())
        self._list = WaitingList()
        self._waits = self._seen = 0
        self.descriptors: tuple[int, int] | None = None
        self.depth = 0
        self.looks = 0
        self.waiting = False

    def __enter__(self) -> None:
        if self.depth == 0:
            door, room = self.descriptors or self._open()
            try:
                self._take_door(door)
                self._take(room, blocking_others_at=door)
                flock(door, LOCK_UN)
                self._leave_stamp(room)
            except BaseException:
                self._list.give_up()
                flock(door, LOCK_UN)
                flock(room, LOCK_UN)
                raise
        self.depth += 1

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.depth == 0:  # abandoned meanwhile, by a fork in the middle of the turn
            return
        self.depth -= 1
        if self.depth == 0 and self.descriptors is not None:
            flock(self.descriptors[1], LOCK_UN)

    def _open(self) -> tuple[int, int]:
        self.descriptors = self._turnstile.open()
        self._list.open(self.descriptors[0])
        return self.descriptors

    def _take_door(self, door: int) -> None:
        self._take(door)
        while self._list.somebody_is_before_me():
            flock(door, LOCK_UN)
            self._list.stand_back()
            self._take(door)
        self._list.turn_has_come()

    def _take(self, descriptor: int, *, blocking_others_at: int | None = None) -> None:
        try:
            flock(descriptor, LOCK_EX | LOCK_NB)
        except BlockingIOError:
            if blocking_others_at is None:
                self._list.enter()
            else:
                self._leave_stamp(blocking_others_at)
            self._wait(descriptor)
        except OSError as error:
            raise StoreUnavailable(
                f"cannot lock the turnstile of {self._turnstile.path}: {error.strerror}",
                hint="the file system must support flock",
            ) from error

    def _wait(self, descriptor: int) -> None:
        self._waits += 1
        self.waiting = True
        self._turnstile.watch()
        try:
            flock(descriptor, LOCK_EX)
        finally:
            self.waiting = False

    def _leave_stamp(self, descriptor: int) -> None:
        if os.pread(descriptor, _STAMP_BYTES, 0) != self._stamp:
            # The stamp only names us to those who wait. A full disk is the database's to report, not ours.
            with contextlib.suppress(OSError):
                os.pwrite(descriptor, self._stamp, 0)

    def looked_at(self) -> bool:
        """By the watcher: whether this look is one to report. Its own count of looks is its clock."""
        if self._seen != self._waits:
            self._seen, self.looks = self._waits, 0
            return False
        self.looks += 1
        return self.looks & (self.looks - 1) == 0

    def close(self) -> None:
        """Close what is open; in a forked child also end the turn that its parent is in."""
        self.depth = 0
        descriptors, self.descriptors = self.descriptors, None
        self._list.close()
        for descriptor in descriptors or ():
            os.close(descriptor)

    def __del__(self) -> None:
        self.close()


def _is_same_file(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False

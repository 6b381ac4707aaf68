"""The list at a door: who waits there, and since when. It keeps in order what the kernel keeps only mostly in order.

Linux wakes the waiters of a flock one after the other, in the order in which they came. But to be woken is not to have
the lock: whoever comes by before the woken one is on a processor takes it, and the woken one goes back to the end. With
eight processes on two processors one was overtaken 44 times before its turn came, and nothing bounds that.

So whoever waits writes the instant on this list, and strikes it out when its wait is over. Whoever gets the door looks
at the list: if it has had a turn since somebody there began to wait, it lets the door go again and stands back until
that one has it, or waits no more. It is on the list meanwhile, since it waits, too. There is no circle: whoever has
waited longest never stands back.

Thus between my asking for a turn and its coming, each of the others begins at most one turn, beside the two turns that
were on their way when I asked: that of the one in the room, and that of the one in the door. Measured: at most n + 1
turns of others among n = 2, 4 and 8 processes, over 20,000 turns.

The list is a hint and is written without a lock. What is lost or wrong in it costs fairness, never safety. A process
that was killed is struck out by whoever notices it. One that was stopped, or that does not come for another reason, is
waited for once (`PATIENCE`, some 0.1 s) by each of the others, then passed over. Who finds no place on the list waits
as the kernel has it. While nobody waits, all this costs one read of 512 bytes a turn.

    bytes 64..575     instants: nanoseconds of the clock that all processes of a host share; 0 is "does not wait"
    bytes 576..1087   owners: process id and thread id, written when a place is taken
"""

from __future__ import annotations

import contextlib
import os
import struct
import threading
from typing import Final

from holdfast._world import block, ticks_ns

PLACES: Final = 64
PATIENCE: Final = (*[50e-6] * 100, *[1e-3] * 90)
"""Seconds between looks at the list, while one stands back, before a waiter that does not come is passed over."""

_NUMBER_BYTES: Final = 8
_SINCES_AT: Final = 64
_OWNERS_AT: Final = _SINCES_AT + PLACES * _NUMBER_BYTES
_NOBODY: Final = bytes(PLACES * _NUMBER_BYTES)
_number = struct.Struct("<Q")
_all = struct.Struct(f"<{PLACES}Q")


class WaitingList:
    """One seat's view of the list in the door's file, and its own place there. Open it before anything else."""

    def __init__(self) -> None:
        self._door = -1
        self._owner = 0
        self._place: int | None = None
        self._is_on = False
        self._since = 0
        self._turn_at = 0
        self._passed_over = 0

    def open(self, door: int) -> None:
        """Use the list in this open file."""
        self._door = door
        self._owner = os.getpid() << 32 | threading.get_native_id() & 0xFFFFFFFF

    def close(self) -> None:
        """Give the place up, while the file is open still. A forked child leaves its parent's alone."""
        if self._owner >> 32 == os.getpid():
            self.give_up()
            self._write(_OWNERS_AT, 0)
        self._place = None

    def enter(self) -> None:
        """This seat waits; its wait counts from the first time that it says so."""
        self._since = self._since or ticks_ns()
        if self._place is None or self._read(_OWNERS_AT, self._place) != self._owner:
            self._place = self._free_place()
        self._write(_SINCES_AT, self._since)
        self._is_on = True

    def turn_has_come(self) -> None:
        """This seat has the door, and keeps it."""
        self.give_up()
        self._turn_at = ticks_ns()

    def give_up(self) -> None:
        """This seat does not wait any more."""
        self._since = 0
        self._strike_out()

    def somebody_is_before_me(self) -> bool:
        """Whether somebody has waited since before my last turn, and may still come."""
        return self._first_before_me() is not None

    def stand_back(self) -> None:
        """Leave the door, which was let go, to the one before me."""
        self.enter()
        for seconds in PATIENCE:
            block(seconds)
            if self._first_before_me() is None:
                return
        self._passed_over = self._first_before_me() or self._passed_over

    def _first_before_me(self) -> int | None:
        sinces = os.pread(self._door, len(_NOBODY), _SINCES_AT)
        if sinces == _NOBODY or len(sinces) < len(_NOBODY):
            return None
        since: int
        for place, since in enumerate(_all.unpack(sinces)):
            if self._passed_over < since < self._turn_at and place != self._place and self._is_alive(place):
                return since
        return None

    def _strike_out(self) -> None:
        if self._is_on:
            self._is_on = False
            self._write(_SINCES_AT, 0)

    def _free_place(self) -> int | None:
        """A place of nobody, or of a process that is gone. Two that take one at once only share a hint."""
        first = self._owner >> 32
        for place in sorted(range(PLACES), key=lambda place: (place - first) % PLACES):
            if not _exists(self._read(_OWNERS_AT, place)):
                self._place = place
                self._write(_OWNERS_AT, self._owner)
                return place
        return None

    def _is_alive(self, place: int) -> bool:
        if _exists(self._read(_OWNERS_AT, place)):
            return True
        with contextlib.suppress(OSError):
            os.pwrite(self._door, _number.pack(0), _SINCES_AT + place * _NUMBER_BYTES)
        return False

    def _read(self, at: int, place: int) -> int:
        found = os.pread(self._door, _NUMBER_BYTES, at + place * _NUMBER_BYTES)
        number: int = _number.unpack(found.ljust(_NUMBER_BYTES, b"\0"))[0]
        return number

    def _write(self, at: int, number: int) -> None:
        # A full disk is the database's to report, not ours.
        if self._place is not None:
            with contextlib.suppress(OSError):
                os.pwrite(self._door, _number.pack(number), at + self._place * _NUMBER_BYTES)


def _exists(owner: int) -> bool:
    """Whether the process is there, seen from this one; in another container it may seem gone, and loses its place."""
    if owner == 0:
        return False
    try:
        os.kill(owner >> 32, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True

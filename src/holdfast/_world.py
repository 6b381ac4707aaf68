"""The outside world: clock, ids, entropy. The only file that touches them.

Everything else receives a `World`, so that a test can put another one in its place and a run of the
whole engine becomes a function of its inputs. Instants are integer microseconds UTC.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Generator
from typing import Any, Protocol

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS = tuple(first + second for first in _ALPHABET for second in _ALPHABET)


class World(Protocol):
    """What the engine may know of the world around it."""

    def now_us(self) -> int:
        """The wall clock, in microseconds UTC. May jump in either direction."""
        ...

    def new_id(self) -> str:
        """A new id of 26 characters; ids of later milliseconds sort later."""
        ...

    def seed(self) -> int:
        """A fresh 63-bit number from the system's entropy."""
        ...

    def call_later(self, delay_us: int, callback: Callable[[], object]) -> Callable[[], None]:
        """Call back on the running event loop after `delay_us`; returns what cancels it."""
        ...


ENTROPY_BYTES = 4096


class SystemWorld:
    """The real one.

    Entropy is fetched in blocks, since a call of the system for every id is slow; a forked child fetches its own.
    """

    def __init__(self) -> None:
        self._entropy = b""
        self._used = 0
        self._process = 0
        self._instant = 0
        self._prefix = ""

    def now_us(self) -> int:
        return time.time_ns() // 1000

    def new_id(self) -> str:
        instant, entropy = time.time_ns() // 1_000_000, self._random_bytes(10)
        if instant != self._instant:
            self._instant, self._prefix = instant, _base32(instant, 50)
        high, low = int.from_bytes(entropy[:5], "big"), int.from_bytes(entropy[5:], "big")
        return self._prefix + _base32(high, 40) + _base32(low, 40)

    def seed(self) -> int:
        return int.from_bytes(self._random_bytes(8), "big") >> 1

    def call_later(self, delay_us: int, callback: Callable[[], object]) -> Callable[[], None]:
        return asyncio.get_running_loop().call_later(delay_us / 1_000_000, callback).cancel

    def _random_bytes(self, size: int) -> bytes:
        start, end = self._used, self._used + size
        if end > len(self._entropy) or self._process != os.getpid():
            self._entropy, self._process = os.urandom(ENTROPY_BYTES), os.getpid()
            start, end = 0, size
        self._used = end
        return self._entropy[start:end]


def _base32(number: int, bits: int) -> str:
    return "".join([_PAIRS[number >> shift & 1023] for shift in range(bits - 10, -1, -10)])


def ticks_ns() -> int:
    """Nanoseconds of a clock that never jumps and that all processes of a host share."""
    return time.monotonic_ns()


def block(seconds: float) -> Awaitable[None]:
    """Block the calling thread; the awaitable returned is done already."""
    time.sleep(seconds)
    return _Done()


class _Done:
    def __await__(self) -> Generator[Any, None, None]:
        yield from ()

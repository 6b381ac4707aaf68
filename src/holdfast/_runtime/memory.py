"""How much memory this process uses, and how much it may.

The bound is the user's, or 80 % of what the machine or its container has. Linux tells both in files that are cheap to
read; where a system does not tell (macOS), memory never counts as short and `runs_cached_max` is the only bound.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Final

SHARE: Final = 0.8
"""Of the memory there is, as long as the user sets no bound."""
_RESIDENT: Final = Path("/proc/self/statm")
_CONTAINER: Final = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


class Memory:
    """This process's memory against its bound.

    Args:
        bytes_max: the bound, or none for `SHARE` of what there is.
        resident: reads how many bytes are in use; none where the system does not tell.
    """

    def __init__(self, bytes_max: int | None = None, *, resident: Callable[[], int | None] | None = None) -> None:
        self.bytes_max = bytes_max if bytes_max is not None else int(available_bytes() * SHARE)
        self._resident = resident or resident_bytes

    def is_short(self) -> bool:
        """Whether more is in use than should be."""
        used = self._resident()
        return used is not None and used > self.bytes_max


def resident_bytes() -> int | None:
    """What this process has in memory, or none where the system does not tell."""
    try:
        return int(_RESIDENT.read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except FileNotFoundError:
        return None


@cache
def available_bytes() -> int:
    """What this process may have: the machine's memory, or its container's if that is less."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in _CONTAINER:
        try:
            text = path.read_text().strip()
        except OSError:  # not in such a container
            continue
        if text.isdigit():
            limits.append(int(text))
    return min(limits)

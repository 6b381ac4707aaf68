"""What is known of a copy of a database."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Backup:
    """A copy that is complete, verified and on the disk.

    Attributes:
        path: the file.
        size: its bytes.
        runs: how many runs it holds.
        entries: how many entries their histories have.
    """

    path: Path
    size: int
    runs: int
    entries: int

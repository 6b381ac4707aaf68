"""A run as it stands in the file."""

from __future__ import annotations

from typing import NamedTuple

ENDED = ("succeeded", "failed", "cancelled")


class Row(NamedTuple):
    """A run in the file."""

    number: int
    id: str
    workflow: str
    state: str
    worker: str | None
    output: str | None
    error: str | None
    generation: int
    request: str | None
    crashes: int
    reason: str | None
    started_at: int | None
    ended_at: int | None
    failed_at: int | None

    @property
    def ended(self) -> bool:
        """Whether it has its outcome."""
        return self.state in ENDED

"""What a check has found, counted: a million runs come to a handful of lines.

Runs of a workflow that leave their history at the same entry, in the same way, are one group; its first run is the
example that is shown. The number of groups is bounded: past it, runs are counted by their verdict alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from holdfast._model.runinfo import ErrorInfo
from holdfast._model.stored import StoredRun
from holdfast._runtime.replay import Standing, Verdict
from holdfast.cli.words import raised_at

GROUPS_MAX: Final = 20
EXAMPLES_MAX: Final = 3


@dataclass(slots=True)
class Group:
    """Runs of one workflow that stand alike.

    Attributes:
        example: how the first of them stands.
        runs: how many they are.
        ids: of the first few.
        blocked_now: how many of them are blocked in the database at present.
    """

    workflow: str
    example: Standing
    runs: int = 0
    ids: list[str] = field(default_factory=list)
    blocked_now: int = 0

    @property
    def verdict(self) -> Verdict:
        """That of all its runs."""
        return self.example.verdict


class Tally:
    """Groups by workflow, in the order in which they were first seen."""

    def __init__(self) -> None:
        self._groups: dict[str, dict[Any, Group]] = {}
        self.runs = 0

    def add(self, run: StoredRun, standing: Standing) -> None:
        """Count a run."""
        self.runs += 1
        groups = self._groups.setdefault(run.row.workflow, {})
        key = _key(standing)
        if key not in groups and len(groups) >= GROUPS_MAX:
            key = (standing.verdict, standing.ends)
            standing = Standing(verdict=standing.verdict, ends=standing.ends, hint=standing.hint)
        group = groups.setdefault(key, Group(run.row.workflow, standing))
        group.runs += 1
        group.blocked_now += run.state == "blocked"
        if len(group.ids) < EXAMPLES_MAX:
            group.ids.append(run.row.id)

    def groups(self) -> Iterator[Group]:
        """All of them: workflows by name, within each what goes on first, then the most frequent."""
        for _, groups in sorted(self._groups.items()):
            yield from sorted(groups.values(), key=lambda group: (group.verdict.is_fault, -group.runs))

    def count(self, *verdicts: Verdict) -> int:
        """How many runs have one of these verdicts."""
        return sum(group.runs for group in self.groups() if group.verdict in verdicts)

    @property
    def failing(self) -> int:
        """How many runs would go on only to fail at once."""
        return sum(group.runs for group in self.groups() if group.example.fails)

    @property
    def faults(self) -> int:
        """How many runs this code would harm."""
        return self.count(*(verdict for verdict in Verdict if verdict.is_fault))


def place_of(standing: Standing) -> str:
    """Where the code raised, such as ``shop.py:19 in checkout``; empty when it did not."""
    return raised_at(ErrorInfo(type="", message="", traceback=standing.traceback))


def _key(standing: Standing) -> tuple[Any, ...]:
    """What makes runs alike: verdict, end, entry and both sides without their arguments, or where the code raised."""
    raised = (standing.problem.partition(":")[0], place_of(standing)) if standing.traceback else ()
    sides = _call(standing.recorded), _call(standing.requested)
    return standing.verdict, standing.ends, standing.entry, *sides, raised


def _call(line: str) -> str:
    """A side without what differs from run to run: a call's arguments, an exception's message."""
    return ":".join(line.partition("(")[0].split(":")[:2])

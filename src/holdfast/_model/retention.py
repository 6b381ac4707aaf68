"""Retention: how long a run is kept after its end. A frozen value, no clock; and what pruning answers.

Only runs that have ended are ever pruned. One that is paused, blocked, parked or under way is kept whatever its age.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Final

from holdfast._model.bounds import shown
from holdfast._model.lifecycle import RunState
from holdfast.errors import UsageError

SHORTEST: Final = timedelta(seconds=1)
"""Below it, whoever waits in another process for a result might find the run gone."""
LONGEST: Final = timedelta(days=100 * 365)


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How long runs are kept after they have ended; then workers remove them with all their rows.

    A cancelled run is kept as long as a failed one: somebody stopped it, and may want to look, resume or retry.

    Args:
        succeeded, failed, cancelled: how long runs that ended so are kept, at least a second; none keeps them for ever.
        workflows: by workflow name, what holds instead of the three above: a whole retention of its own (what it does
            not say has the defaults of this class), or none to keep that workflow's runs for ever.

    Raises:
        UsageError: a duration is no timedelta or out of bounds, or `workflows` is no such mapping.
    """

    succeeded: timedelta | None = timedelta(days=7)
    failed: timedelta | None = timedelta(days=30)
    cancelled: timedelta | None = timedelta(days=30)
    workflows: Mapping[str, Retention | None] = field(default_factory=dict[str, "Retention | None"])

    def __post_init__(self) -> None:
        for name in ("succeeded", "failed", "cancelled"):
            _check_age(name, getattr(self, name))
        _check_workflows(self.workflows)
        object.__setattr__(self, "workflows", MappingProxyType(dict(self.workflows)))

    def age(self, workflow: str, state: str) -> timedelta | None:
        """How long runs of this workflow that ended in this state are kept; none for ever."""
        own = self.workflows.get(workflow, self)
        return None if own is None else own._age_of(RunState(state))

    @property
    def shortest(self) -> timedelta | None:
        """The shortest of all its durations; none where everything is kept for ever."""
        own = [value for value in self.workflows.values() if value is not None]
        ages = [age for value in (self, *own) for age in (value.succeeded, value.failed, value.cancelled)]
        return min((age for age in ages if age is not None), default=None)

    def _age_of(self, state: RunState) -> timedelta | None:
        match state:
            case RunState.SUCCEEDED:
                return self.succeeded
            case RunState.FAILED:
                return self.failed
            case RunState.CANCELLED:
                return self.cancelled
            case _:
                return None


@dataclass(frozen=True, slots=True, kw_only=True)
class PrunedGroup:
    """What was pruned of one workflow, in one state.

    Attributes:
        workflow: the workflow's name.
        state: how its runs had ended.
        runs: how many were removed, or would be.
        oldest: when the first of them had ended.
    """

    workflow: str
    state: RunState
    runs: int
    oldest: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """What a call of `prune` has removed so far, or in a dry run would remove.

    Attributes:
        runs: runs removed.
        entries: entries of their histories.
        bytes_freed: by how much the database has shrunk. Further space stays in the file and is used again.
        groups: the runs by workflow and state.
        dry_run: whether nothing was removed.
    """

    runs: int = 0
    entries: int = 0
    bytes_freed: int = 0
    groups: tuple[PrunedGroup, ...] = ()
    dry_run: bool = False


def _check_age(name: str, value: object) -> None:
    if value is not None and (not isinstance(value, timedelta) or not SHORTEST <= value <= LONGEST):
        raise UsageError(
            f"Retention({name}={shown(value)}) must be a timedelta from one second to 100 years, or None",
            hint="for example timedelta(days=7); None keeps these runs for ever",
        )


def _check_workflows(value: object) -> None:
    if not isinstance(value, Mapping):
        raise UsageError(f"Retention(workflows={shown(value)}) must be a mapping of workflow names")
    for name, own in value.items():
        if not isinstance(name, str):
            raise UsageError(f"Retention(workflows=...): {shown(name)} must be a workflow's name")
        if own is not None and not isinstance(own, Retention):
            raise UsageError(
                f"Retention(workflows={{{shown(name)}: {shown(own)}}}) must be a Retention, or None for ever",
                hint="for example Retention(succeeded=timedelta(days=365))",
            )
        if own is not None and own.workflows:
            raise UsageError(
                f"Retention(workflows={{{shown(name)}: ...}}) has workflows of its own, which mean nothing",
                hint="leave them out there",
            )

"""Judging stored runs: each replayed against the app's code, within a bound of time."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

from holdfast import Holdfast, Workflow
from holdfast._model.stored import StoredRun
from holdfast._runtime.replay import Standing, Verdict, against_outcome, replay
from holdfast.cli.check.limit import Limit, TooLong

STUCK_MAX: Final = 5
"""So many runs of a workflow may take all the time that they are given; the others of it are not tried."""


class Judge:
    """Replays runs against an app's workflows.

    Args:
        limit: entered by the caller.
        seconds: what `limit` allows, for its message.
    """

    def __init__(self, app: Holdfast, limit: Limit, *, seconds: float) -> None:
        self._workflows: dict[str, Workflow[..., Any]] = app._known
        self._limit = limit
        self._seconds = seconds
        self._stuck: Counter[str] = Counter()

    def judge(self, run: StoredRun) -> Standing:
        """How the run would stand. Code that does not end in time is a verdict, not an error."""
        workflow = self._workflows.get(run.row.workflow)
        if workflow is None:
            return Standing(
                verdict=Verdict.UNKNOWN,
                problem="no workflow of this name is in the app",
                hint="its runs wait until a worker knows it",
            )
        if self._stuck[workflow.name] >= STUCK_MAX:
            return Standing(verdict=Verdict.NOT_TRIED, problem=f"{STUCK_MAX} runs of this workflow do not end")
        try:
            with self._limit.over(f"run {run.row.id} of workflow {run.row.workflow}"):
                standing = replay(run.row, workflow, run.history)
        except TooLong:
            self._stuck[workflow.name] += 1
            return Standing(
                verdict=Verdict.STUCK,
                problem=f"its replay has not ended after {self._seconds:g} s",
                hint="look for a loop without an await, or for a blocking call; --seconds allows more",
            )
        return against_outcome(standing, state=run.state, output=run.output)

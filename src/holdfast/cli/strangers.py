"""Ready runs that are not taken at once, and why: what the commands say of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final

from holdfast import Client, RunInfo, RunState, WorkerInfo
from holdfast._model.lifecycle import SUSPECT_AFTER
from holdfast.cli.words import now

UNKNOWN: Final = "no worker knows this workflow"
NOBODY: Final = "no worker is alive"
START_ONE: Final = "`holdfast worker MOD:APP` starts one"
SUSPECTS: Final[dict[str, Any]] = {"where": f"crashes:>={SUSPECT_AFTER}", "state": ("ready", "running")}
"""As conditions of a listing: runs that took their process down again and again, and that are tried alone."""


async def waits_because(client: Client, runs: Iterable[RunInfo]) -> dict[str, str]:
    """By id, why runs are not taken like others; mostly there is nothing to say, and nothing is looked up."""
    ready = [run for run in runs if run.state is RunState.READY]
    known = known_by(await client.workers(), now()) if ready else None
    reasons = {run.id: reason_of(run.workflow, known) for run in ready}
    return {run.id: reason for run in runs if (reason := reasons.get(run.id) or suspicion(run))}


def known_by(workers: Iterable[WorkerInfo], seen: datetime) -> set[str] | None:
    """Every workflow that a live worker knows; none when there is no live worker."""
    live = [worker for worker in workers if worker.state == "live" and worker.lease_until > seen]
    return {workflow for worker in live for workflow in worker.workflows} if live else None


def reason_of(workflow: str, known: set[str] | None) -> str:
    """Why nobody takes runs of this workflow, or nothing."""
    if known is None:
        return NOBODY
    return "" if workflow in known else UNKNOWN


def suspicion(run: RunInfo) -> str:
    """What is to be said of a run that workers take one at a time, beside their other work, or nothing."""
    if run.crashes < SUSPECT_AFTER or run.state not in {RunState.READY, RunState.RUNNING}:
        return ""
    done = "is tried alone" if run.state is RunState.RUNNING else "will be tried alone"
    return f"its process has died with it {run.crashes} times in a row; {done}"


async def suspects(client: Client, *, limit: int) -> Sequence[RunInfo]:
    """Runs of which `suspicion` has something to say, newest first."""
    return await client.list(limit=limit, **SUSPECTS)

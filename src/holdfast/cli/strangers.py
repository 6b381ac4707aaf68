"""Ready runs that are not taken at once, and why: what the commands say of them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from holdfast import Client, RunInfo, RunState, WorkerInfo
from holdfast._model.lifecycle import SUSPECT_AFTER
from holdfast.cli.words import now

UNKNOWN = "no worker knows this workflow"
NOBODY = "no worker is alive"
SUSPECT = "to be tried alone, since its workers died with it"


async def waits_because(client: Client, runs: Iterable[RunInfo]) -> dict[str, str]:
    """For each workflow of those runs that are ready and that nobody will take: why. Mostly nothing is looked up."""
    ready = {run.workflow for run in runs if run.state is RunState.READY}
    if not ready:
        return {}
    known = known_by(await client.workers(), now())
    return {workflow: reason for workflow in ready if (reason := reason_of(workflow, known))}


def known_by(workers: Iterable[WorkerInfo], seen: datetime) -> set[str] | None:
    """Every workflow that a live worker knows; none when there is no live worker."""
    live = [worker for worker in workers if worker.state == "live" and worker.lease_until > seen]
    return {workflow for worker in live for workflow in worker.workflows} if live else None


def reason_of(workflow: str, known: set[str] | None) -> str:
    """Why nobody takes runs of this workflow, or nothing."""
    if known is None:
        return NOBODY
    return "" if workflow in known else UNKNOWN


def is_suspect(run: RunInfo) -> bool:
    """Whether workers take this run one at a time, beside their other work."""
    return run.state is RunState.READY and run.crashes >= SUSPECT_AFTER

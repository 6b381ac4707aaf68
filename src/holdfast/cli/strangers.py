"""Runs that nobody takes or goes on with at once, and why: what the commands say of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from holdfast import Client, RunInfo, RunState, WorkerInfo
from holdfast._model.lifecycle import SUSPECT_AFTER
from holdfast.cli.words import now
from holdfast.errors import StoreUnavailable

UNKNOWN: Final = "no worker knows this workflow"
NOBODY: Final = "no worker is alive"
START_ONE: Final = "`holdfast worker MOD:APP` starts one"
SUSPECTS: Final[dict[str, Any]] = {"where": f"crashes:>={SUSPECT_AFTER}", "state": ("ready", "running")}
"""As conditions of a listing: runs that took their process down again and again, and that are tried alone."""


async def waits_because(client: Client, runs: Iterable[RunInfo]) -> dict[str, str]:
    """By id, why runs are not taken like others; mostly there is nothing to say, and nothing is looked up."""
    open_runs = [run for run in runs if run.state in {RunState.READY, RunState.RUNNING}]
    known = known_by(await workers_seen(client), now()) if open_runs else None
    reasons = {
        run.id: reason_of(run.workflow, known) for run in open_runs if run.state is RunState.READY or known is None
    }
    return {run.id: reason for run in runs if (reason := reasons.get(run.id) or suspicion(run))}


async def workers_seen(client: Client, *, gone: bool = False) -> tuple[WorkerInfo, ...]:
    """The workers; one whose process is gone is `dead`, though its row says `live` until somebody buries it."""
    dead = await unburied(client)
    return tuple(replace(w, state="dead") if w.id in dead else w for w in await client.workers(gone=gone))


async def unburied(client: Client) -> frozenset[str]:
    """Workers whose process is gone and whom nobody has buried yet; none when that cannot be seen."""
    try:
        return frozenset(await client._engine.store.dead_workers(now=0))  # 0: a lapsed lease alone is not a death
    except StoreUnavailable:
        return frozenset()


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

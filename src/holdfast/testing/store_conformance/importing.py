"""Runs out of files: all of them or none, and nothing executes by surprise."""

from __future__ import annotations

from holdfast._model.lifecycle import ENDED
from holdfast._model.records import Imported, RunsImported
from holdfast.testing.store_conformance.bench import FAR, Bench, Check, S, expect, exported, having


async def ended_runs_keep_their_state_and_others_are_paused(bench: Bench) -> None:
    """Whatever state the file says: no worker claims a run that was only imported."""
    runs = tuple(exported(state.value, state) for state in S)
    answer: Imported = await bench.submit(RunsImported(runs, resume=False, now=20))
    wanted = tuple(state if state in ENDED else S.PAUSED for state in S)
    expect(answer, Imported(None, "", wanted), "the answer")
    expect(await bench.states(*(state.value for state in S)), list(wanted), "the states")
    expect(await bench.claim(now=FAR), [], "what can be claimed")
    expect(await bench.store.count_runs(having(("k", 1))), len(runs), "their attributes")
    number = (await bench.row("paused")).number
    expect([e.name for e in await bench.entries(number)], ["work"], "their histories")


async def resumed_runs_go_on_when_they_are_due(bench: Bench) -> None:
    """A run that had not begun keeps its instant."""
    runs = (exported("a", S.WAITING, started_at=2), exported("b", S.SCHEDULED, due_at=FAR), exported("c", S.FAILED))
    answer: Imported = await bench.submit(RunsImported(runs, resume=True, now=20))
    expect(answer.states, (S.READY, S.SCHEDULED, S.FAILED), "the states")
    (row,) = await bench.claim(now=30)
    expect((row.id, row.seed, row.has_history), ("a", 7, True), "the run that goes on")


async def an_obstacle_to_one_run_keeps_all_out(bench: Bench) -> None:
    """An id that is taken, or a column that is not there."""
    await bench.start("b")
    for runs, wanted in (
        ((exported("a"), exported("b")), Imported("id-taken", "b", ())),
        ((exported("a"), exported("c", flavour="x")), Imported("unknown-column", "holdfast_runs.flavour", ())),
    ):
        expect(await bench.submit(RunsImported(runs, resume=True, now=20)), wanted, "the answer")
        expect(await bench.store.detail("a"), None, "the other run")
    await bench.refused(RunsImported((exported("a"), exported("d", priority="high")), resume=True, now=20))
    expect(await bench.store.detail("a"), None, "the other run, after a value of the wrong type")


CHECKS: tuple[Check, ...] = (
    ended_runs_keep_their_state_and_others_are_paused,
    resumed_runs_go_on_when_they_are_due,
    an_obstacle_to_one_run_keeps_all_out,
)

"""Going back: retry, resume, forks, generations."""

from __future__ import annotations

from holdfast._model.records import (
    Forked,
    PauseRequested,
    Requested,
    ResumeRequested,
    RetryRequested,
    RunContinued,
    RunForked,
    RunParked,
)
from holdfast.testing.store_conformance.bench import WORKER, Bench, Check, S, blocked, ended, entry, expect, having


async def retry_drops_the_failure_and_what_followed(bench: Bench) -> None:
    """Finished steps stay; the failed one, and what was called after it was seen, go; pending ones are open again."""
    number = await bench.start("a", timeout_us=50, deadline_at=52)
    await bench.submit(
        entry(number, 1, 1),
        entry(number, 2, 2, state="failed", error='"x"', output=None, after=1),
        entry(number, 3, 3, after=1),
        entry(number, 4, 4, after=2),
        entry(number, 5, None, after=1),
        ended(number, S.FAILED, failed_at=2),
    )
    expect([e.state for e in await bench.entries(number)][4], "cancelled", "what was pending at the end is closed")
    answer: Requested = await bench.submit(RetryRequested("a", 1000))
    expect((answer.before, answer.after), (S.FAILED, S.READY), "the answer")
    kept = await bench.entries(number)
    expect([(e.seq, e.state) for e in kept], [(1, "succeeded"), (3, "succeeded"), (5, "pending")], "what is kept")
    row = await bench.row("a")
    expect((row.error, row.ended_at, row.deadline_at), (None, None, 1050), "error, end, and a deadline anew")
    await bench.submit(ended((await bench.claim())[0].number))
    done: Requested = await bench.submit(RetryRequested("a", 2000))
    expect((done.before, done.after), (S.SUCCEEDED, S.SUCCEEDED), "a run that succeeded is left alone")


async def resume_of_a_cancelled_run_forgets_the_cancellation(bench: Bench) -> None:
    """And the clean-up that it led to, not the steps before it."""
    number = await bench.start("a")
    cancel = entry(number, -1, 2, kind="cancel", name="cancel", input=None, output=None)
    await bench.submit(entry(number, 1, 1), cancel, entry(number, 2, 3, after=2), ended(number, S.CANCELLED))
    await bench.submit(ResumeRequested("a", 20))
    expect([e.seq for e in await bench.entries(number)], [1], "what is kept")
    expect((await bench.row("a")).state, S.READY, "the state")


async def a_paused_schedule_waits_on_after_resume(bench: Bench) -> None:
    """Pausing a scheduled run does not bring its instant forward."""
    await bench.start("a", S.SCHEDULED, due_at=500)
    expect((await bench.submit(PauseRequested("a", 5))).after, S.PAUSED, "paused")
    expect(await bench.store.next_due(), None, "nothing is due while it is paused")
    expect((await bench.submit(ResumeRequested("a", 6))).after, S.SCHEDULED, "resumed early")
    await bench.submit(PauseRequested("a", 7))
    expect((await bench.submit(ResumeRequested("a", 600))).after, S.READY, "resumed late")


async def a_deadline_that_has_passed_begins_anew(bench: Bench) -> None:
    """For whoever lets the run go on by hand: it would die at once. A deadline that is ahead stands."""
    for run_id, request, now, deadline in (
        ("blocked, retried late", RetryRequested, 60, 110),
        ("blocked, resumed late", ResumeRequested, 60, 110),
        ("blocked, retried in time", RetryRequested, 40, 52),
        ("paused, resumed late", ResumeRequested, 60, 110),
        ("paused, resumed in time", ResumeRequested, 40, 52),
    ):
        number = await bench.start(run_id, timeout_us=50, deadline_at=52)
        if run_id.startswith("blocked"):
            await bench.submit(blocked(number))
        else:
            await bench.submit(PauseRequested(run_id, 3), RunParked(number, WORKER, None))
            await bench.submit(PauseRequested(run_id, 4))
        await bench.submit(request(run_id, now))
        row = await bench.row(run_id)
        expect((row.state, row.deadline_at), (S.READY, deadline), run_id)
    await bench.start("not begun", S.READY, timeout_us=50)
    await bench.submit(PauseRequested("not begun", 3), ResumeRequested("not begun", 900))
    expect((await bench.row("not begun")).deadline_at, None, "it starts with the first claim")


async def a_fork_keeps_what_came_before(bench: Bench) -> None:
    """Entries before the fork are copied with their order, the rest is not, and the source is untouched."""
    number = await bench.start("a", pairs=(("k", 1),), attributes='{"k":1}', priority=3, seed=42)
    history = [entry(number, i, i) for i in (1, 2, 3)]
    await bench.submit(*history, ended(number))
    expect(await bench.submit(RunForked("a", "f", 3, None, None, 5, 20)), Forked(None), "the fork")
    row = await bench.row("f")
    expect((row.state, row.forked_from, row.priority, row.input), (S.READY, "a", 3, '{"x":1}'), "its row")
    copied = await bench.entries(row.number)
    expect(copied, [e._replace(run=row.number) for e in history[:2]], "its history")
    expect(await bench.store.count_runs(having(("k", 1))), 2, "its attributes")
    await bench.submit(RunForked("a", "g", 2, '{"x":9}', '"edited"', 5, 20))
    row = await bench.row("g")
    expect([e.output for e in await bench.entries(row.number)], ["1", '"edited"'], "an edited result")
    expect(row.input, '{"x":9}', "edited arguments")
    seeds = {r.id: r.seed for r in await bench.claim()}
    expect(seeds, {"f": 42, "g": 42}, "what is kept goes on with the same random numbers")
    await bench.submit(RunForked("a", "fresh", 1, None, None, 5, 20))
    expect(
        [(r.id, r.seed, r.has_history) for r in await bench.claim()], [("fresh", 5, False)], "a fork at the beginning"
    )
    problems = [
        await bench.submit(RunForked(*names, None, None, 5, 20))
        for names in (("no", "h", 1), ("a", "f", 1), ("a", "h", 9))
    ]
    expect([answer.problem for answer in problems], ["no-source", "id-taken", "no-entry"], "what stands in the way")
    expect(await bench.entries(number), history, "the source")


async def a_new_generation_begins_empty(bench: Bench) -> None:
    """`continue_as_new`: the same run with new input, no history, and the deadline of the first."""
    number = await bench.start("a", timeout_us=90, deadline_at=92)
    await bench.submit(entry(number, 1, 1), RunContinued(number, WORKER, '{"x":2}', 99))
    (row,) = await bench.claim(now=10)
    expect((row.number, row.input, row.seed, row.generation), (number, '{"x":2}', 99, 1), "the next generation")
    expect((row.has_history, row.deadline_at), (False, 92), "history and deadline")


CHECKS: tuple[Check, ...] = (
    retry_drops_the_failure_and_what_followed,
    resume_of_a_cancelled_run_forgets_the_cancellation,
    a_paused_schedule_waits_on_after_resume,
    a_deadline_that_has_passed_begins_anew,
    a_fork_keeps_what_came_before,
    a_new_generation_begins_empty,
)

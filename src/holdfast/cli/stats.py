"""`holdfast stats`: counts of runs, how it went for those that ended lately, and the workers."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any, Final, NamedTuple

import click
from rich.text import Text

from holdfast import Client, EndedStats, RunInfo, RunState, Stats
from holdfast._model.runinfo import StateCount
from holdfast._rows import worker_of
from holdfast._stats import SAMPLE_MAX
from holdfast.cli.answers import write_json
from holdfast.cli.grid import grid
from holdfast.cli.harmless import one_line
from holdfast.cli.opening import with_client
from holdfast.cli.settings import Settings, pass_settings, shared_options
from holdfast.cli.strangers import NOBODY, START_ONE, UNKNOWN, known_by, reason_of, suspects, suspicion, unburied
from holdfast.cli.values import Duration
from holdfast.cli.watching import watch
from holdfast.cli.words import STYLES, age, duration, now, state_text
from holdfast.cli.workers import lease_text

SUSPECTS_MAX: Final = 5
"""Suspects that are named; mostly there is none."""


@click.command()
@click.option(
    "--window", type=Duration(), default="1h", show_default=True, help="How far back to look at runs that ended."
)
@click.option("-w", "--watch", "watched", is_flag=True, help="Look again every half second, until Ctrl-C.")
@shared_options
@pass_settings
def stats(settings: Settings, window: float, watched: bool) -> None:
    """Count runs by workflow and state, tell how it went for those that ended lately, and show the workers."""

    def draw(seen: Seen) -> Text:
        return _draw(seen, settings.out.width)

    def write(seen: Seen) -> None:
        if settings.is_json:
            write_json(settings, _value(seen))
        else:
            settings.out.print(draw(seen), soft_wrap=True)

    async def work(client: Client) -> None:
        async def look() -> Seen:
            seen, dead = await client.stats(window=window), await unburied(client)
            rows = tuple(row._replace(state="dead") if row.id in dead else row for row in seen.workers)
            return Seen(replace(seen, workers=rows), tuple(await suspects(client, limit=SUSPECTS_MAX)))

        if watched:
            await watch(settings, look=look, draw=draw, write=write)
        else:
            write(await look())

    with_client(settings, work)


class Seen(NamedTuple):
    """The statistics, and the newest runs with which their processes have died."""

    stats: Stats
    suspects: tuple[RunInfo, ...]


def _value(looked: Seen) -> dict[str, Any]:
    seen = looked.stats
    workers = [
        {**row._asdict(), "started_at": worker.started_at, "lease_until": worker.lease_until}
        for row, worker in zip(seen.workers, map(worker_of, seen.workers), strict=True)
    ]
    return {
        "runs": [row._asdict() for row in seen.runs],
        "window_seconds": seen.window.total_seconds(),
        "ended": [_ended_value(row) for row in seen.ended],
        "workers": workers,
        "waiting": [{"workflow": row.workflow, "runs": row.runs, "reason": reason} for row, reason in _untaken(seen)],
        "suspects": [
            {"id": run.id, "workflow": run.workflow, "state": run.state, "crashes": run.crashes}
            for run in looked.suspects
        ],
    }


def _ended_value(row: EndedStats) -> dict[str, Any]:
    """Durations are seconds."""
    return {
        "workflow": row.workflow,
        "ended": row.ended,
        "succeeded": row.succeeded,
        "failed": row.failed,
        "cancelled": row.cancelled,
        "per_second": row.per_second,
        "failed_share": row.failed_share,
        "sampled": row.sampled,
        "average": _seconds(row.average),
        "p50": _seconds(row.p50),
        "p95": _seconds(row.p95),
    }


def _seconds(length: timedelta | None) -> float | None:
    return None if length is None else length.total_seconds()


def _draw(looked: Seen, width: int) -> Text:
    seen = looked.stats
    runs = _runs(seen) if seen.runs else Text("no runs", style="dim")
    if max(map(len, runs.plain.splitlines())) > width:
        runs = _runs_as_list(seen)
    return Text("\n\n").join([runs, _lately(seen, width), _workers(seen), *_notes(looked)])


def _notes(looked: Seen) -> list[Text]:
    """What a person should look at."""
    notes = [
        f"{one_line(row.workflow)}: {row.runs:,} ready, {why}" for row, why in _untaken(looked.stats) if why == UNKNOWN
    ]
    notes += [f"{one_line(run.id)} ({one_line(run.workflow)}): {suspicion(run)}" for run in looked.suspects]
    return [Text("\n").join([Text(note, style="yellow") for note in notes])] if notes else []


def _untaken(seen: Stats) -> list[tuple[StateCount, str]]:
    """Workflows with ready runs that nobody will take, and why."""
    known = known_by(map(worker_of, seen.workers), now())
    ready = [row for row in seen.runs if row.state == "ready"]
    return [(row, reason) for row in ready if (reason := reason_of(row.workflow, known))]


def _lately(seen: Stats, width: int) -> Text:
    """How it went for the runs that ended within the window."""
    head = f"ended within the last {_span(seen.window)}"
    if not seen.ended:
        return Text(f"no run has {head}", style="dim")
    captions = ("workflow", "ended", "per minute", "failed", "", "average", "p50", "p95")
    rows = [_ended_row(row) for row in seen.ended]
    table = grid(captions, rows, right=set(captions[1:]))
    if max(map(len, table.plain.splitlines())) > width:
        kept = [0, 1, 3, 7]  # for narrow terminals
        table = grid([captions[at] for at in kept], [[row[at] for at in kept] for row in rows], right=set(captions[1:]))
    lines = [Text(head, style="dim"), table]
    if any(row.sampled < row.succeeded + row.failed for row in seen.ended):
        lines.append(Text(f"durations are of the latest {SAMPLE_MAX:,} runs of each workflow", style="dim"))
    return Text("\n").join(lines)


def _ended_row(row: EndedStats) -> list[Text]:
    share = Text(f"{row.failed_share:.1%}", style="red") if row.failed else Text("")
    lengths = [Text("·", style="dim") if length is None else Text(duration(length)) for length in _lengths(row)]
    return [
        Text(row.workflow),
        Text(f"{row.ended:,}"),
        Text(_rate(row.per_second * 60)),
        _count(row.failed, "failed"),
        share,
        *lengths,
    ]


def _lengths(row: EndedStats) -> tuple[timedelta | None, ...]:
    return row.average, row.p50, row.p95


def _rate(per_minute: float) -> str:
    return f"{per_minute:,.0f}" if per_minute >= 100 else f"{per_minute:.2g}"


def _span(window: timedelta) -> str:
    """A window in its largest unit, or as a duration."""
    seconds = window.total_seconds()
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")):
        if seconds >= size and seconds % size == 0:
            return f"{int(seconds // size)} {unit}"
    return duration(window)


def _runs(seen: Stats) -> Text:
    """One row for each workflow, one column for each state that occurs."""
    counts = {(row.workflow, row.state): row.runs for row in seen.runs}
    workflows = sorted({workflow for workflow, _ in counts})
    states = [state.value for state in RunState if any(key[1] == state for key in counts)]
    rows = [
        _row(Text(workflow), [counts.get((workflow, state), 0) for state in states], states) for workflow in workflows
    ]
    if len(workflows) > 1:
        rows.append(_row(Text("all", style="dim"), [seen.count(state) for state in states], states))
    return grid(("workflow", *states, "all"), rows, right={*states, "all"})


def _runs_as_list(seen: Stats) -> Text:
    """One row for each workflow and state, for narrow terminals."""
    rows = [
        [Text(row.workflow), state_text(row.state), Text(f"{row.runs:,}")]
        for row in sorted(seen.runs, key=lambda row: row.workflow)
    ]
    return grid(("workflow", "state", "runs"), rows, right={"runs"})


def _row(name: Text, counts: list[int], states: list[str]) -> list[Text]:
    return [name, *map(_count, counts, states), Text(f"{sum(counts):,}")]


def _workers(seen: Stats) -> Text:
    live = [worker_of(row) for row in seen.workers if row.state == "live"]
    if not live:
        waiting = seen.count("ready") + sum(row.runs for row in seen.workers)  # what dead ones hold, too
        waits = f", and {waiting:,} {'run waits' if waiting == 1 else 'runs wait'} for one: {START_ONE}"
        return Text(f"{NOBODY}{waits}", style="yellow") if waiting else Text(NOBODY, style="dim")
    instant = now()
    rows = [
        [
            *map(Text, (row.id, row.host, str(row.pid), age(instant - row.started_at))),
            lease_text((row.lease_until - instant).total_seconds()),
        ]
        for row in live
    ]
    return grid(("worker", "host", "pid", "up for", "lease"), rows, right={"pid", "up for", "lease"})


def _count(runs: int, state: str) -> Text:
    return Text(f"{runs:,}", style=STYLES[state]) if runs else Text("·", style="dim")

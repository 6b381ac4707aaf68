"""`holdfast check`: what would become of every unfinished run under the code at hand, and what in it cannot replay."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click
from rich.status import Status
from rich.text import Text

from holdfast import Holdfast
from holdfast._looking import nothing_opens
from holdfast._runtime.replay import Verdict
from holdfast._store.readonly import ReadOnlyDatabase
from holdfast._store.uri import parse
from holdfast.cli.answers import write_json, write_list
from holdfast.cli.check.drawing import draw
from holdfast.cli.check.judge import Judge
from holdfast.cli.check.limit import Limit
from holdfast.cli.check.stored import numbers, pages
from holdfast.cli.check.tally import Tally
from holdfast.cli.check.values import finding_value, group_value
from holdfast.cli.loading import load_app
from holdfast.cli.opening import existing, point_to
from holdfast.cli.settings import Settings, pass_settings, shared_options
from holdfast.cli.source import drawing as source_drawing
from holdfast.cli.source.findings import Finding
from holdfast.cli.source.walk import read_workflows
from holdfast.cli.unknown import hint_for
from holdfast.cli.values import Duration
from holdfast.errors import UsageError

SECONDS: Final = 5.0
"""How long the replay of one run may take; a history of 10,000 entries takes a tenth of a second."""

RATE_SECONDS: Final = 1.0
"""From when on a rate means something."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the command line asked for."""

    workflow: str | None
    limit: int | None
    seconds: float
    strict: bool


@dataclass(frozen=True, slots=True)
class Report:
    """What came out."""

    database: Path | None
    tally: Tally
    findings: list[Finding]
    taken: float

    def passes(self, *, strict: bool) -> bool:
        """Whether this code may be deployed."""
        doubts = bool(self.findings) or self.tally.count(Verdict.UNKNOWN) or self.tally.failing
        return not self.tally.faults and not (strict and doubts)


@click.command()
@click.argument("target", metavar="MOD:APP")
@click.option("--workflow", metavar="NAME", help="Only runs and code of this workflow.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="At most so many runs, the oldest first.")
@click.option(
    "--seconds", type=Duration(), default=SECONDS, metavar="DURATION", help="How long one replay may take. Default: 5s."
)
@click.option("--strict", is_flag=True, help="Warnings, unknown workflows and runs that would fail count, too.")
@click.option("--source-only", is_flag=True, help="Only read the source; no database is needed.")
@shared_options
@pass_settings
def check(
    settings: Settings,
    target: str,
    workflow: str | None,
    limit: int | None,
    seconds: float,
    strict: bool,
    source_only: bool,
) -> int:
    """Replay every unfinished run against the code of MOD:APP, before it is deployed.

    Nothing is executed and nothing is written: no step, no timer; the database is opened read-only, and workers may
    be working on it. Also reads the source of the workflows and points at what cannot replay; a line that says
    `# holdfast: ok` is left alone.

    Ends with 1 if a run would be blocked or would fail.
    """
    with nothing_opens("checked"):
        app = load_app(target)
        if settings.db is not None:
            point_to(app, settings.db)
        wanted = Wanted(workflow, limit, max(seconds, 0.01), strict)
        report = _checked(settings, app, wanted, source_only=source_only)
    passes = report.passes(strict=strict)
    if settings.is_json:
        _write(settings, report, passes)
    else:
        _show(settings, report)
    return 0 if passes else 1


def _checked(settings: Settings, app: Holdfast, wanted: Wanted, *, source_only: bool) -> Report:
    workflows = [known for name, known in sorted(app._known.items()) if wanted.workflow in (None, name)]
    findings = read_workflows(workflows)
    tally, began = Tally(), time.perf_counter()
    if source_only:
        _refuse_unknown(app, wanted)
        return Report(None, tally, findings, 0.0)
    with ReadOnlyDatabase(existing(parse(app.uri))) as database:
        _replay_all(settings, database, app, wanted, tally)
        if not tally.runs:
            _refuse_unknown(app, wanted)
        return Report(database.path, tally, findings, time.perf_counter() - began)


def _refuse_unknown(app: Holdfast, wanted: Wanted) -> None:
    """Nothing was checked, and the name is a slip: an answer without faults would let the deployment go on."""
    name = wanted.workflow
    if name is not None and name not in app._known:
        raise UsageError(
            f"nothing was checked: neither the app nor an unfinished run has a workflow {name!r}",
            hint=hint_for(name, set(app._known)),
        )


def _replay_all(settings: Settings, database: ReadOnlyDatabase, app: Holdfast, wanted: Wanted, tally: Tally) -> None:
    keys = numbers(database)
    total = min(len(keys), wanted.limit or len(keys))
    with Limit(wanted.seconds) as limit, _progress(settings) as progress:
        judge = Judge(app, limit, seconds=wanted.seconds)
        looked = 0
        for page in pages(database, keys, workflow=wanted.workflow):
            for run in page:
                looked += 1
                if run is not None:
                    tally.add(run, judge.judge(run))
                    if tally.runs == wanted.limit:
                        return
            if isinstance(progress, Status):
                progress.update(_told(looked, total, tally))


def _told(looked: int, total: int, tally: Tally) -> str:
    told = f"replayed {looked:,} of {total:,} runs"
    return f"{told}; {tally.faults:,} would not go on" if tally.faults else told


def _progress(settings: Settings) -> AbstractContextManager[object]:
    if not settings.err.is_terminal or settings.is_json:
        return nullcontext()
    return settings.err.status("reading", spinner="dots", spinner_style="cyan")


def _show(settings: Settings, report: Report) -> None:
    groups = list(report.tally.groups())
    if report.findings:
        settings.out.print(source_drawing.draw(report.findings), soft_wrap=True)
        settings.out.print()
    if groups:
        settings.out.print(draw(groups, width=settings.out.width), soft_wrap=True)
        settings.out.print()
    settings.out.print(_summary(report), soft_wrap=True)


def _summary(report: Report) -> Text:
    tally, warnings = report.tally, len(report.findings)
    parts: list[Text] = []
    if report.database is not None:
        rate = f" ({tally.runs / report.taken:,.0f} runs/s)" if report.taken >= RATE_SECONDS else ""
        place = f"{report.taken:.1f} s{rate}" if tally.runs else f"{report.database}"  # it may be the wrong one
        parts.append(Text(f"{_count(tally.runs, 'unfinished run')} in {place}"))
        parts.append(
            Text(f"{tally.faults:,} would not go on", style="bold red")
            if tally.faults
            else Text("none would be blocked", style="green")
        )
        if failing := tally.failing:
            parts.append(Text(f"{failing:,} would fail at once", style="yellow"))
        if unknown := tally.count(Verdict.UNKNOWN):
            parts.append(Text(f"{unknown:,} unknown here", style="yellow"))
    parts.append(Text(_count(warnings, "warning"), style="yellow") if warnings else Text("no warnings", style="green"))
    return Text(", ").join(parts)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _write(settings: Settings, report: Report, passes: bool) -> None:
    groups = [group_value(group) for group in report.tally.groups()]
    findings = [finding_value(finding) for finding in report.findings]
    if settings.output == "jsonl":
        write_list(settings, [*groups, *findings])
        return
    value: dict[str, Any] = {
        "database": None if report.database is None else str(report.database),
        "ok": passes,
        "runs": report.tally.runs,
        "would_not_go_on": report.tally.faults,
        "seconds": round(report.taken, 3),
        "verdicts": groups,
        "findings": findings,
    }
    write_json(settings, value)

"""`holdfast replay`: exported runs against the code at hand."""

from __future__ import annotations

from typing import Final

import click
from rich.text import Text

from holdfast._looking import nothing_opens
from holdfast._model.stored import StoredRun, of_export
from holdfast._runtime.replay import Standing
from holdfast.cli.answers import write_list
from holdfast.cli.check.drawing import details, headline
from holdfast.cli.check.judge import Judge
from holdfast.cli.check.limit import Limit
from holdfast.cli.check.values import standing_value
from holdfast.cli.files import read_file
from holdfast.cli.harmless import one_line
from holdfast.cli.loading import load_app
from holdfast.cli.settings import Settings, pass_settings, shared_options
from holdfast.cli.values import Duration

SECONDS: Final = 60.0


@click.command()
@click.argument("file", metavar="FILE")
@click.argument("target", metavar="MOD:APP")
@click.option(
    "--seconds",
    type=Duration(),
    default=SECONDS,
    metavar="DURATION",
    help="How long one replay may take. Default: 60s.",
)
@shared_options
@pass_settings
def replay(settings: Settings, file: str, target: str, seconds: float) -> int:
    """Replay exported runs against the code of MOD:APP, and show the first difference, or where each then stands.

    FILE is made by `holdfast export`. Nothing is executed and no database is opened. A run that has ended must end as
    it did. Ends with 1 if there is a difference.
    """
    runs = read_file(file)
    with nothing_opens("replayed"), Limit(seconds) as limit:
        app = load_app(target)
        judge = Judge(app, limit, seconds=seconds)
        judged = [(run, judge.judge(run)) for run in map(of_export, runs)]
    if settings.is_json:
        write_list(settings, [_value(run, standing) for run, standing in judged])
    else:
        for run, standing in judged:
            settings.out.print(_drawn(run, standing, settings.out.width), soft_wrap=True)
    return 1 if any(_differs(standing) for _, standing in judged) else 0


def _differs(standing: Standing) -> bool:
    return standing.verdict != "goes on"


def _value(run: StoredRun, standing: Standing) -> dict[str, object]:
    return {"id": run.row.id, "workflow": run.row.workflow, "entries": len(run.history), **standing_value(standing)}


def _drawn(run: StoredRun, standing: Standing, width: int) -> Text:
    count = len(run.history)
    lines = [
        Text.assemble((one_line(run.row.id), "bold"), "  ", one_line(run.row.workflow), "  ", headline(standing)),
        *(Text.assemble("  ", line) for line in details(standing, width - 2)),
    ]
    if not _differs(standing):
        lines.append(
            Text(f"  after {count} {'entry' if count == 1 else 'entries'} it {_stands(standing)}", style="dim")
        )
    return Text("\n").join(lines)


def _stands(standing: Standing) -> str:
    if standing.ends is not None:
        return f"ends: {standing.ends}"
    return "waits for " + (", ".join(standing.waits_for) or "something that is no step and no timer")

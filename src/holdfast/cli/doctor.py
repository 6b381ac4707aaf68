"""`holdfast doctor`: what the database stands on, and whether it is sound."""

from __future__ import annotations

from typing import Final

import click
import msgspec
from rich.text import Text

from holdfast.cli.answers import write_json, write_list
from holdfast.cli.checks import Finding, Level, findings
from holdfast.cli.opening import location
from holdfast.cli.settings import Settings, pass_settings, shared_options
from holdfast.cli.words import folded
from holdfast.errors import UsageError

_STYLES: Final = {Level.OK: "green", Level.WARN: "yellow", Level.FAIL: "bold red"}
_INDENT: Final = len("ok    file system  ")


@click.command()
@shared_options
@pass_settings
def doctor(settings: Settings) -> int:
    """Examine the database and what it stands on. Reads the whole file; changes and makes nothing.

    Ends with 1 if something has failed.
    """
    uri = location(settings)
    if uri.path is None:
        raise UsageError("a database in memory belongs to one process", hint="name a file: --db sqlite:///orders.db")
    seen: list[Finding] = []
    for finding in findings(uri):
        seen.append(finding)
        if not settings.is_json:
            settings.out.print(_line(finding, settings.out.width), soft_wrap=True)
    failed = any(finding.level is Level.FAIL for finding in seen)
    if settings.output == "jsonl":
        write_list(settings, map(msgspec.to_builtins, seen))
    elif settings.is_json:
        write_json(settings, {"database": str(uri.path), "ok": not failed, "checks": msgspec.to_builtins(seen)})
    return 1 if failed else 0


def _line(finding: Finding, width: int) -> Text:
    line = Text.assemble((f"{finding.level:<6}", _STYLES[finding.level]), f"{finding.name:<13}")
    below = "\n" + " " * _INDENT
    line.append(below.join(folded(finding.message, width - _INDENT)))
    if finding.advice:
        line.append(f"{below}→ " + f"{below}  ".join(folded(finding.advice, width - _INDENT - 2)), style="dim")
    return line

"""Findings as a compiler shows them: the place, the line with a caret, the remedy."""

from __future__ import annotations

import os
from collections.abc import Iterable

from rich.text import Text

from holdfast.cli.source.findings import Finding

SOURCE_CELLS_MAX = 110


def draw(findings: Iterable[Finding]) -> Text:
    """All of them, with a blank line between."""
    return Text("\n\n").join(_one(finding) for finding in findings)


def shown_path(path: str) -> str:
    """Relative to the current directory where it lies below it: short, and terminals make it a link."""
    relative = os.path.relpath(path)
    return path if relative.startswith(os.pardir) else relative


def reached(finding: Finding) -> str:
    """Through which functions a workflow gets there."""
    return " → ".join((finding.workflow, *finding.via))


def _one(finding: Finding) -> Text:
    gutter = len(str(finding.line)) + 2
    text = finding.source.replace("\t", " ")
    dropped = len(text) - len(text.lstrip())
    shown = text.lstrip()
    start = finding.column - 1 - dropped
    width = max(finding.end_column - finding.column, 1)
    if len(shown) > SOURCE_CELLS_MAX:
        shown, width = f"{shown[: SOURCE_CELLS_MAX - 1]}…", max(min(width, SOURCE_CELLS_MAX - start), 1)
    return Text.assemble(
        (f"{shown_path(finding.file)}:{finding.line}:{finding.column}", "bold"),
        ": ",
        (f"{finding.rule.slug}: ", "yellow"),
        finding.rule.message,
        "\n",
        (f"{finding.line:>{gutter}} │ ", "dim"),
        shown,
        "\n",
        (f"{'':>{gutter}} │ ", "dim"),
        (f"{' ' * start}{'^' * width}", "bold yellow"),
        "\n",
        (f"{'':>{gutter}} → ", "dim"),
        (finding.rule.remedy, "green"),
        (f"   in {reached(finding)}", "dim"),
    )

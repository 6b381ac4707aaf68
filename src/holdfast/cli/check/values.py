"""Verdicts and findings for programs."""

from __future__ import annotations

from typing import Any

from holdfast._runtime.replay import Standing
from holdfast.cli.check.tally import Group
from holdfast.cli.source.drawing import shown_path
from holdfast.cli.source.findings import Finding


def group_value(group: Group) -> dict[str, Any]:
    """Runs that stand alike, with the first of them as example."""
    return {
        "workflow": group.workflow,
        **standing_value(group.example),
        "runs": group.runs,
        "blocked_now": group.blocked_now,
        "ids": group.ids,
    }


def standing_value(standing: Standing) -> dict[str, Any]:
    """How one run stands."""
    return {
        "verdict": standing.verdict.value,
        "harmed": standing.verdict.is_fault,
        "entry": standing.entry,
        "recorded": standing.recorded or None,
        "requested": standing.requested or None,
        "problem": standing.problem or None,
        "hint": standing.hint or None,
        "waits_for": list(standing.waits_for),
        "ends": None if standing.ends is None else standing.ends.value,
    }


def finding_value(finding: Finding) -> dict[str, Any]:
    """A place in the source."""
    return {
        "file": shown_path(finding.file),
        "line": finding.line,
        "column": finding.column,
        "rule": finding.rule.slug,
        "message": finding.rule.message,
        "remedy": finding.rule.remedy,
        "source": finding.source.strip(),
        "workflow": finding.workflow,
        "via": list(finding.via),
    }

"""A place in the source that cannot replay."""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.cli.source.rules import Rule


@dataclass(frozen=True, slots=True)
class Finding:
    """One place.

    Attributes:
        rule: why, and what to write instead.
        file: the path as it was imported.
        line, column, end_column: where; lines from 1, columns from 1, the end is not included.
        source: the text of the line.
        workflow: the first workflow that gets there.
        via: the functions between the workflow and this place, outermost first.
    """

    rule: Rule
    file: str
    line: int
    column: int
    end_column: int
    source: str
    workflow: str
    via: tuple[str, ...]

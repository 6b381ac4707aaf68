"""The verdicts for a person: one line a group, and for what is wrong both sides below it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from rich.text import Text

from holdfast._runtime.replay import Standing, Verdict
from holdfast.cli.check.tally import Group, place_of
from holdfast.cli.harmless import one_line
from holdfast.cli.words import folded

SIDE_LINES_MAX: Final = 3


def draw(groups: Sequence[Group], *, width: int) -> Text:
    """All groups below their captions."""
    name = max([len("workflow"), *(len(group.workflow) for group in groups)])
    runs = max([len("runs"), *(len(f"{group.runs:,}") for group in groups)])
    margin = name + runs + 4
    lines = [Text(f"{'workflow':<{name}}  {'runs':>{runs}}  verdict", style="dim")]
    before = ""
    for group in groups:
        shown = "" if group.workflow == before else one_line(group.workflow)
        before = group.workflow
        lines.append(Text.assemble(f"{shown:<{name}}  {group.runs:>{runs},}  ", headline(group.example), _aside(group)))
        lines += [Text.assemble(" " * (margin + 2), line) for line in details(group.example, width - margin - 2)]
        if group.verdict.is_fault or group.example.fails:
            lines.append(Text(f"{' ' * (margin + 2)}{_ids(group)}", style="dim"))
    return Text("\n").join(lines)


def headline(standing: Standing) -> Text:
    """The verdict in one line."""
    verdict = standing.verdict
    if standing.fails:
        return Text("! goes on, and fails at once", style="yellow")
    if verdict is Verdict.GOES_ON:
        return Text("✓ goes on", style="green")
    if verdict in (Verdict.UNKNOWN, Verdict.NOT_TRIED):
        return Text(f"? {verdict}", style="yellow")
    told = {Verdict.BLOCKED: "blocked", Verdict.PATCH_REMOVED: "blocked: patch removed"}.get(verdict, verdict.value)
    at = f" at entry {standing.entry}" if standing.entry is not None else ""
    return Text(f"✗ {told}{at}", style="bold red")


def details(standing: Standing, width: int) -> Iterator[Text]:
    """What is wrong, and the next move."""
    sides = (("recorded:  ", standing.recorded, "green"), ("requested: ", standing.requested, "red"))
    for label, side, style in sides:
        if side:
            pieces = folded(side, width - len(label))
            if len(pieces) > SIDE_LINES_MAX:
                pieces = [*pieces[:SIDE_LINES_MAX], "... (whole with -o json)"]
            for number, piece in enumerate(pieces):
                yield Text.assemble((label if number == 0 else " " * len(label), "dim"), (piece, style))
    if standing.problem:
        at = place_of(standing)
        yield from (Text(line) for line in folded(f"{standing.problem}{f' at {at}' if at else ''}", width))
    if standing.hint:
        for number, line in enumerate(folded(standing.hint, width - 2)):
            yield Text(f"{'  ' if number else '→ '}{line}", style="dim")


def _aside(group: Group) -> Text:
    """What else is to be said of runs that go on."""
    example = group.example
    if example.verdict is not Verdict.GOES_ON:
        return Text()
    ends = "" if example.ends is None or example.fails else f", and ends as {example.ends}"
    blocked = f"  ({group.blocked_now:,} of them blocked now)" if group.blocked_now else ""
    return Text.assemble((ends, "green"), (blocked, "dim"))


def _ids(group: Group) -> str:
    more = group.runs - len(group.ids)
    return ", ".join(map(one_line, group.ids)) + (f" and {more:,} more" if more else "")

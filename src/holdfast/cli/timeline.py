"""The view of one run: what is known of it, then its entries with a chart of when each of them ran.

    #  entry            state        tries     took  0 s                            1.2 s
    1  reserve          ✓ succeeded      1   210 ms  ━━━━━━
    2  charge           ✓ succeeded      3   640 ms        ━━━━━━━━━━━━━━━━

Errors stand below their entry. The chart is linear over the run's time, from its start to its end or to now.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from holdfast import Entry, ErrorInfo, RunInfo
from holdfast.cli.harmless import one_line
from holdfast.cli.words import (
    MARKS,
    STYLES,
    compact,
    duration,
    error_line,
    folded,
    instant,
    plain_value,
    raised_at,
    state_text,
)

LABEL: Final = 12
NAME_CELLS: Final = (8, 32)
STATE_CELLS: Final = len("✓ succeeded")
BAR_CELLS: Final = (10, 60)
VALUE_LINES_MAX: Final = 4


@dataclass(frozen=True, slots=True)
class Viewed:
    """A run with its history, as they were read together.

    Attributes:
        waits: why the run is not taken like others; mostly empty.
    """

    run: RunInfo
    history: tuple[Entry, ...]
    waits: str = ""


def draw(viewed: Viewed, *, seen: datetime, width: int, tracebacks: bool = False) -> Text:
    """The whole view, as wide as `width` or narrower."""
    lines = [*_header(viewed, seen, width, tracebacks)]
    if viewed.history:
        lines += [Text(), *_entries(viewed, seen, width, tracebacks)]
    return Text("\n").join(lines)


# The header.


def _header(viewed: Viewed, seen: datetime, width: int, tracebacks: bool) -> Iterator[Text]:
    run = viewed.run
    yield Text.assemble((one_line(run.id), "bold"), "  ", one_line(run.workflow), "  ", state_text(run.state))
    yield Text()
    for label, value in _facts(run, seen):
        yield from _labelled(label, Text(value), width)
    if viewed.waits:
        yield from _labelled("waits", Text(viewed.waits, style="yellow"), width)
    if run.error is not None:
        yield from _labelled("error", Text(error_line(run.error), style="red"), width)
        yield from _error_details(run.error, LABEL + 2, width, tracebacks)


def _facts(run: RunInfo, seen: datetime) -> Iterator[tuple[str, str]]:
    if run.input not in (None, {}):
        yield "input", compact(run.input)
    if run.state == "succeeded":
        yield "result", compact(run.output)
    if run.attributes:
        yield "attributes", "  ".join(f"{key}={plain_value(value)}" for key, value in run.attributes.items())
    yield "created", instant(run.created_at, seen)
    if run.due_at is not None and run.ended_at is None:
        yield "due", instant(run.due_at, seen)
    if run.deadline_at is not None and run.ended_at is None:
        yield "deadline", instant(run.deadline_at, seen)
    if run.started_at is not None and run.ended_at is not None:
        yield "took", duration(run.ended_at - run.started_at)
    elif run.started_at is not None:
        yield "started", instant(run.started_at, seen)
    rare = {
        "worker": run.worker,
        "request": run.request,
        "reason": run.reason,
        "crashes": f"{run.crashes} without progress" if run.crashes else None,
        "priority": run.priority or None,
        "forked from": run.forked_from,
        "generation": run.generation or None,
    }
    yield from ((label, str(value)) for label, value in rare.items() if value is not None)


def _labelled(label: str, value: Text, width: int) -> Iterator[Text]:
    """A label with its value beside it, folded and bounded."""
    pieces = [Text(line, style=value.style) for line in folded(value.plain, width - LABEL - 2)]
    if len(pieces) > VALUE_LINES_MAX:
        pieces = [*pieces[:VALUE_LINES_MAX], Text("... (whole with -o json)", style="dim")]
    for number, piece in enumerate(pieces):
        yield Text.assemble((f"  {label if number == 0 else '':<{LABEL}}", "dim"), piece)


def _error_details(error: ErrorInfo, margin: int, width: int, tracebacks: bool) -> Iterator[Text]:
    """What is known besides class and message. An error of the engine speaks for itself: it has a hint."""
    details: list[str] = []
    if not error.hint:
        details += (f"because of {' '.join(cause.split())}" for cause in error.causes)
    if tracebacks and error.traceback:
        details += error.traceback.rstrip().splitlines()
    elif raised_at(error) and not error.hint:
        details.append(f"at {raised_at(error)}")
    if error.hint:
        details.append(f"hint: {error.hint}")
    for detail in details:
        lines = [detail] if detail.startswith(" ") else folded(detail, width - margin)
        yield from (Text(f"{' ' * margin}{line}", style="dim") for line in lines)


# The entries.


@dataclass(frozen=True, slots=True)
class _Layout:
    number: int
    name: int
    bar: int
    begin: datetime
    span: timedelta
    delivered: dict[int, datetime]

    def called(self, entry: Entry) -> datetime:
        """When the workflow asked for it: for what has no start of its own, the last outcome that came before."""
        return entry.started_at or self.delivered.get(entry.after, self.begin)


def _entries(viewed: Viewed, seen: datetime, width: int, tracebacks: bool) -> Iterator[Text]:
    layout = _layout(viewed, seen, width)
    yield _captions(layout)
    for entry in viewed.history:
        yield _entry(entry, layout, seen)
        yield from _below(entry, layout.number + 4, seen, width, tracebacks)


def _below(entry: Entry, margin: int, seen: datetime, width: int, tracebacks: bool) -> Iterator[Text]:
    """The entry's error, and when it is tried again."""
    if entry.error is not None:
        style = STYLES.get(entry.state, "red")
        for line in folded(error_line(entry.error), width - margin):
            yield Text(f"{' ' * margin}{line}", style=style)
        yield from _error_details(entry.error, margin, width, tracebacks)
    if entry.kind == "step" and entry.state == "pending" and entry.due_at is not None and entry.due_at > seen:
        yield Text(f"{' ' * margin}next try {instant(entry.due_at, seen)}", style="dim")


def _layout(viewed: Viewed, seen: datetime, width: int) -> _Layout:
    run, history = viewed.run, viewed.history
    number = max(len(str(entry.seq)) for entry in history)
    name = _clamp(max(cell_len(_name(entry)) for entry in history), NAME_CELLS)
    begin = min([run.started_at or run.created_at, *(e.started_at for e in history if e.started_at)])
    taken = number + name + STATE_CELLS + len("tries") + len("59 min 59 s") + 5 * 2
    delivered = {entry.ordinal: entry.finished_at for entry in history if entry.ordinal and entry.finished_at}
    span = max((run.ended_at or seen) - begin, timedelta(microseconds=1))
    return _Layout(number, name, _clamp(width - taken, BAR_CELLS), begin, span, delivered)


def _captions(layout: _Layout) -> Text:
    span = duration(layout.span)
    scale = "0" + span.rjust(layout.bar - 1)
    text = f"{'#':>{layout.number}}  {'entry':<{layout.name}}  {'state':<{STATE_CELLS}}  tries  {'took':>11}  {scale}"
    return Text(text, style="dim")


def _entry(entry: Entry, layout: _Layout, seen: datetime) -> Text:
    style = STYLES.get(entry.state, "default")
    state = f"{MARKS.get(entry.state, ' ')} {entry.state}"
    tries = str(entry.attempts) if entry.kind == "step" else ""
    number = str(entry.seq) if entry.seq > 0 else "·"  # came from outside: its number means nothing to a person
    return Text.assemble(
        (f"{number:>{layout.number}}  ", "dim"),
        set_cell_size(_name(entry), layout.name),
        "  ",
        (f"{state:<{STATE_CELLS}}", style),
        f"  {tries:>5}",
        f"  {_took(entry, layout, seen):>11}",
        "  ",
        (_bar(entry, layout, seen), style),
    )


def _name(entry: Entry) -> str:
    return one_line(
        entry.name if entry.kind in {"step", entry.name} or not entry.name else f"{entry.kind} {entry.name}"
    )


def _took(entry: Entry, layout: _Layout, seen: datetime) -> str:
    return duration((entry.finished_at or seen) - layout.called(entry)) if entry.kind in {"step", "timer"} else ""


def _bar(entry: Entry, layout: _Layout, seen: datetime) -> str:
    """Where in the run's time the entry ran: at least one cell, however short it was."""
    if entry.seq < 0 and entry.finished_at is None and entry.started_at is None:
        return ""  # came from outside, at no known instant
    start = _cell(layout.called(entry), layout)
    stop = max(_cell(entry.finished_at or seen, layout), start)
    return " " * start + ("━" if entry.finished_at else "╍") * (stop - start + 1)


def _cell(at: datetime, layout: _Layout) -> int:
    return _clamp(int((at - layout.begin) / layout.span * layout.bar), (0, layout.bar - 1))


def _clamp(value: int, bounds: Sequence[int]) -> int:
    return min(max(value, bounds[0]), bounds[1])

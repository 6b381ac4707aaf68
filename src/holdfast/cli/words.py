"""How instants, durations, states and errors are written for people."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec
from rich.cells import cell_len
from rich.text import Text

from holdfast._model import failures
from holdfast._model.runinfo import ErrorInfo, RunInfo

STYLES: Final = {
    "succeeded": "green",
    "failed": "red",
    "blocked": "bold red",
    "cancelled": "yellow",
    "paused": "magenta",
    "running": "cyan",
    "pending": "cyan",
    "waiting": "blue",
    "scheduled": "blue",
    "ready": "default",
}
MARKS: Final = {
    "succeeded": "✓",
    "failed": "✗",
    "blocked": "✗",
    "cancelled": "–",
    "paused": "‖",
    "running": "▸",
    "pending": "▸",
    "waiting": "◦",
    "scheduled": "◦",
    "ready": "·",
}
_FILLER: Final = "\0"


def now() -> datetime:
    """This instant."""
    return datetime.now(UTC)


def state_text(state: str) -> Text:
    """A state with its mark and colour."""
    return Text(f"{MARKS.get(state, ' ')} {state}", style=STYLES.get(state, "default"))


def age(since: timedelta) -> str:
    """How long ago, in one unit."""
    seconds = max(since.total_seconds(), 0.0)
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return f"{int(seconds)} s"


def duration(length: timedelta) -> str:
    """How long, in the unit or the two that matter."""
    seconds = max(length.total_seconds(), 0.0)
    if seconds < 0.001:
        return f"{seconds * 1e6:.0f} µs"
    if seconds < 1:
        return f"{seconds * 1e3:.{1 if seconds < 0.01 else 0}f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = int(seconds)
    if whole < 3_600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86_400:
        return f"{whole // 3_600} h {whole % 3_600 // 60} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3_600} h"


def size(count: float) -> str:
    """Bytes, in the unit that fits."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def instant(at: datetime, seen: datetime) -> str:
    """An instant with its distance from now, in the user's time zone."""
    local = at.astimezone()
    distance = f"in {age(at - seen)}" if at > seen else f"{age(seen - at)} ago"
    return f"{local:%Y-%m-%d %H:%M:%S} {local.tzname()}, {distance}"


def error_line(error: ErrorInfo) -> str:
    """An error as one line: class and message."""
    name = " ".join((error.type.rpartition(":")[2] or error.type).split())
    message = " ".join(error.message.split()).removesuffix(f" (hint: {error.hint})")
    return f"{name}: {message}" if message else name


def folded(text: str, width: int) -> list[str]:
    """Lines of at most `width` cells, broken between words where there are any; at least one line."""
    if not text.isascii():  # characters of two cells, which count as two with a filler behind them
        text = "".join(f"{character}{_FILLER * (cell_len(character) - 1)}" for character in text)
    lines = textwrap.wrap(text, max(width, 20), break_on_hyphens=False) or [""]
    return [line.replace(_FILLER, "") for line in lines]


def raised_at(error: ErrorInfo) -> str:
    """Where the traceback ends, such as ``shop.py:19 in charge``; empty when it is not known."""
    return failures.raised_at(error.traceback)


def compact(value: Any) -> str:
    """A value as JSON on one line."""
    return msgspec.json.format(msgspec.json.encode(value), indent=0).decode()


def note_of(run: RunInfo) -> Text:
    """What matters most about a run besides its state: what went wrong, what is asked of it, or its attributes."""
    if run.error is not None:
        return Text(error_line(run.error), style="red")
    if run.request is not None:
        return Text(f"{run.request} requested", style="yellow")
    return Text(" ".join(_attributes(run.attributes)), style="dim")


def _attributes(attributes: Mapping[str, Any], above: str = "") -> Iterator[str]:
    """As they are searched for: nested names with dots."""
    for key, value in attributes.items():
        if isinstance(value, Mapping):
            yield from _attributes(value, f"{above}{key}.")
        else:
            yield f"{above}{key}={plain_value(value)}"


def plain_value(value: Any) -> str:
    """A value without the quotes of JSON where it is text."""
    return value if isinstance(value, str) else compact(value)

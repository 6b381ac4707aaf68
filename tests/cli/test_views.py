"""How things are written for people: durations, ages, columns, the timeline, `--watch`."""

from __future__ import annotations

import asyncio
import io
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from holdfast import Entry, EntryState, ErrorInfo, RunInfo, RunState
from holdfast.cli import words
from holdfast.cli.grid import grid
from holdfast.cli.settings import Settings
from holdfast.cli.timeline import Viewed, draw
from holdfast.cli.values import Duration, Instant, json_or_text
from holdfast.cli.watching import watch
from holdfast.errors import UsageError

BEGIN = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return BEGIN + timedelta(seconds=seconds)


def a_run(**changes: Any) -> RunInfo:
    known: dict[str, Any] = {
        "id": "r",
        "workflow": "w",
        "state": RunState.RUNNING,
        "created_at": BEGIN,
        "started_at": BEGIN,
    }
    return RunInfo(**{**known, **changes})


def an_entry(seq: int, **changes: Any) -> Entry:
    known: dict[str, Any] = {
        "seq": seq,
        "after": 0,
        "ordinal": seq,
        "kind": "step",
        "name": f"s{seq}",
        "attempts": 1,
        "state": EntryState.SUCCEEDED,
        "started_at": BEGIN,
        "finished_at": at(1),
    }
    return Entry(**{**known, **changes})


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        *[(0, "0 µs"), (0.000_42, "420 µs"), (0.0042, "4.2 ms"), (0.42, "420 ms"), (4.21, "4.2 s"), (59.4, "59.4 s")],
        *[(61, "1 min 1 s"), (3_600, "1 h 0 min"), (90_000, "1 d 1 h"), (-1, "0 µs")],
    ],
)
def test_duration_is_told_in_the_unit_that_matters(seconds: float, told: str) -> None:
    assert words.duration(timedelta(seconds=seconds)) == told


@pytest.mark.parametrize(
    ("seconds", "told"), [(0, "0 s"), (59, "59 s"), (60, "1 min"), (7_300, "2 h"), (200_000, "2 d")]
)
def test_age_has_one_unit(seconds: float, told: str) -> None:
    assert words.age(timedelta(seconds=seconds)) == told


def test_every_state_has_a_mark_and_a_colour() -> None:
    states = {*map(str, RunState), *map(str, EntryState)}
    assert states == set(words.MARKS) == set(words.STYLES)


@pytest.mark.parametrize(
    ("text", "seconds"), [("30", 30), ("1.5s", 1.5), ("250ms", 0.25), ("10m", 600), ("2h", 7_200), ("7d", 604_800)]
)
def test_durations_are_read(text: str, seconds: float) -> None:
    assert Duration().convert(text, None, None) == seconds


@pytest.mark.parametrize("text", ["", "x", "-1", "1w", "1 2", "inf"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter):
        Duration().convert(text, None, None)


def test_instants_without_zone_are_local() -> None:
    assert Instant().convert("2026-03-01T09:00+01:00", None, None).utcoffset() == timedelta(hours=1)
    assert Instant().convert("2026-03-01T09:00", None, None) == datetime(2026, 3, 1, 9).astimezone()


@given(st.text())
def test_every_text_is_json_or_itself_or_refused_as_broken_json(text: str) -> None:
    try:
        value = json_or_text(text)
    except UsageError:
        assert text[0] in '{["'
        return
    assert not isinstance(value, str) or value == text or text.strip().startswith('"')


# Columns.


def test_grid_aligns_and_leaves_no_blanks_at_the_end() -> None:
    rows = [[Text("a"), Text("1"), Text("")], [Text("long"), Text("22"), Text("note")]]
    assert grid(("x", "n", ""), rows, right={"n"}).plain.split("\n") == ["x      n", "a      1", "long  22  note"]


def test_grid_cuts_only_the_last_column() -> None:
    rows = [[Text("i" * 30), Text("n" * 50)]]
    assert grid(("id", ""), rows, last_fits=60).plain.split("\n")[1] == "i" * 30 + "  " + "n" * 27 + "…"
    assert grid(("id", ""), rows, last_fits=20).plain.split("\n")[1] == "i" * 30


@pytest.mark.parametrize("text", ["日本語" * 30, "ab 日本語 🎉 " * 20, "x" * 90, "a b " * 40])
def test_what_is_folded_fits_in_cells_and_loses_nothing(text: str) -> None:
    lines = words.folded(text, 41)
    assert max(map(cell_len, lines)) <= 42  # a wide character may stand across the edge
    assert "".join("".join(lines).split()) == "".join(text.split())


# The timeline.


def bars(viewed: Viewed, *, seen: datetime, width: int = 80) -> list[str]:
    """The chart's part of each entry's line, between bars drawn as by a ruler."""
    lines = draw(viewed, seen=seen, width=width).plain.split("\n")
    first = next(i for i, line in enumerate(lines) if line.startswith("#"))
    start = lines[first].index("took") + len("took") + 2
    return [line[start:] for line in lines[first + 1 :]]


def test_bars_stand_where_entries_ran() -> None:
    run = a_run(state=RunState.SUCCEEDED, ended_at=at(10))
    history = (
        an_entry(1, finished_at=at(5)),
        an_entry(2, started_at=at(5), finished_at=at(10)),
        an_entry(3, started_at=at(2), finished_at=at(2)),
    )
    one, two, three = bars(Viewed(run, history), seen=at(100))
    assert len(two) - len(two.lstrip()) == len(one) - 1
    assert three.strip() == "━"
    assert set(one) == {"━"}


def test_pending_entry_reaches_to_now() -> None:
    entry = an_entry(1, state=EntryState.PENDING, ordinal=None, started_at=at(5), finished_at=None)
    (bar,) = bars(Viewed(a_run(), (entry,)), seen=at(10))
    assert bar.strip("╍ ") == ""
    assert bar.endswith("╍")


def test_timer_begins_with_the_outcome_before_it() -> None:
    history = (
        an_entry(1, finished_at=at(4)),
        an_entry(2, kind="timer", name="timer", after=1, started_at=None, finished_at=at(8)),
    )
    text = draw(Viewed(a_run(), history), seen=at(8), width=80).plain
    assert "4.0 s" in text.split("\n")[-1]


@given(
    spans=st.lists(st.tuples(st.floats(-5, 50), st.floats(0, 50)), min_size=1, max_size=12),
    seen=st.floats(0, 100),
    width=st.integers(20, 200),
)
def test_timeline_is_drawn_whatever_the_clock_did(spans: list[tuple[float, float]], seen: float, width: int) -> None:
    history = tuple(an_entry(n, started_at=at(a), finished_at=at(a + b)) for n, (a, b) in enumerate(spans, 1))
    lines = draw(Viewed(a_run(), history), seen=at(seen), width=width).plain.split("\n")
    assert all(len(line) <= max(width, 80) for line in lines)


def test_errors_stand_below_their_entry_and_fold() -> None:
    error = ErrorInfo(
        type="m:Oh", message="word " * 60, traceback='Traceback:\n  File "/a/shop.py", line 7, in pay\nOh'
    )
    entry = an_entry(1, state=EntryState.FAILED, error=error)
    lines = draw(Viewed(a_run(), (entry,)), seen=at(2), width=80).plain.split("\n")
    assert any(line.strip() == "at shop.py:7 in pay" for line in lines)
    assert all(len(line) <= 80 for line in lines)


def test_hint_of_an_engine_error_is_told_once() -> None:
    error = ErrorInfo(type="holdfast.errors:X", message="no (hint: do it)", hint="do it", causes=("a: b",))
    text = draw(Viewed(a_run(state=RunState.BLOCKED, error=error), ()), seen=at(1), width=80).plain
    assert text.count("do it") == 1
    assert "because of" not in text


def test_instants_are_local_with_their_distance(monkeypatch: pytest.MonkeyPatch) -> None:
    assert words.instant(at(0), at(120)).endswith(", 2 min ago")
    assert words.instant(at(120), at(0)).endswith(", in 2 min")
    assert words.instant(BEGIN.astimezone(timezone(timedelta(hours=5))), at(0)) == words.instant(BEGIN, at(0))


# Watching.


def watched(settings: Settings, seen: list[int], monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Watch values until the last of them; what was written out."""
    monkeypatch.setattr("holdfast.cli.watching.REFRESH_SECONDS", 0.0)
    values, written = iter(seen), list[int]()

    async def look() -> int:
        return next(values)

    asyncio.run(
        watch(
            settings, look=look, draw=lambda n: Text(f"view {n}"), write=written.append, ended=lambda n: n == seen[-1]
        )
    )
    return written


def test_watch_writes_every_change_once_where_there_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    assert watched(Settings(), [1, 1, 2, 2, 2, 3], monkeypatch) == [1, 2, 3]


def test_watch_gives_the_screen_back_and_then_writes_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    settings, stream = Settings(), io.StringIO()
    settings.__dict__["out"] = Console(file=stream, force_terminal=True, width=80, height=24)
    assert watched(settings, [1, 2, 3], monkeypatch) == [3]
    screen = stream.getvalue()
    assert screen.index("\x1b[?1049h") < screen.index("view 1") < screen.index("view 3") < screen.index("\x1b[?1049l")

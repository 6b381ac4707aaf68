"""The codec: a value of any annotation comes back equal and of its type, or is refused; nothing changes in silence."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import math
import zoneinfo
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Literal, NamedTuple
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fuzz import things
from tests.fuzz.hostile import examples
from tests.fuzz.stage import alarm, complaint
from tests.fuzz.things import HALF, JUNK, Allowed, Thing, junk

from holdfast import NotDecodable, NotEncodable
from holdfast._model.codec import codec_for

pytestmark = pytest.mark.generated


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = -1
    HIGH = 2**60


class Point(NamedTuple):
    x: int
    y: float | None = None


@dataclasses.dataclass
class Leaf:
    content: Any = None
    count: int = 0


class Circle(msgspec.Struct, tag=True):
    radius: float


class Square(msgspec.Struct, tag=True):
    side: int
    corners: tuple[int, str] | None = None


SANE = st.characters(codec="utf-8")
TEXT = st.text(SANE, max_size=20) | st.sampled_from(
    ["", "\x00", "null", "1", "-0", "nan", "\\u0000", "'; drop", "𝄞", "\u2028"]
)
WHOLE = things.integers()
FLOAT = st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from(
    [-0.0, 5e-324, 1.7976931348623157e308, 1e22, 2.0**53]
)
ZONES = st.none() | st.just(dt.UTC) | st.integers(-1439, 1439).map(lambda m: dt.timezone(dt.timedelta(minutes=m)))
LEAVES: dict[Any, st.SearchStrategy[Any]] = {
    str: TEXT,
    int: WHOLE,
    float: FLOAT,
    bool: st.booleans(),
    None: st.none(),
    bytes: st.binary(max_size=20),
    dt.datetime: st.datetimes(timezones=ZONES),
    dt.date: st.dates(),
    dt.time: st.times() | st.times(timezones=ZONES),
    dt.timedelta: things.timedeltas(),
    UUID: st.uuids(),
    Decimal: st.decimals(allow_nan=False),
    Colour: st.sampled_from(Colour),
    Level: st.sampled_from(Level),
    Literal["a", 1]: st.sampled_from(["a", 1]),
    Point: st.builds(Point, WHOLE, st.none() | FLOAT),
    Circle | Square: st.builds(Circle, FLOAT) | st.builds(Square, WHOLE, st.none() | st.tuples(WHOLE, TEXT)),
    Leaf: st.builds(Leaf, TEXT | st.lists(WHOLE), WHOLE),
}
KEYS = [str, int, float, dt.datetime, dt.date, dt.timedelta, UUID, Decimal, bytes, Colour, Level]
TAMED = [str, int, float, bool, bytes, dt.date, UUID, Decimal, Colour, Level]
"""What sets can hold, and unions with none."""


@st.composite
def typed(draw: st.DrawFn, depth: int = 3) -> tuple[Any, st.SearchStrategy[Any]]:
    """An annotation, and what makes values of it."""
    shape = (
        draw(st.sampled_from(["leaf", "list", "tuple", "pair", "dict", "set", "optional", "mixed"]))
        if depth
        else "leaf"
    )
    if shape in ("set", "optional", "mixed"):
        kind = draw(st.sampled_from(TAMED))
        values = LEAVES[kind]
        if shape == "set":
            return frozenset[kind], st.frozensets(values, max_size=4)  # type: ignore[valid-type]
        if shape == "optional":
            return kind | None, st.none() | values
        return int | str | bool | None, LEAVES[int] | LEAVES[str] | st.booleans() | st.none()
    if shape == "leaf":
        kind = draw(st.sampled_from(list(LEAVES)))
        return kind, LEAVES[kind]
    inner, values = draw(typed(depth=depth - 1))
    if shape == "list":
        return list[inner], st.lists(values, max_size=3)  # type: ignore[valid-type]
    if shape == "tuple":
        return tuple[inner, ...], st.lists(values, max_size=3).map(tuple)  # type: ignore[valid-type]
    if shape == "pair":
        return tuple[inner, bool], st.tuples(values, st.booleans())  # type: ignore[valid-type]
    key = draw(st.sampled_from(KEYS))
    return dict[key, inner], st.dictionaries(LEAVES[key], values, max_size=3)  # type: ignore[valid-type]


@st.composite
def typed_values(draw: st.DrawFn) -> tuple[Any, Any]:
    annotation, values = draw(typed())
    return annotation, draw(values)


def tried(call: Callable[[], Any]) -> tuple[Any, Exception | None]:
    """What it gives, or what it raises."""
    try:
        with alarm():
            return call(), None
    except Exception as error:
        return None, error


def alike(one: Any, other: Any) -> bool:
    """Equal, of equal types, at every depth; and with the same sign, offset and members."""
    if type(one) is not type(other):
        return False
    if isinstance(one, float):
        return one == other and math.copysign(1, one) == math.copysign(1, other)
    if isinstance(one, dt.datetime | dt.time):
        return one == other and one.utcoffset() == other.utcoffset()
    if isinstance(one, dict):
        return len(one) == len(other) and all(map(alike, one.items(), other.items()))
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(alike, one, other))
    if dataclasses.is_dataclass(one):
        return alike(vars(one), vars(other))
    return bool(one == other)


@examples(300)
@given(typed_values())
def test_a_value_that_fits_its_annotation_comes_back_as_it_was(pair: tuple[Any, Any]) -> None:
    annotation, value = pair
    codec = codec_for(annotation)
    text, settled = codec.settle(value)
    assert alike(settled, value), f"{value!r} became {settled!r} by {text}"
    assert alike(codec.decode(text), value)
    assert sorted(codec.settle(settled)[0]) == sorted(text), "but for the order of sets, the text stays the same"


@examples(200)
@given(st.sampled_from(list(LEAVES)), junk())
def test_a_value_that_does_not_fit_is_refused_or_becomes_what_the_annotation_says(kind: Any, thing: Thing) -> None:
    codec = codec_for(kind)
    value = thing.make()
    found, error = tried(lambda: codec.settle(value, where="result"))
    if error is not None:
        assert complaint(error, places=("result",)) is None, f"{kind} {thing!r} {error!r:.300}"
        assert not isinstance(error, Allowed)
    else:
        text, settled = found
        assert alike(codec.decode(text), settled), f"{kind} {thing!r}: replay sees {codec.decode(text)!r}"


@examples(200)
@given(
    st.recursive(
        st.none() | st.booleans() | WHOLE | FLOAT | TEXT,
        lambda inner: (
            st.lists(inner, max_size=4) | st.dictionaries(TEXT | WHOLE | FLOAT | st.booleans(), inner, max_size=4)
        ),
        max_leaves=10,
    )
)
def test_without_an_annotation_json_comes_back_and_no_key_is_lost(value: Any) -> None:
    found, error = tried(lambda: codec_for(Any).settle(value))
    if error is not None:
        assert "are one in JSON" in str(error)
        assert has_like_keys(value)
    else:
        assert alike(found[1], with_text_keys(value))


def with_text_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {as_text(key): with_text_keys(child) for key, child in value.items()}
    return [with_text_keys(child) for child in value] if isinstance(value, list) else value


def has_like_keys(value: Any) -> bool:
    if isinstance(value, dict):
        return len({*map(as_text, value)}) < len(value) or any(map(has_like_keys, value.values()))
    return isinstance(value, list) and any(map(has_like_keys, value))


def as_text(key: Any) -> str:
    return key if isinstance(key, str) else codec_for(Any).encode({key: 0})[2:-4]


@examples(200)
@given(
    st.sampled_from([*LEAVES, Any, list[Any], dict[int, str]]),
    things.texts()
    | st.text()
    | st.sampled_from(["[" * 10**5, "1" * 5000, "1e400", '{"a":1,"a":2}', "NaN", '"\\ud800"', "-0"]),
)
def test_any_text_is_decoded_or_refused(kind: Any, text: str) -> None:
    _, error = tried(lambda: codec_for(kind).decode(text, where="result"))
    if error is not None:
        assert isinstance(error, NotDecodable)
        assert complaint(error, places=("result",)) is None, error


@pytest.mark.parametrize("thing", JUNK, ids=repr)
def test_whatever_is_no_type_is_refused_as_an_annotation(thing: Thing) -> None:
    _, error = tried(lambda: codec_for(thing.make()))
    if error is not None:
        assert complaint(error, places=("annotation", "values of")) is None, repr(error)[:300]


LOSSES = [
    ({1: "a", "1": "b"}, Any, "keys 1 and '1' are one"),
    ([{"a": {1.5: 1, "1.5": 2}}], Any, "keys 1.5 and '1.5' are one"),
    ({True: 1, "1": 2}, Any, "are one in JSON"),
    ({1: 1, "1": 2}, dict[int | str, int], "are one in JSON"),
    (Leaf({1: 1, "1": 2}), Leaf, "are one in JSON"),
    (2**53 + 1, float, "no float is exactly"),
    (dt.datetime(1900, 1, 1, tzinfo=zoneinfo.ZoneInfo("Europe/Amsterdam")), dt.datetime, "offset has seconds"),
    ([dt.datetime(1900, 1, 1, tzinfo=dt.timezone(dt.timedelta(seconds=1)))], Any, "offset has seconds"),
    ({"at": dt.time(1, tzinfo=dt.timezone(-dt.timedelta(seconds=59)))}, dict[str, dt.time], "offset has seconds"),
    (msgspec.Raw(b"{"), Any, "does not fit"),
    (HALF, str, "lone surrogate"),
]


@pytest.mark.parametrize(("value", "annotation", "reason"), LOSSES, ids=range(len(LOSSES)))
def test_what_would_change_in_silence_is_refused(value: Any, annotation: Any, reason: str) -> None:
    with pytest.raises(NotEncodable, match="result") as refused:
        codec_for(annotation).settle(value, where="result")
    assert reason in str(refused.value)

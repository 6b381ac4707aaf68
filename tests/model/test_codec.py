"""Values come back as what they were, or are refused with their path."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import enum
import math
import subprocess
import sys
from decimal import Decimal
from typing import Annotated, Any, Generic, Literal, NamedTuple, NoReturn, NotRequired, Optional, TypedDict, TypeVar
from uuid import UUID

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast._model.codec import codec_for
from holdfast._model.faults import PATH_CHARS_MAX
from holdfast._model.writing import encode_canonical
from holdfast.errors import NotDecodable, NotEncodable, UsageError

T = TypeVar("T")


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Point(NamedTuple):
    x: int
    y: float = 0.5


class Movie(TypedDict):
    title: str
    year: NotRequired[int]


@dataclasses.dataclass
class Item:
    name: str
    price: float
    _secret: int = 7


@dataclasses.dataclass(frozen=True, slots=True)
class Order:
    id: UUID
    items: list[Item]
    meta: dict[str, Any] = dataclasses.field(default_factory=dict)
    paid_at: dt.datetime | None = None


@dataclasses.dataclass
class Box(Generic[T]):
    content: T


@dataclasses.dataclass
class Tree:
    children: list[Tree]


class Circle(msgspec.Struct, tag=True):
    radius: int


class Square(msgspec.Struct, tag=True):
    side: int


class Address(pydantic.BaseModel):
    street: str = pydantic.Field(alias="streetName")
    since: dt.date
    floors: set[int] = set()


class Company(pydantic.BaseModel):
    title: str
    weight: float | None = None


@dataclasses.dataclass
class Parcel:
    address: Address
    others: list[Address]


class Unknown:
    pass


ADDRESS = Address(streetName="High St", since=dt.date(2020, 1, 2), floors={1, 2})
ITEM = Item("nail", 0.5)
ORDER = Order(UUID(int=5), [ITEM], {"x": [1]}, dt.datetime(2024, 5, 6, 7, 8, 9, 10, dt.UTC))


def comes_back(annotation: Any, value: Any) -> None:
    codec = codec_for(annotation)
    text, settled = codec.settle(value)
    assert settled == value
    assert type(settled) is type(value)
    assert codec.decode(text) == value
    assert text == codec.encode(value)


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (Order, ORDER),
        (list[Order], [ORDER]),
        (Circle | Square, Square(2)),
        (Point, Point(1, 2.5)),
        (Movie, {"title": "Heat"}),
        (Colour, Colour.BLUE),
        (Level, Level.HIGH),
        (Box[dt.date], Box(dt.date(2020, 2, 29))),
        (Tree, Tree([Tree([]), Tree([])])),
        (Literal["a", 3], 3),
        (Optional[dt.time], None),  # noqa: UP045 - the old spelling must work too
        (dt.datetime, dt.datetime(2024, 1, 1, 2, 3, tzinfo=dt.timezone(dt.timedelta(hours=-3, minutes=-30)))),
        (dt.datetime, dt.datetime(2024, 1, 1, 2, 3, 4, 5)),  # noqa: DTZ001 - naive ones come back naive
        (Annotated[int, msgspec.Meta(ge=0)], 3),
        (dict[dt.date, Decimal], {dt.date(2020, 1, 1): Decimal("1.10")}),
        (tuple[int, bytes], (1, b"\x00\xff")),
        (frozenset[str], frozenset({"a", "b"})),
        (int, 10**300),
        (int, -(2**64) - 1),
        (None, None),
        (Address, ADDRESS),
        (list[Address], [ADDRESS]),
        (Parcel, Parcel(ADDRESS, [ADDRESS])),
        (Address | None, ADDRESS),
        (Address | Company, Company(title="Acme")),
        (list[Address | str], ["x", ADDRESS]),
    ],
    ids=lambda each: repr(each)[:60],
)
def test_annotated_value_comes_back_as_what_it_was(annotation: Any, value: Any) -> None:
    comes_back(annotation, value)


SCALARS = {
    str: st.text(),
    int: st.integers(),
    float: st.floats(allow_nan=False, allow_infinity=False),
    bool: st.booleans(),
    bytes: st.binary(),
    dt.datetime: st.datetimes() | st.datetimes(timezones=st.just(dt.UTC)),
    dt.date: st.dates(),
    dt.time: st.times(),
    dt.timedelta: st.timedeltas(),
    UUID: st.uuids(),
    Decimal: st.decimals(allow_nan=False),
    Colour: st.sampled_from(Colour),
    Level: st.sampled_from(Level),
}


@st.composite
def typed_values(draw: st.DrawFn) -> tuple[Any, Any]:
    kind = draw(st.sampled_from(list(SCALARS)))
    values = SCALARS[kind]
    shape = draw(st.sampled_from(["one", "list", "set", "frozenset", "tuple", "dict", "optional", "box"]))
    makers: dict[str, Any] = {
        "one": (kind, values),
        "list": (list[kind], st.lists(values)),  # type: ignore[valid-type]
        "set": (set[kind], st.sets(values)),  # type: ignore[valid-type]
        "frozenset": (frozenset[kind], st.frozensets(values)),  # type: ignore[valid-type]
        "tuple": (tuple[kind, ...], st.lists(values).map(tuple)),  # type: ignore[valid-type]
        "dict": (dict[str, kind], st.dictionaries(st.text(), values)),  # type: ignore[valid-type]
        "optional": (kind | None, st.none() | values),
        "box": (Box[kind], st.builds(Box, values)),  # type: ignore[valid-type]
    }
    annotation, strategy = makers[shape]
    return annotation, draw(strategy)


@given(typed_values())
def test_any_typed_value_comes_back(typed: tuple[Any, Any]) -> None:
    comes_back(*typed)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(JSON)
def test_json_comes_back_without_an_annotation(value: Any) -> None:
    comes_back(Any, value)


@given(JSON)
def test_settled_value_is_what_every_replay_sees(value: Any) -> None:
    codec = codec_for(Any)
    text, settled = codec.settle({"tuple": (value, dt.date(2020, 1, 1))})
    assert codec.decode(text) == settled == {"tuple": [value, "2020-01-01"]}


def test_text_is_compact_and_keeps_the_order_of_keys() -> None:
    assert codec_for(dict[str, int]).encode({"b": 1, "a": 2}) == '{"b":1,"a":2}'


def test_plain_scalar_is_handed_back_itself() -> None:
    text = "x" * 100
    assert codec_for(str).settle(text)[1] is text
    assert codec_for(Any).settle(text)[1] is text
    assert codec_for(str | None).settle(text)[1] is text


def test_mutable_value_is_not_shared_with_the_settled_one() -> None:
    value = [1]
    assert codec_for(list[int]).settle(value)[1] is not value


def test_subclass_of_a_scalar_becomes_the_scalar() -> None:
    class Name(str):
        __slots__ = ()

        def __str__(self) -> str:
            return "other"

    class Number(float):
        __slots__ = ()

    text, settled = codec_for(Any).settle([Name("a"), Number(1.5)])
    assert text == '["a",1.5]'
    assert [type(each) for each in settled] == [str, float]


def test_integer_for_a_float_annotation_becomes_a_float() -> None:
    assert type(codec_for(float).settle(3)[1]) is float


def test_missing_annotation_is_plain_json() -> None:
    import inspect

    assert codec_for(inspect.Parameter.empty).settle({"a": 1}) == ('{"a":1}', {"a": 1})
    assert codec_for(object).settle([1]) == ("[1]", [1])
    assert codec_for(NoReturn).settle(1) == ("1", 1)
    assert codec_for(list[object]).settle([1]) == ("[1]", [1])


def test_codec_is_made_once_per_annotation() -> None:
    assert codec_for(list[Item]) is codec_for(list[Item])


def test_unhashable_annotation_works() -> None:
    assert codec_for(Annotated[int, []]).settle(3) == ("3", 3)


@pytest.mark.parametrize(
    ("value", "path", "word"),
    [
        (Unknown(), "order", "Unknown"),
        ({"meta": {"x": Unknown()}}, "order['meta']['x']", "Unknown"),
        ([1, [2, Unknown()]], "order[1][1]", "Unknown"),
        (
            dataclasses.replace(ORDER, items=[ITEM, Item("b", Decimal(1)), Item("c", 3j)]),
            "order.items[2].price",
            "complex",
        ),  # type: ignore[arg-type]
        (dataclasses.replace(ORDER, meta={"x": {1: {2: math.nan}}}), "order.meta['x'][1][2]", "nan"),
        (Item("b", math.inf), "order.price", "inf"),
        (math.nan, "order", "nan"),
        (-math.inf, "order", "inf"),
        ([None, math.nan], "order[1]", "nan"),
        ({1.5: None, "k": [math.nan]}, "order['k'][0]", "nan"),
        ("a\ud800", "order", "surrogate"),
        (["ok", {"k": "\udfff"}], "order[1]['k']", "surrogate"),
        ({"\ud800": 1}, "order", "surrogate"),
        ({"a": {(1, 2): 3}}, "order['a']", "tuple"),
        ({None: 3}, "order", "NoneType"),
        (Point(1, math.nan), "order.y", "nan"),
        (Circle(Unknown()), "order.radius", "Unknown"),  # type: ignore[arg-type]
        (Company(title="x", weight=math.nan), "order.weight", "nan"),
        ([Company(title="x", weight=math.inf)], "order[0].weight", "inf"),
        (10**5000, "order", "digits"),
        ({"a", Unknown()}, "order[...]", "Unknown"),
        (collections.deque([1]), "order", "deque"),
        ((x for x in [1]), "order", "generator"),
        (Unknown, "order", "type"),
    ],
    ids=lambda each: ascii(each)[:40] if isinstance(each, str) else type(each).__name__,
)
def test_what_cannot_be_stored_is_refused_with_its_path(value: Any, path: str, word: str) -> None:
    for use in (codec_for(Any).encode, codec_for(Any).settle):
        with pytest.raises(NotEncodable) as caught:
            use(value, where="order")
        assert caught.value.path == path
        assert word in str(caught.value)
        assert "annotate" in caught.value.hint
        str(caught.value).encode("ascii", "backslashreplace")


def test_value_that_contains_itself_is_refused() -> None:
    ring: list[Any] = [1]
    ring.append({"again": ring})
    with pytest.raises(NotEncodable, match="contains itself") as caught:
        codec_for(Any).encode(ring, where="order")
    assert caught.value.path == "order[1]['again']"


def test_deep_value_is_refused_with_a_path_that_can_be_read() -> None:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(NotEncodable, match="deep") as caught:
        codec_for(Any).settle(deep)
    assert len(caught.value.path) <= PATH_CHARS_MAX
    while deep:  # taken apart by hand: some Pythons cannot free such a value at once
        deep = deep.pop()


def test_the_same_part_twice_is_not_a_cycle() -> None:
    part = [1]
    assert codec_for(Any).settle([part, part]) == ("[[1],[1]]", [[1], [1]])


def test_none_beside_finite_floats_is_fine() -> None:
    value = {"a": None, "b": [1.5, None, Item("null", 2.0), {"null"}, Colour.RED, dt.date(2020, 1, 1)]}
    assert codec_for(Any).encode(value).count("null") == 4


@pytest.mark.parametrize(
    ("annotation", "value", "path", "words"),
    [
        (int, "x", "result", ("int", "str")),
        (None, 3, "result", ("null", "int")),
        (str | None, 3, "result", ("str", "int")),
        (bool, 1, "result", ("bool", "int")),
        (Order, dataclasses.replace(ORDER, items=[Item("a", "dear")]), "result.items[0].price", ("float", "str")),  # type: ignore[arg-type]
        (dict[str, dict[str, int]], {"a": {"b": 1}, "c": {"d": 2, "e": "f"}}, "result['c']['e']", ("int", "str")),
        (Annotated[int, msgspec.Meta(ge=0)], -1, "result", (">= 0",)),
        (Literal["a"], "b", "result", ("b",)),
        (Address, Company(title="x"), "result", ("street",)),
        (Address | Company, 3, "result", ("Address",)),
        (Parcel, {"address": ADDRESS, "others": [ADDRESS, {}]}, "result.others[1]", ("street",)),
    ],
    ids=lambda each: repr(each)[:60],
)
def test_value_that_does_not_fit_its_annotation_is_refused(
    annotation: Any, value: Any, path: str, words: tuple[str, ...]
) -> None:
    with pytest.raises(NotEncodable) as caught:
        codec_for(annotation).settle(value, where="result")
    assert caught.value.path == path
    assert all(word in str(caught.value) for word in words)


def test_text_that_does_not_fit_is_not_decodable() -> None:
    with pytest.raises(NotDecodable) as caught:
        codec_for(list[Item]).decode('[{"name":"a","price":1},{"name":2,"price":1}]', where="items")
    assert caught.value.path == "items[1].name"
    for text in ("", "{", "nonsense", "[" * 100_000, '"\\ud800'):
        with pytest.raises(NotDecodable):
            codec_for(Any).decode(text)


def test_error_of_post_init_is_not_decodable() -> None:
    @dataclasses.dataclass
    class Picky:
        x: int

        def __post_init__(self) -> None:
            raise KeyError("no")

    with pytest.raises(NotDecodable):
        codec_for(Picky).decode('{"x":1}')


@pytest.mark.parametrize("annotation", [Unknown, list[Unknown], dict[str, Unknown | None], ValueError, Box[Unknown]])
def test_unknown_class_in_an_annotation_is_refused_by_name(annotation: Any) -> None:
    with pytest.raises(NotEncodable, match=r"Unknown|ValueError"):
        codec_for(annotation)


@pytest.mark.parametrize("annotation", [Item | Order, dt.datetime | str, set[int] | list[int]])
def test_union_that_cannot_be_told_apart_is_a_usage_error(annotation: Any) -> None:
    with pytest.raises(UsageError, match=r"annotation .*\|"):
        codec_for(annotation)


def test_unknown_forward_reference_is_a_usage_error() -> None:
    holder = dataclasses.make_dataclass("Holder", [("x", "Nowhere")])
    with pytest.raises(UsageError, match="Nowhere"):
        codec_for(holder)


def test_fields_are_stored_by_name_whatever_the_aliases_of_a_model() -> None:
    class Odd(pydantic.BaseModel, extra="forbid"):
        x: int = pydantic.Field(validation_alias="in", serialization_alias="out")

        @pydantic.computed_field
        def double(self) -> int:
            return self.x * 2

    text, settled = codec_for(Odd).settle(Odd.model_validate({"in": 3}))
    assert (text, settled.x) == ('{"x":3}', 3)
    assert codec_for(list[Odd]).settle([settled])[1][0].x == 3


def test_canonical_text_sorts_sets_and_keys() -> None:
    assert encode_canonical({"b": {"z", "a"}, "a": 1}) == b'{"a":1,"b":["a","z"]}'
    assert (
        encode_canonical({2: {1, "a", None}, 1: [{(2, "b"), (1, "a")}]})
        == b'{"1":[[[1,"a"],[2,"b"]]],"2":["a",1,null]}'
    )
    assert encode_canonical({Colour.RED, Colour.BLUE}) == b'["blue","red"]'
    assert encode_canonical([ADDRESS]).endswith(b'"street":"High St"}]')


def test_canonical_text_does_not_depend_on_the_hash_seed() -> None:
    program = (
        "from holdfast._model.writing import encode_canonical as e; import dataclasses as d\n"
        "A = d.make_dataclass('A', ['x', 'y'], frozen=True)\n"
        "w = [str(i) for i in range(50)]\n"
        "print(e([set(w), {k: set(w) for k in set(w)}, {*w, 1, None}, {A(k, frozenset(w)) for k in w}]).decode())"
    )
    texts = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": str(seed), "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for seed in (1, 2, 3)
    }
    assert len(texts) == 1


def test_pydantic_is_not_imported() -> None:
    program = (
        "import sys, dataclasses; from holdfast._model.codec import codec_for\n"
        "A = dataclasses.make_dataclass('A', [('x', int)])\n"
        "codec_for(A).settle(A(1)); codec_for(object).settle([1.5, None])\n"
        "try: codec_for(A | list[A] | int | set)\n"
        "except Exception: pass\n"
        "assert not any('pydantic' in name for name in sys.modules)"
    )
    environment = {"PYTHONPATH": ":".join(sys.path)}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)

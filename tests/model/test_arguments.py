"""Calls come back by name and type; their fingerprints compare."""

from __future__ import annotations

import dataclasses
import datetime as dt
import functools
import json
import math
import subprocess
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast._model.arguments import FINGERPRINT_CHARS_MAX, Arguments, annotations_of
from holdfast.errors import NotDecodable, NotEncodable, UsageError

if TYPE_CHECKING:
    from elsewhere import Nowhere  # type: ignore[import-not-found]  # pyright: ignore[reportMissingImports]


@dataclasses.dataclass
class Item:
    price: float
    bought: dt.date


@dataclasses.dataclass
class Order:
    items: list[Item]


class Options(TypedDict, total=False):
    colour: str
    size: int


async def charge(order_id: str, cents: int, *, note: str = "", when: dt.date | None = None) -> str:
    return order_id


def place(order: Order, tags: set[str] = frozenset()) -> None:  # type: ignore[assignment]
    pass


def everything(a: int, b: dt.date, /, c: int = 3, *rest: dt.date, d: bytes, **more: dt.date) -> None:
    pass


def defaults(a: int = 1, b: int = 2, c: int = 3) -> tuple[int, int, int]:
    return a, b, c


def untyped(a, b=None, *args, **kwargs):  # type: ignore[no-untyped-def]
    pass


DAY = dt.date(2024, 5, 6)
ORDER = Order([Item(1.5, DAY)])


def test_call_is_an_object_by_parameter_name() -> None:
    assert Arguments(charge).encode(("order-17", 1200), {}) == '{"order_id":"order-17","cents":1200}'
    assert Arguments(charge).fingerprint(("order-17", 1200), {}) == '{"order_id":"order-17","cents":1200}'


def test_every_way_to_write_a_call_gives_the_same_text() -> None:
    arguments = Arguments(charge)
    ways = [
        (("a", 1), {"when": DAY, "note": "x"}),
        (("a",), {"note": "x", "cents": 1, "when": DAY}),
        ((), {"when": DAY, "cents": 1, "order_id": "a", "note": "x"}),
    ]
    assert {arguments.encode(*way) for way in ways} == {'{"order_id":"a","cents":1,"note":"x","when":"2024-05-06"}'}
    assert {arguments.fingerprint(*way) for way in ways} == {arguments.encode(*ways[0])}


def test_absent_argument_is_left_to_the_default_of_the_code() -> None:
    arguments = Arguments(defaults)
    assert arguments.encode((), {"c": 5}) == '{"c":5}'
    assert arguments.decode('{"c":5}') == ((), {"c": 5})
    assert arguments.decode('{"a":4,"c":5}') == ((4,), {"c": 5})
    assert arguments.encode((), {}) == arguments.fingerprint((), {}) == "{}"
    assert arguments.decode("{}") == ((), {})


def test_stars_have_their_own_keys() -> None:
    args = (1, DAY, 5, DAY, DAY)
    kwargs = {"d": b"\x00", "z": DAY, "rest": DAY, "c2": DAY}
    text = Arguments(everything).encode(args, kwargs)
    assert json.loads(text) == {
        "a": 1,
        "b": "2024-05-06",
        "c": 5,
        "*args": ["2024-05-06", "2024-05-06"],
        "d": "AA==",
        "**kwargs": {"z": "2024-05-06", "rest": "2024-05-06", "c2": "2024-05-06"},
    }
    assert Arguments(everything).decode(text) == (args, kwargs)


def test_gap_before_a_positional_only_or_star_argument_is_filled_by_its_default() -> None:
    def function(a: int, b: int = 2, /, c: int = 3, *rest: int) -> None:
        pass

    arguments = Arguments(function)
    assert arguments.decode('{"a":1,"*args":[4]}') == ((1, 2, 3, 4), {})
    assert arguments.decode('{"a":1,"c":4}') == ((1,), {"c": 4})


def test_arguments_come_back_typed() -> None:
    arguments = Arguments(place)
    assert arguments.decode(arguments.encode((ORDER,), {"tags": {"x"}})) == ((ORDER, {"x"}), {})


def test_function_without_annotations_takes_plain_json() -> None:
    text = Arguments(untyped).encode((1, [2], 3), {"x": {"y": DAY}})
    assert text == '{"a":1,"b":[2],"*args":[3],"**kwargs":{"x":{"y":"2024-05-06"}}}'
    assert Arguments(untyped).decode(text) == ((1, [2], 3), {"x": {"y": "2024-05-06"}})


def test_unpacked_keywords_are_typed() -> None:
    def paint(**options: Unpack[Options]) -> None:
        pass

    assert Arguments(paint).decode('{"**kwargs":{"size":3}}') == ((), {"size": 3})
    with pytest.raises(NotEncodable, match="size"):
        Arguments(paint).encode((), {"size": "big"})


@given(
    st.lists(st.integers() | st.text() | st.none() | st.lists(st.integers()), min_size=1, max_size=6),
    st.dictionaries(st.text(min_size=1).filter(lambda name: name not in ("a", "b")), st.integers()),
)
def test_any_json_call_comes_back(args: list[Any], kwargs: dict[str, int]) -> None:
    arguments = Arguments(untyped)
    assert arguments.decode(arguments.encode(tuple(args), kwargs)) == (tuple(args), kwargs)
    assert arguments.fingerprint(tuple(args), kwargs) == arguments.fingerprint(
        tuple(args), dict(reversed(kwargs.items()))
    )


@pytest.mark.parametrize(
    ("args", "kwargs", "path"),
    [
        ((Order([Item(1.0, DAY), Item(3j, DAY)]),), {}, "order.items[1].price"),  # type: ignore[arg-type]
        ((Order([Item(math.nan, DAY)]),), {}, "order.items[0].price"),
        ((Order([Item("x", DAY)]),), {}, "order.items[0].price"),  # type: ignore[arg-type]
        ((ORDER, {"\ud800"}), {}, "tags[...]"),
        ((ORDER,), {"tags": 3}, "tags"),
    ],
)
def test_input_that_would_not_come_back_is_refused_with_its_path(args: Any, kwargs: Any, path: str) -> None:
    with pytest.raises(NotEncodable) as caught:
        Arguments(place).encode(args, kwargs)
    assert caught.value.path == path


def test_fingerprint_of_what_cannot_be_written_is_refused_with_its_path() -> None:
    for args, kwargs in [(("a", {"x": [object()]}), {}), (("a",), {"cents": {"x": [object()]}})]:
        with pytest.raises(NotEncodable) as caught:
            Arguments(charge).fingerprint(args, kwargs)  # type: ignore[arg-type]
        assert caught.value.path == "cents['x'][0]"


def test_fingerprint_sorts_what_has_no_order() -> None:
    arguments = Arguments(untyped)
    assert arguments.fingerprint(({"b": 1, "a": {"z", "y"}},), {}) == '{"a":{"a":["y","z"],"b":1}}'
    assert arguments.fingerprint(({2: 1, 1: {None, "y"}}, 5), {}) == '{"a":{"1":["y",null],"2":1},"b":5}'
    assert arguments.fingerprint((math.nan,), {}) == '{"a":null}'


def test_long_fingerprint_is_cut_and_hashed() -> None:
    arguments = Arguments(untyped)
    same = "é" * 250
    longs = {arguments.fingerprint((f"{same}{end}",), {}) for end in range(20)}
    assert len(longs) == 20
    assert all(len(each) <= FINGERPRINT_CHARS_MAX for each in longs)
    head, _, digest = longs.pop().partition("…#")
    assert head == '{"a":"' + "é" * 194
    assert len(digest) == 16
    assert int(digest, 16) >= 0
    fits = "x" * (FINGERPRINT_CHARS_MAX - len('{"a":""}'))
    assert arguments.fingerprint((fits,), {}) == f'{{"a":"{fits}"}}'


def test_fingerprint_does_not_depend_on_the_hash_seed() -> None:
    program = (
        "from holdfast._model.arguments import Arguments\n"
        "words = [str(number) for number in range(100)]\n"
        "def f(a, b=0, **more): ...\n"
        "print(Arguments(f).fingerprint((set(words), {w: {w} for w in set(words)}), {w: 1 for w in set(words)}))"
    )
    texts = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": str(seed), "PYTHONPATH": ":".join(sys.path), "PYTHONIOENCODING": "utf-8"},
            capture_output=True,
            check=True,
        ).stdout
        for seed in (1, 2, 3)
    }
    assert len(texts) == 1


@pytest.mark.parametrize(
    ("function", "args", "kwargs", "word"),
    [
        (charge, (), {}, "order_id"),
        (charge, ("a",), {}, "cents"),
        (charge, ("a", 1, 2), {}, "too many positional"),
        (charge, ("a", 1), {"colour": 1}, "colour"),
        (charge, ("a", 1), {"order_id": 1}, "order_id"),
        (everything, (1, DAY), {}, "'d'"),
    ],
)
def test_wrong_call_is_a_usage_error_with_the_signature(
    function: Callable[..., object], args: tuple[Any, ...], kwargs: dict[str, Any], word: str
) -> None:
    arguments = Arguments(function)
    for use in (arguments.check, arguments.encode, arguments.fingerprint):
        with pytest.raises(UsageError, match=word) as caught:
            use(args, kwargs)
        assert f"{function.__qualname__}()" in str(caught.value)
        assert f"{function.__name__}(" in caught.value.hint


def test_right_call_passes_the_check() -> None:
    Arguments(charge).check(("a", 1), {})
    Arguments(charge).check(("a",), {"cents": 1, "note": "x"})


@pytest.mark.parametrize(
    ("text", "path", "word"),
    [
        ('{"order_id":1,"cents":2}', "order_id", "str"),
        ('{"order_id":"a"}', "cents", "cents"),
        ('{"order_id":"a","cents":2,"colour":3}', "colour", "colour"),
        ('{"order_id":"a","cents":2,"*args":[3]}', "*args", "args"),
        ("[1]", "", "object"),
        ("nonsense", "", "object"),
    ],
)
def test_text_that_is_no_call_of_the_function_is_not_decodable(text: str, path: str, word: str) -> None:
    with pytest.raises(NotDecodable, match=word) as caught:
        Arguments(charge).decode(text)
    assert caught.value.path == path
    assert "charge" in str(caught.value)


def test_local_class_is_found_in_the_closure() -> None:
    @dataclasses.dataclass
    class Local:
        day: dt.date

    def function(value: Local) -> Local:
        return Local(value.day)

    assert Arguments(function).decode('{"value":{"day":"2024-05-06"}}') == ((Local(DAY),), {})
    assert annotations_of(function)["return"] is Local


def test_unresolvable_annotation_is_a_usage_error_at_the_first_use() -> None:
    def function(a: int, b: Nowhere) -> None:
        pass

    arguments = Arguments(function)
    with pytest.raises(UsageError, match=r"'Nowhere' of the parameter 'b' of .*function"):
        arguments.encode((1, 2), {})


def test_annotation_of_an_unknown_class_names_the_parameter() -> None:
    def function(stream: type) -> None:
        pass

    with pytest.raises(NotEncodable, match=r"parameter 'stream' of .*function"):
        Arguments(function).check((1,), {})
    with pytest.raises(UsageError, match="parameter 'x' of"):
        Arguments(_ambiguous).check((1,), {})


def _ambiguous(x: Item | Order) -> None:
    pass


def test_wrapped_function_is_called_as_the_one_it_wraps() -> None:
    @functools.wraps(charge)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return charge(*args, **kwargs)

    assert Arguments(wrapper).encode(("a",), {"cents": 1}) == '{"order_id":"a","cents":1}'

"""Attributes: searchable metadata of a run, as people give it and as rows.

    {"customer": 42, "address": {"city": "Berlin"}, "tags": ["new", "eu"]}

    customer       42
    address.city   Berlin
    tags           new
    tags           eu

Nested names are joined with dots, a list is one row for each item: whoever asks for a value finds the run if any item
is that value. The nested form is kept beside the rows and is what people see.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Final

from holdfast._model.bounds import check_text, plain, shown
from holdfast._model.search import Scalar
from holdfast.errors import UsageError

ATTRIBUTES_MAX: Final = 64
"""Rows of one run."""
KEY_CHARS_MAX: Final = 200
ATTRIBUTE_CHARS_MAX: Final = 1_000
DEPTH_MAX: Final = 8


def attribute_pairs(attributes: Mapping[str, Any]) -> tuple[tuple[str, Scalar], ...]:
    """Attributes as rows; booleans become 0 and 1.

    Raises:
        UsageError: a name or value cannot be one, or there are too many.
    """
    if not isinstance(attributes, Mapping):
        raise UsageError(f"attributes must be a mapping of names to values, not {shown(attributes)}")
    pairs: dict[tuple[str, Scalar], None] = {}
    for key, value in _leaves(attributes, "", DEPTH_MAX):
        pairs[key, _checked(key, value)] = None
        if len(pairs) > ATTRIBUTES_MAX:
            raise UsageError(
                f"attributes have more than {ATTRIBUTES_MAX} values",
                hint="keep what is searched for; the rest is input",
            )
    return tuple(pairs)


def _leaves(attributes: Mapping[Any, Any], above: str, depth: int) -> Iterator[tuple[str, Any]]:
    for name, value in attributes.items():
        if not isinstance(name, str) or not name or not name.isprintable():
            raise UsageError(f"attributes: {shown(name)} must be a name of printable characters")
        key = f"{above}{plain(name)}"
        if len(key) > KEY_CHARS_MAX:
            raise UsageError(
                f"attributes: the name {shown(key)} has {len(key)} characters; the bound is {KEY_CHARS_MAX}"
            )
        if isinstance(value, Mapping):
            if depth == 1:
                raise UsageError(f"attributes[{shown(key)}] is nested deeper; the bound is {DEPTH_MAX} levels")
            yield from _leaves(value, f"{key}.", depth - 1)
        elif isinstance(value, list | tuple):
            yield from ((key, item) for item in value)
        else:
            yield key, value


def _checked(key: str, value: Any) -> Scalar:
    place = f"attributes[{shown(key)}]"
    if not isinstance(value, str | int | float) or (isinstance(value, float) and not math.isfinite(value)):
        raise UsageError(
            f"{place}={shown(value)} must be a string, a finite number or a boolean",
            hint="or a list of those, or a mapping of names to those",
        )
    if isinstance(value, str):
        check_text(place, value, chars_max=ATTRIBUTE_CHARS_MAX)
        return plain(value)
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise UsageError(f"{place}={shown(value)} does not fit 64 bits", hint="store it as text")
    return int.__index__(value) if isinstance(value, int) else float.__float__(value)

"""Why a value cannot be stored: which part of it, and what is wrong with that.

Mostly slow, and asked only after the fast way failed; the two questions that begin with `has_` are asked of values
whose text looks as if something had been lost on the way.
"""

# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false, reportUnknownMemberType=false
# (of a user's payload nothing is known)

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, time, timedelta
from typing import Any

from holdfast._model.bounds import shown
from holdfast._model.writing import (
    LEVELS_MAX,
    children,
    encode_plain,
    field_names,
    has_fields,
    is_container,
    is_model_class,
    key_text,
    name_of,
    told,
)
from holdfast.errors import NotEncodable

PATH_CHARS_MAX = 200

HINT = "annotate it with a type that JSON can carry, return JSON-able data, or convert it in the step"
SCALARS: frozenset[type] = frozenset({str, int, float, bool, type(None)})


def refusal(value: object, where: str, error: Exception | None) -> NotEncodable:
    """The error that tells which part of a value cannot be written.

    `error` is what the encoder said; None when it wrote `null` for a float that JSON does not have.
    """
    path, reason = _find_fault(value, where) or (where, _reason(error))
    path = shorten(path)
    hint = "was an `await` forgotten?" if hasattr(type(value), "__await__") else HINT
    return NotEncodable(f"{path} cannot be stored: {reason}", path=path, hint=hint)


def _reason(error: Exception | None) -> str:
    if error is None:
        return "JSON has no form for a part of it"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, UnicodeEncodeError):
        return "its text holds a lone surrogate, which UTF-8 does not have"
    return told(error)


def _find_fault(value: object, where: str) -> tuple[str, str] | None:
    """The first part that cannot be written, depth first and without recursion."""
    waiting: list[Iterator[tuple[str, object]]] = [iter([(where, value)])]
    trail: list[str] = []
    above: list[int] = []
    while waiting:
        step = next(waiting[-1], None)
        if step is None:
            waiting.pop()
            if trail:
                trail.pop()
                above.pop()
            continue
        suffix, part = step
        reason = "it contains itself" if id(part) in above else _fault_of(part, len(waiting))
        if reason is not None:
            return "".join(trail) + suffix, reason
        if is_container(part):
            trail.append(suffix)
            above.append(id(part))
            waiting.append(children(part))
    return None


def _fault_of(part: object, level: int) -> str | None:
    """What is wrong with this part, its children left aside."""
    if level > LEVELS_MAX:
        return f"it is nested more than {LEVELS_MAX} levels deep"
    if isinstance(part, float) and part - part != 0.0:
        return f"JSON has no {float.__repr__(part)}"
    try:
        if has_odd_offset(part, deep=False):
            return "its UTC offset has seconds, and ISO 8601 knows whole minutes: convert it to UTC"
        if isinstance(part, dict):
            _key_fault_probe(part)
        elif is_model_class(type(part)) or not is_container(part):
            encode_plain(part)
    except Exception as error:  # it is the answer
        return _reason(error)
    return None


def _key_fault_probe(part: dict[Any, Any]) -> None:
    for key in part:
        try:
            encode_plain({key: None})
        except TypeError as error:
            raise TypeError(f"its key {shown(key)} is a {name_of(type(key))}, and JSON keys are text") from error


def has_non_finite(value: Any) -> bool:
    """Whether msgspec wrote `null` for a NaN or an infinity in here."""
    kind = type(value)
    if kind is float:
        return bool(value - value != 0.0)
    if kind in SCALARS:
        return False
    if isinstance(value, dict):
        return any(map(has_non_finite, value.values()))
    if isinstance(value, list | tuple | set | frozenset):
        return any(map(has_non_finite, value))
    if isinstance(value, float):
        return has_non_finite(float.__float__(value))
    return has_fields(type(value)) and any(has_non_finite(getattr(value, name, None)) for name in field_names(value))


def has_odd_offset(value: Any, *, deep: bool = True) -> bool:
    """Whether msgspec cut the seconds off a UTC offset in here: that is another instant."""
    if isinstance(value, datetime | time):
        offset = value.utcoffset()
        return offset is not None and bool(offset % timedelta(minutes=1))
    return deep and is_container(value) and any(has_odd_offset(child) for _, child in children(value))


def refuse_like_keys(value: object, where: str) -> None:
    """Raises if a dictionary in here has two keys of one text, such as ``1`` and ``"1"``: one of them was lost."""
    waiting = [(where, value)]
    while waiting:
        path, part = waiting.pop()
        if isinstance(part, dict):
            texts: dict[str, Any] = {}
            for key in part:
                like = texts.setdefault(key_text(key), key)
                if like is not key:
                    raise NotEncodable(
                        f"{shorten(path)} cannot be stored: its keys {shown(like)} and {shown(key)} are one in JSON",
                        path=shorten(path),
                        hint=HINT,
                    )
        if is_container(part):
            waiting += ((path + suffix, child) for suffix, child in children(part))


def shorten(path: str) -> str:
    return path if len(path) <= PATH_CHARS_MAX else f"{path[: PATH_CHARS_MAX - 60]}…{path[-59:]}"

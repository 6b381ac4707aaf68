"""Bounds of options: each class of options checks its own fields when it is made, and an error names field and bound.

A frozen options class calls these from ``__post_init__``, so that a wrong value is refused where it was written and not
an hour later by a service that sleeps for NaN seconds.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final, TypeGuard

from holdfast.errors import UsageError

SHOWN_CHARS_MAX: Final = 80
ID_CHARS_MAX: Final = 200
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
INSTANT_US_MIN: Final = (datetime.min.replace(tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)
INSTANT_US_MAX: Final = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)
"""Microseconds UTC that a `datetime` can be: the years 1 to 9999."""


def shown(value: object) -> str:
    """A value for a message: short, and whatever it is, since a message about a hostile value must not fail over it."""
    try:
        text = repr(value)
    except Exception as error:  # foreign code, or an integer of more digits than Python prints
        return f"<{type(value).__name__} whose repr fails: {type(error).__name__}>"
    return text if len(text) <= SHOWN_CHARS_MAX else f"{text[: SHOWN_CHARS_MAX - 1]}…"


def is_id(text: object) -> TypeGuard[str]:
    """Whether this can be the id of a run: 1 to 200 characters that can be printed."""
    return isinstance(text, str) and 1 <= len(text) <= ID_CHARS_MAX and text.isprintable()


def plain(text: str) -> str:
    """The text as a `str` and nothing more: what extends it (an enum, a marked-up text) may print as something else."""
    return str.__str__(text)


def check_whole(options: object, name: str, *, low: int, high: int, none: str = "") -> None:
    """Field `name` of `options` is a whole number from `low` to `high`, or None where `none` says what that means.

    Raises:
        UsageError: names class, field, value and bounds.
    """
    value = getattr(options, name)
    if value is None and none:
        return
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise _misfit(options, name, f"a whole number from {low:,} to {high:,}{f', or None: {none}' if none else ''}")


def check_number(options: object, name: str, *, low: float, high: float) -> None:
    """Field `name` of `options` is a number, not NaN, from `low` to `high`.

    Raises:
        UsageError: names class, field, value and bounds.
    """
    value = getattr(options, name)
    if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high:
        raise _misfit(options, name, f"a number from {low:g} to {high:g}")


def check_kind(options: object, name: str, kind: type) -> None:
    """Field `name` of `options` is a `kind`.

    Raises:
        UsageError: names class, field and value.
    """
    if not isinstance(getattr(options, name), kind):
        article = "an" if kind.__name__[0] in "AEIOU" else "a"
        raise _misfit(options, name, f"{article} {kind.__name__}")


def check_text(place: str, text: str, *, chars_max: int) -> None:
    """A text of at most so many characters that UTF-8 can hold; `place` names it.

    Raises:
        UsageError: it is longer, or holds a lone surrogate.
    """
    if len(text) > chars_max:
        raise UsageError(f"{place} has {len(text):,} characters; the bound is {chars_max:,}")
    if not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text):
        raise UsageError(
            f"{place}={shown(text)} holds a lone surrogate, which UTF-8 does not have",
            hint="leave it out, or encode the text in another way",
        )


def _misfit(options: object, name: str, wanted: str) -> UsageError:
    return UsageError(f"{type(options).__name__}({name}={shown(getattr(options, name))}) must be {wanted}")

"""What users type: workflow arguments, attributes, durations and instants."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import click
import msgspec

from holdfast.errors import UsageError

if TYPE_CHECKING:
    _ParamType: TypeAlias = click.ParamType[Any]  # generic to type checkers, not in every release
else:
    _ParamType = click.ParamType

_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|min|m|h|d|)")
DURATION_SECONDS_MAX: Final = 36_500 * 86_400
_SECONDS: Final = {"ms": 0.001, "": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3_600.0, "d": 86_400.0}


class Duration(_ParamType):
    """Seconds, or a number with a unit: `30`, `1.5s`, `250ms`, `10m`, `2h`, `7d`."""

    name = "DURATION"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, int | float):
            return float(value)
        match = _DURATION.fullmatch(str(value).strip())
        if match is None:
            self.fail(f"{value!r} is not a duration (hint: such as 30, 1.5s, 10m, 2h or 7d)", param, ctx)
        seconds = float(match[1]) * _SECONDS[match[2]]
        if seconds > DURATION_SECONDS_MAX:
            self.fail(f"{value!r:.40} is longer than 36,500 days (hint: such as 30, 1.5s, 10m, 2h or 7d)", param, ctx)
        return seconds


class Instant(_ParamType):
    """ISO 8601, such as `2026-03-01T09:00` (this computer's time zone) or `2026-03-01T09:00+01:00`."""

    name = "INSTANT"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        try:
            at = datetime.fromisoformat(str(value))
        except ValueError:
            self.fail(f"{value!r} is not an instant (hint: such as 2026-03-01T09:00+01:00)", param, ctx)
        try:
            at = at.astimezone() if at.tzinfo is None else at
            at.astimezone(UTC)
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is not in the calendar of this computer (hint: the years are 1 to 9999)", param, ctx)
        return at


def arguments(words: Sequence[str]) -> dict[str, Any]:
    """A workflow's arguments: one JSON object, or `key=value` pairs.

    Raises:
        UsageError: they are neither.
    """
    if len(words) == 1 and words[0].lstrip()[:1] in {"{", "["}:
        return _json_object(words[0])
    return pairs(words, what="argument")


def pairs(words: Sequence[str], *, what: str) -> dict[str, Any]:
    """`key=value` pairs; a value is JSON if it parses as such, else text.

    Raises:
        UsageError: a word is no pair, or a key is given twice.
    """
    found: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise UsageError(f"{what} {word!r} is not key=value", hint=f"{what}s are key=value pairs{_or_json(what)}")
        if key in found:
            raise UsageError(f"{what} {key!r} is given twice", hint="keep one of them")
        found[key] = json_or_text(value)
    return found


def json_or_text(text: str) -> Any:
    """The JSON value that a text spells, or the text."""
    try:
        return msgspec.json.decode(text)
    except RecursionError as error:
        raise UsageError(f"{text!r:.40} is nested too deep", hint="pass less") from error
    except (msgspec.DecodeError, UnicodeEncodeError) as error:
        if text[:1] in ("{", "[", '"'):
            raise UsageError(
                f"{text!r:.80} begins like JSON, but is not: {error}", hint="quote it for the shell"
            ) from error
        return text


def _json_object(text: str) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
        raise UsageError(
            f"the arguments are not JSON: {error}", hint="quote them for the shell: '{\"key\": 1}'"
        ) from error
    if not isinstance(value, dict):
        raise UsageError("the arguments must be one JSON object", hint="by name: '{\"key\": 1}', or key=1")
    return value


def _or_json(what: str) -> str:
    return ", or all of them are one JSON object" if what == "argument" else ""

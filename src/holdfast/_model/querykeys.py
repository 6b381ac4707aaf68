"""What the keys and words of a query mean: `KEYS` is the table of built-in keys, one line each.

Any other key is an attribute's. Words become values here: instants, durations, numbers, states. A word without quotes
that looks like a number stands for the number and for the text, because who types it cannot know which one was stored;
so does `true` for the stored boolean and the text.

Durations are distances from now: back for what has been (`started:>2h`: more than two hours ago), forward for what is
to come (`due:<10m`: within the next ten minutes). A date means the whole day in UTC, a time to the minute the whole
minute: `created:2026-03-01` is any instant of that day, `created:>2026-03-01` begins with the next.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Final, NamedTuple

from holdfast._model.lifecycle import RunState
from holdfast._model.query import Query, Term, Word, WordTest
from holdfast._model.search import Between, Condition, Exists, OneOf, Prefix, Scalar, Test
from holdfast.errors import QueryError

AGE_MAX_US: Final = 1_000 * 365 * 86_400_000_000

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,3})?")
_DURATION: Final = re.compile(r"(?:[0-9]{1,12}(?:\.[0-9]{1,6})?(?:ms|min|s|m|h|d|w))+")
_DURATION_PART: Final = re.compile(r"([0-9.]+)(ms|min|s|m|h|d|w)")
_UNITS_US: Final = {
    "ms": 1_000,
    "s": 1_000_000,
    "m": 60_000_000,
    "min": 60_000_000,
    "h": 3_600_000_000,
    "d": 86_400_000_000,
    "w": 604_800_000_000,
}
_INSTANT: Final = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})(?:[T ]([0-9]{2}:[0-9]{2})(:[0-9]{2}(\.[0-9]{1,6})?)?(Z|[+-][0-9]{2}:[0-9]{2})?)?"
)


class Kind(Enum):
    """What a built-in key's words are."""

    STATE = "states"
    TEXT = "texts"
    NUMBER = "numbers"
    PAST = "instants or ages"
    FUTURE = "instants or durations from now"


class Key(NamedTuple):
    """A built-in key: the column that it looks at, and what its words are."""

    name: str
    column: str
    kind: Kind


KEYS: Final = (
    Key("state", "state", Kind.STATE),
    Key("workflow", "workflow", Kind.TEXT),
    Key("id", "id", Kind.TEXT),
    Key("created", "created_at", Kind.PAST),
    Key("started", "started_at", Kind.PAST),
    Key("ended", "ended_at", Kind.PAST),
    Key("due", "due_at", Kind.FUTURE),
    Key("priority", "priority", Kind.NUMBER),
    Key("crashes", "crashes", Kind.NUMBER),
    Key("worker", "worker", Kind.TEXT),
    Key("reason", "reason", Kind.TEXT),
    Key("forked", "forked_from", Kind.TEXT),
)
_KEYS: Final = {key.name: key for key in KEYS}


def conditions_of(query: Query, *, now: int) -> tuple[Condition, ...]:
    """What a query asks of a store, with durations counted from `now`.

    Raises:
        QueryError: a word does not fit its key.
    """
    return tuple(_Meaning(query, term, now).condition() for term in query.terms)


def attribute_terms(query: Query) -> list[Term]:
    """Terms whose key must be that of an attribute; those written with ``@`` are taken as they are."""
    return [term for term in query.terms if not term.attribute and term.key not in _KEYS]


def unknown_key(query: Query, term: Term, attribute_keys: Iterable[str]) -> QueryError:
    """The error for a key that is neither built in nor an attribute of any run."""
    near = difflib.get_close_matches(term.key, [*_KEYS, *attribute_keys], n=1, cutoff=0.55)
    hint = f"did you mean {near[0]!r}? " if near else f"keys are {', '.join(_KEYS)}, and attributes. "
    return QueryError(
        f"{term.key!r} is neither a key nor an attribute of any run",
        query=query.text,
        at=term.at,
        end=term.end,
        hint=f"{hint}@{term.key}:... asks for the attribute all the same",
    )


@dataclass(frozen=True, slots=True)
class _Meaning:
    """One term on its way to a condition."""

    query: Query
    term: Term
    now: int

    def condition(self) -> Condition:
        term, key = self.term, _KEYS.get(self.term.key)
        if term.attribute or key is None:
            return Condition(term.key, self._attribute(term.test), term.negated, attribute=True)
        return Condition(key.column, self._column(key, term.test), term.negated)

    def _column(self, key: Key, test: WordTest) -> Test:
        if isinstance(test, Exists):
            return test
        match key.kind:
            case Kind.STATE:
                return self._states(test)
            case Kind.TEXT:
                return self._texts(test)
            case Kind.NUMBER:
                return self._numbers(test)
            case Kind.PAST | Kind.FUTURE:
                return self._instants(test, back=key.kind is Kind.PAST)

    # Kinds of columns.

    def _states(self, test: WordTest) -> Test:
        if not isinstance(test, OneOf):
            raise self._fault(_first(test), "states have no order and no beginning", "such as state:failed,cancelled")
        known = [state.value for state in RunState]
        for word in test.values:
            if word.text not in known:
                near = difflib.get_close_matches(word.text, known, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"one of {', '.join(known)}"
                raise self._fault(word, f"{word.text!r} is not a state of a run", hint)
        return OneOf(tuple(word.text for word in test.values))

    def _texts(self, test: WordTest) -> Test:
        match test:
            case OneOf(words):
                return OneOf(tuple(word.text for word in words))
            case Prefix(word):
                return Prefix(word.text)
            case _:
                raise self._fault(
                    _first(test),
                    f"{self.term.key} cannot be compared",
                    f"such as {self.term.key}:a,b or {self.term.key}:a*",
                )

    def _numbers(self, test: WordTest) -> Test:
        match test:
            case OneOf(words):
                return OneOf(tuple(map(self._number, words)))
            case Between(low, high, low_included, high_included):
                first, last = (None if word is None else self._number(word) for word in (low, high))
                return Between(first, last, low_included, high_included)
            case _:
                raise self._fault(
                    _first(test), f"{self.term.key} is a number", f"such as {self.term.key}:5 or {self.term.key}:>5"
                )

    def _number(self, word: Word) -> int | float:
        number = number_of(word)
        if number is None:
            raise self._fault(word, f"{self.term.key} is a number", f"such as {self.term.key}:5 or {self.term.key}:>5")
        return number

    def _instants(self, test: WordTest, *, back: bool) -> Test:
        match test:
            case OneOf((word,)):
                span = self._span(word)
                return Between(span[0], span[1], True, False)
            case Between(low, high, low_included, high_included):
                words = [word for word in (low, high) if word is not None]
                durations = sum(map(is_duration, words))
                if durations not in (0, len(words)):
                    raise self._fault(words[-1], "one bound is a duration, the other is not", "write both in one way")
                if durations:
                    return self._distant(low, high, low_included, high_included, back=back)
                return self._dated(low, high, low_included, high_included)
            case _:
                raise self._fault(_first(test), f"{self.term.key} is an instant", _time_hint(self.term.key))

    def _dated(self, low: Word | None, high: Word | None, low_included: bool, high_included: bool) -> Between[Scalar]:
        """Bounds are spans of time: what is after a day is after its end."""
        after = None if low is None else self._span(low)[0 if low_included else 1]
        before = None if high is None else self._span(high)[1 if high_included else 0]
        if after is not None and before is not None and after >= before:
            raise self._reversed(low)
        return Between(after, before, True, False)

    def _distant(
        self, low: Word | None, high: Word | None, low_included: bool, high_included: bool, *, back: bool
    ) -> Between[Scalar]:
        """Bounds are distances from now: the greater the age, the earlier the instant."""
        near, far = (None if word is None else self._distance(word) for word in (low, high))
        if near is not None and far is not None and near > far:
            raise self._reversed(low)
        if not back:
            return Between(_shifted(self.now, near), _shifted(self.now, far), low_included, high_included)
        return Between(
            _shifted(self.now, None if far is None else -far),
            _shifted(self.now, None if near is None else -near),
            high_included,
            low_included,
        )

    def _distance(self, word: Word) -> int:
        total = sum(float(amount) * _UNITS_US[unit] for amount, unit in _DURATION_PART.findall(word.text))
        if total > AGE_MAX_US:
            raise self._fault(word, "this is longer than a thousand years", "such as 30m, 2h or 7d")
        return int(total)

    def _span(self, word: Word) -> tuple[int, int]:
        """First instant of what a word names, and the first one after it."""
        key = self.term.key
        if is_duration(word):
            raise self._fault(
                word, f"{key} cannot be exactly a duration", f"such as {key}:<{word.text} or {key}:>{word.text}"
            )
        match = _INSTANT.fullmatch(word.text)
        if match is None:
            raise self._fault(word, f"{word.text!r:.60} is neither an instant nor a duration", _time_hint(key))
        day, minute, second, fraction, zone = match.groups()
        iso = f"{day}T{minute or '00:00'}{second or ''}{'+00:00' if zone in (None, 'Z') else zone}"
        try:
            first = (datetime.fromisoformat(iso) - _EPOCH) // timedelta(microseconds=1)
        except (ValueError, OverflowError):
            raise self._fault(word, f"{word.text!r:.60} is not in the calendar", _time_hint(key)) from None
        unit = "d" if minute is None else "m" if second is None else "s"
        return first, first + (1 if fraction else _UNITS_US[unit])

    # Attributes.

    def _attribute(self, test: WordTest) -> Test:
        match test:
            case OneOf(words):
                return OneOf(tuple(dict.fromkeys(value for word in words for value in readings(word))))
            case Prefix(word):
                return Prefix(word.text)
            case Exists():
                return test
            case Between(low, high, low_included, high_included):
                return self._bounds(low, high, low_included, high_included)

    def _bounds(self, low: Word | None, high: Word | None, low_included: bool, high_included: bool) -> Test:
        """Both numbers if they look so, else both texts."""
        words = [word for word in (low, high) if word is not None]
        first, last = (None if word is None else number_of(word) for word in (low, high))
        numbers = [number for number in (first, last) if number is not None]
        if len(numbers) == len(words):
            if len(numbers) == 2 and numbers[0] > numbers[1]:
                raise self._reversed(words[0])
            return Between(first, last, low_included, high_included)
        if numbers and not any(word.quoted for word in words):
            raise self._fault(words[-1], "one bound is a number, the other is not", "write both in one way")
        start, end = (None if word is None else word.text for word in (low, high))
        return Between(start, end, low_included, high_included)

    def _reversed(self, word: Word | None) -> QueryError:
        """A range that nothing can be in is a slip: an empty answer would hide it."""
        return self._fault(word, "this range is empty: it begins behind its end", "write the smaller one first")

    def _fault(self, word: Word | None, message: str, hint: str) -> QueryError:
        at, end = (self.term.at, self.term.end) if word is None else (word.at, word.at + len(str(word)))
        return QueryError(message, query=self.query.text, at=at, end=end, hint=hint)


def readings(word: Word) -> Sequence[Scalar]:
    """What a word may stand for: the text, and what it looks like."""
    if word.quoted:
        return (word.text,)
    if word.text in ("true", "false"):
        return (int(word.text == "true"), word.text)
    number = number_of(word)
    return (word.text,) if number is None else (number, word.text)


def number_of(word: Word) -> int | float | None:
    """The number that a word without quotes spells, if it can be stored."""
    if word.quoted or _NUMBER.fullmatch(word.text) is None:
        return None
    if word.text.lstrip("-").isdigit():
        whole = int(word.text)
        return whole if -(2**63) <= whole < 2**63 else None
    number = float(word.text)
    return number if math.isfinite(number) else None


def is_duration(word: Word) -> bool:
    """Whether a word is a distance from now, such as ``90s`` or ``1h30m``."""
    return not word.quoted and _DURATION.fullmatch(word.text) is not None


def _first(test: WordTest) -> Word | None:
    match test:
        case OneOf(words):
            return words[0]
        case Prefix(word):
            return word
        case Between(low, high):
            return low or high
        case Exists():
            return None


def _shifted(now: int, distance: int | None) -> int | None:
    return None if distance is None else now + distance


def _time_hint(key: str) -> str:
    return f"such as {key}:<2h, {key}:>7d, {key}:2026-03-01 or {key}:>=2026-03-01T09:00"

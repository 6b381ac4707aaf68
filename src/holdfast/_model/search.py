"""What a search asks of a store: frozen conditions, the same whatever the database.

The query language (`query.py`) and the keywords of `Client.list` both end here; how a store answers is its own affair.
All conditions must hold. A store compares texts by code point and numbers as numbers, and a number is never equal to a
text: who looks for `42` without knowing the type asks for either, as `OneOf((42, "42"))`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeAlias, TypeVar

V = TypeVar("V")
Scalar: TypeAlias = str | int | float
"""A value as it is stored; booleans are 0 and 1."""


@dataclass(frozen=True, slots=True)
class OneOf(Generic[V]):
    """Equal to one of the values."""

    values: tuple[V, ...]


@dataclass(frozen=True, slots=True)
class Between(Generic[V]):
    """Within bounds of one kind, both texts or both numbers; at least one is given."""

    low: V | None = None
    high: V | None = None
    low_included: bool = True
    high_included: bool = True


@dataclass(frozen=True, slots=True)
class Prefix(Generic[V]):
    """A text that begins so."""

    start: V


@dataclass(frozen=True, slots=True)
class Exists:
    """There is a value, whatever it is."""


Test: TypeAlias = OneOf[Scalar] | Between[Scalar] | Prefix[str] | Exists


@dataclass(frozen=True, slots=True)
class Condition:
    """What a column of the runs' table, or one of the values of an attribute, must be like.

    Attributes:
        name: the column, or the attribute's key with dots between nested names.
        test: what is asked of it. A column without a value meets no test.
        negated: the opposite: for attributes, that no value is like this.
        attribute: whether the name is an attribute's key.
    """

    name: str
    test: Test
    negated: bool = False
    attribute: bool = False


class Place(NamedTuple):
    """A run's place in the order of listings: when it was created, and its number."""

    created_at: int
    number: int


@dataclass(frozen=True, slots=True)
class RunQuery:
    """Which runs a listing or a count wants.

    Newest first: by `created_at`, then by `number`. With an attribute that must be there it is by `number` alone, the
    order in which the starts were written: it differs for starts within moments of each other, and it is the order that
    an attribute's index has, so that a page costs the same among five and among millions of matches.

    Attributes:
        conditions: all of them must hold.
        after: the place of the run that ended the page before.
        as_written: by `number` in any case.
    """

    conditions: tuple[Condition, ...] = ()
    after: Place | None = None
    as_written: bool = False

    @property
    def by_number(self) -> bool:
        """Whether the listing is ordered by number alone."""
        return self.as_written or any(condition.attribute and not condition.negated for condition in self.conditions)

"""Searches as the client offers them: conditions from text and keywords, pages, and what to say about unknown keys."""

from __future__ import annotations

import difflib
import re
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Final

from holdfast._flow.definitions import Workflow
from holdfast._model.attributes import attribute_pairs
from holdfast._model.bounds import shown
from holdfast._model.query import Query, parse
from holdfast._model.querykeys import attribute_terms, conditions_of, unknown_key
from holdfast._model.runinfo import RunInfo
from holdfast._model.search import Between, Condition, OneOf, Place, Prefix, RunQuery
from holdfast._options import check_limit, instant_us, states_of, text_or_none
from holdfast._rows import info_of
from holdfast._store.port import Store
from holdfast.errors import UsageError

COUNT_MAX: Final = 2**53
ITERATE_PAGE: Final = 500
"""Runs that `iterate` reads at once."""
SUGGESTIONS_MAX: Final = 1_000
"""Keys of attributes among which a likely one is looked for."""

_CURSOR: Final = re.compile(r"([0-9a-f]{1,15})-([0-9a-f]{1,15})-([0-9a-f]{1,15})")


class Page(list[RunInfo]):
    """Runs of a listing, newest first.

    Attributes:
        next: a cursor for `after=` that continues behind the last of these; none if there are no more.
    """

    def __init__(self, runs: Iterable[RunInfo], *, next: str | None) -> None:
        super().__init__(runs)
        self.next = next


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a page ended, and the instant at which the first page was asked for: durations keep their meaning."""

    now: int
    place: Place

    def __str__(self) -> str:
        return f"{self.now:x}-{self.place.created_at:x}-{self.place.number:x}"

    @classmethod
    def of(cls, text: object) -> Cursor:
        """The cursor that a text is.

        Raises:
            UsageError: it is none.
        """
        match = _CURSOR.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            raise UsageError(f"after={shown(text)} is not a cursor", hint="pass the `next` of the page before")
        now, created_at, number = (int(part, 16) for part in match.groups())
        return cls(now, Place(created_at, number))


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """What a listing or count is asked for, as people give it; all of them must hold."""

    where: str | None = None
    state: str | Iterable[str] | None = None
    workflow: Workflow[..., Any] | str | None = None
    attributes: Mapping[str, Any] | None = None
    id_prefix: str | None = None
    created_from: datetime | None = None
    created_before: datetime | None = None

    def from_keywords(self) -> tuple[Condition, ...]:
        """The conditions other than `where`, checked."""
        found: list[Condition] = []
        if self.state is not None:
            found.append(Condition("state", OneOf(states_of(self.state))))
        name = self.workflow.name if isinstance(self.workflow, Workflow) else text_or_none("workflow", self.workflow)
        if name is not None:
            found.append(Condition("workflow", OneOf((name,))))
        prefix = text_or_none("id_prefix", self.id_prefix)
        if prefix:
            found.append(Condition("id", Prefix(prefix)))
        if self.attributes is not None:
            pairs = attribute_pairs(self.attributes)
            found += [Condition(key, OneOf((value,)), attribute=True) for key, value in pairs]
        if self.created_from is not None:
            found.append(Condition("created_at", Between(low=instant_us("created_from", self.created_from))))
        if self.created_before is not None:
            before = instant_us("created_before", self.created_before)
            found.append(Condition("created_at", Between(high=before, high_included=False)))
        return tuple(found)


def conditions_from(keywords: Mapping[str, Any], call: str) -> Conditions:
    """Conditions by keyword.

    Raises:
        UsageError: there is no such condition.
    """
    known = [field.name for field in fields(Conditions)]
    for name in keywords:
        if name not in known:
            near = difflib.get_close_matches(name[:80], known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"one of {', '.join(known)}"
            raise UsageError(f"{call}({name:.80}=...) is not a condition", hint=hint)
    return Conditions(**keywords)


async def find_page(store: Store, asked: Conditions, *, after: str | None, limit: int, now: int) -> Page:
    """A page of the runs that are asked for."""
    check_limit(limit)
    cursor = None if after is None else Cursor.of(after)
    seen = now if cursor is None else cursor.now
    query = await _query(store, asked, after=None if cursor is None else cursor.place, now=seen)
    rows = await store.list_runs(query, limit=limit + 1)
    more = len(rows) > limit
    rows = rows[:limit]
    following = str(Cursor(seen, Place(rows[-1].created_at, rows[-1].number))) if more else None
    return Page(map(info_of, rows), next=following)


async def find_all(store: Callable[[], Store], asked: Conditions, *, now: int) -> AsyncIterator[RunInfo]:
    """Every run that is asked for, page by page. The store is asked for each time: the client may have been closed."""
    after: str | None = None
    while True:
        page = await find_page(store(), asked, after=after, limit=ITERATE_PAGE, now=now)
        for run in page:
            yield run
        after = page.next
        if after is None:
            return


async def count_runs(store: Store, asked: Conditions, *, limit: int | None, now: int) -> int:
    """How many runs are asked for, counted up to `limit`."""
    if limit is not None and (type(limit) is not int or not 1 <= limit <= COUNT_MAX):
        raise UsageError(f"limit={shown(limit)} must be a whole number, at least 1, or None")
    return await store.count_runs(await _query(store, asked, after=None, now=now), limit=limit)


async def _query(store: Store, asked: Conditions, *, after: Place | None, now: int) -> RunQuery:
    conditions = asked.from_keywords()
    if asked.where is not None:
        query = parse(asked.where)
        conditions += conditions_of(query, now=now)
        await _check_keys(store, query)
    return RunQuery(conditions, after)


async def _check_keys(store: Store, query: Query) -> None:
    """A key that no run has is a slip of the finger: an empty answer would hide it."""
    terms = attribute_terms(query)
    known = set(await store.attribute_keys_among([term.key for term in terms])) if terms else set()
    for term in terms:
        if term.key not in known:
            raise unknown_key(query, term, await store.attribute_keys(limit=SUGGESTIONS_MAX))

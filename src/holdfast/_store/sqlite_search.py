"""Searches on SQLite: which index drives a listing, decided by bounded looks at how much each would give.

SQLite without statistics cannot know that `state:failed` has 40 runs and `customer:42` has half a million, and with
statistics it knows averages. So the store looks: each condition that an index answers is counted up to `FEW` entries
(0.2 ms at most), and then

    1. one with few matches drives, the other conditions are checked on its rows, and the rows are sorted;
    2. else, with attributes, the condition with the fewest matches: an attribute that is one of some values drives in
       the order of its index, which is the order of the page;
    3. of any other condition with at most `MANY` matches the numbers are sorted; an attribute's walk steps from one of
       them to the next, or, without such an attribute, the runs are looked at one by one;
    4. else the runs drive, newest first: with conditions on state and workflow a merge of one walk through an index for
       each combination, all in order already; with an attribute's range a walk from the newest number down.

2 to 4 end when the page is full. What they leave out is checked run by run: that is quick when what is checked is
frequent, as it was just found to be, and slow only where two frequent conditions exclude each other over a long
stretch.

Every condition has its values bound and its index named (`indexed by`), so that a plan does not change with statistics;
`tests/store/test_sqlite_search.py` pins them all. Times are compared as they are, with one exception: a run that ended
before an instant was created before it, too. `CLOCK_BACK_US` is how far clocks may have been set back meanwhile.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from itertools import product
from typing import Any, Final, NamedTuple, assert_never

from holdfast._model.lifecycle import ENDED, SUSPECT_AFTER, RunState
from holdfast._model.search import Between, Condition, Exists, OneOf, Prefix, RunQuery, Scalar, Test
from holdfast._store.sqlfile import Statements
from holdfast.errors import InternalError

FEW: Final = 2_000
"""Matches that are fetched and sorted: some milliseconds."""
MANY: Final = 20_000
"""Entries of an index whose numbers are sorted: as many milliseconds."""
SIDES_MAX: Final = 64
"""Walks that are merged: combinations of workflow and state, or values of an attribute."""
WORKFLOWS_MAX: Final = 64
"""Workflows that are looked up to answer `workflow:check*` or `-workflow:checkout`."""
CLOCK_BACK_US: Final = 3_600_000_000

_BY_VALUE: Final = "sqlite_autoindex_holdfast_attributes_1"  # the primary key: the runs of a value lie close together
_NEWEST_NUMBER: Final = 2**63 - 1
_BY_CREATION: Final = "created_at desc, number desc"
_NOTHING: Final = "select number from holdfast_runs where number is null"
_PARTIAL: Final = {
    "worker": "holdfast_runs_worker",
    "reason": "holdfast_runs_reason",
    "forked_from": "holdfast_runs_forked",
}
_STATES: Final = tuple(state.value for state in RunState)


class Driver(NamedTuple):
    """An index that gives the numbers of all runs that meet some of the conditions, and maybe of a run twice.

    Attributes:
        sql: selects `number`.
        covers: the conditions that need no further check.
    """

    sql: str
    covers: tuple[Condition, ...]


class Found(NamedTuple):
    """How a search is answered: `sql` selects `number` in order, without a limit; `order` is how rows are sorted."""

    sql: str
    order: str
    values: dict[str, Scalar]


def list_rows(connection: sqlite3.Connection, sql: Statements, query: RunQuery, *, limit: int) -> list[sqlite3.Row]:
    """The rows of a page."""
    text, values = page_statement(connection, sql, query, limit=limit)
    return connection.execute(text, values).fetchall()


def count_rows(connection: sqlite3.Connection, sql: Statements, query: RunQuery, *, limit: int | None) -> int:
    """How many rows match, counted up to `limit`."""
    found = Search(connection, sql, query).found()
    text = sql["count_runs"].replace("{numbers}", found.sql)
    count: int = connection.execute(text, {**found.values, "limit": -1 if limit is None else limit}).fetchone()[0]
    return count


def page_statement(
    connection: sqlite3.Connection, sql: Statements, query: RunQuery, *, limit: int
) -> tuple[str, dict[str, Scalar]]:
    """The statement that gives a page, and its values."""
    found = Search(connection, sql, query).found()
    text = sql["list_runs"].replace("{numbers}", found.sql).replace("{order}", found.order)
    return text, {**found.values, "limit": limit}


class Search:
    """One search. Reads only what it needs to decide."""

    def __init__(self, connection: sqlite3.Connection, sql: Statements, query: RunQuery) -> None:
        self._connection = connection
        self._sql = sql
        self._query = query
        self._names: dict[Scalar | tuple[type, Scalar], str] = {}
        self._values: dict[str, Scalar] = {}
        self._states = _states(query.conditions)
        self._workflows = self._resolved_workflows()
        self._created = _created(query.conditions)
        place = query.after
        if place is None:
            self._after_number = f"< {self._bind(_NEWEST_NUMBER)}"
            self._after_place = ""
        else:
            self._after_number = f"< {self._bind(place.number)}"
            self._after_place = f"(created_at, number) < ({self._bind(place.created_at)}, {self._bind(place.number)})"

    def found(self) -> Found:
        """How this search is answered."""
        by_number = self._query.by_number
        if not self._states or self._workflows == ():
            return Found(_NOTHING, _BY_CREATION, self._values)
        sql = self._few() or (self._by_attribute() if by_number else self._merged())
        return Found(sql, "number desc" if by_number else _BY_CREATION, self._values)

    # 1. A condition with few matches drives.

    def _few(self) -> str | None:
        best: tuple[int, Driver] | None = None
        for driver in self._drivers():
            runs = self._counted(driver, FEW + 1)
            if best is None or runs < best[0]:
                best = runs, driver
            if runs == 0:
                break
        return None if best is None or best[0] > FEW else self._sorted(best[1])

    def _drivers(self) -> Iterable[Driver]:
        for condition in self._query.conditions:
            if not condition.negated:
                driver = self._attribute(condition) if condition.attribute else self._column(condition)
                if driver is not None:
                    yield driver
        if self._query.by_number or not self._mergeable():
            yield self._block()

    def _sorted(self, driver: Driver) -> str:
        checks = [f"r.number in ({driver.sql})", *self._checks(driver.covers)]
        if self._query.by_number:
            checks.append(f"r.number {self._after_number}")
            return _select("r.number as number", "holdfast_runs as r not indexed", checks, "r.number desc")
        checks += [self._after_place] if self._after_place else []
        return _select(
            "r.number as number", "holdfast_runs as r not indexed", checks, "r.created_at desc, r.number desc"
        )

    # 2. and 3. An attribute drives, by number, or what is not too much to sort.

    def _by_attribute(self) -> str:
        attributes = [c for c in self._query.conditions if c.attribute and not c.negated]
        exact = [c for c in attributes if isinstance(c.test, OneOf) and len(c.test.values) <= SIDES_MAX]
        if exact and len(self._query.conditions) == 1:
            return self._walked(exact[0])
        runs = {driver: self._counted(driver, MANY + 1) for driver in self._drivers()}
        least = min(runs, key=lambda driver: runs[driver])
        if least.covers and least.covers[0] in exact:
            return self._walked(least.covers[0])
        few = least if runs[least] <= MANY else None
        if exact:
            return self._walked(exact[0], within=few)
        if few is not None:
            return self._sorted(few)
        checks = [f"r.number {self._after_number}", *self._checks(())]
        return _select("r.number as number", "holdfast_runs as r not indexed", checks, "r.number desc")

    def _walked(self, condition: Condition, *, within: Driver | None = None) -> str:
        """A merge of one walk for each value; a run that has two of them comes once.

        Args:
            within: the walk steps from one of these numbers to the next.
        """
        if not isinstance(condition.test, OneOf):
            raise InternalError(f"a walk needs single values, not {condition.test}")
        checks = self._checks((condition, *(within.covers if within else ())))
        source = f"holdfast_attributes as a indexed by {_BY_VALUE}"
        if checks:
            source += " cross join holdfast_runs as r not indexed on r.number = a.run"
        key = self._bind(condition.name)
        # The plus keeps the bound from the index: it would be taken instead of the steps.
        steps = [f"a.run in ({within.sql})", f"+a.run {self._after_number}"] if within else []
        bound = steps or [f"a.run {self._after_number}"]
        sides = [
            _select(
                "a.run as number",
                source,
                [f"a.key = {key}", f"a.value = {self._bind(value)}", *bound, *checks],
            )
            for value in condition.test.values
        ]
        return " union ".join(sides) + " order by number desc"

    # 4. The runs drive, newest first.

    def _merged(self) -> str:
        """A merge of walks, each through one combination of an index's first columns."""
        low, high = self._created
        times = [f"created_at >= {self._bind(low)}"] if low is not None else []
        times += [f"created_at < {self._bind(high)}"] if high is not None else []
        times += [self._after_place] if self._after_place else []
        covers = self._own("state") + self._own("created_at")
        heads: list[list[str]] = [[f"state = {self._bind(state)}"] for state in self._states]
        index = "holdfast_runs_state"
        if self._workflows is not None and self._mergeable():
            covers += self._own("workflow")
            index = "holdfast_runs_workflow"
            pairs = product(self._workflows, self._states)
            heads = [
                [f"workflow = {self._bind(workflow)}", f"state = {self._bind(state)}"] for workflow, state in pairs
            ]
        checks = [*times, *self._checks(covers)]
        source = f"holdfast_runs as r indexed by {index}"
        sides = [_select("number, created_at", source, [*head, *checks]) for head in heads]
        return f"select number from ({' union all '.join(sides)} order by {_BY_CREATION})"

    def _mergeable(self) -> bool:
        return self._workflows is None or len(self._workflows) * len(self._states) <= SIDES_MAX

    # What an index gives.

    def _attribute(self, condition: Condition) -> Driver:
        tests = [f"key = {self._bind(condition.name)}", *self._test("value", condition.test, any_type=True)]
        return Driver(_select("run as number", f"holdfast_attributes indexed by {_BY_VALUE}", tests), (condition,))

    def _column(self, condition: Condition) -> Driver | None:
        name, test = condition.name, condition.test
        if name == "id" and not isinstance(test, Exists):
            return self._indexed("sqlite_autoindex_holdfast_runs_1", condition)
        if name in _PARTIAL:
            return self._indexed(_PARTIAL[name], condition)
        if name == "ended_at":
            return self._ended(condition)
        if name == "due_at":
            return self._due(condition)
        if name == "crashes":
            return self._suspects(condition)
        return None

    def _indexed(self, index: str, condition: Condition) -> Driver:
        tests = self._test(condition.name, condition.test)
        tests += [f"{condition.name} is not null"] if condition.name in _PARTIAL else []  # what the index is limited to
        return Driver(_select("number", f"holdfast_runs indexed by {index}", tests), (condition,))

    def _ended(self, condition: Condition) -> Driver | None:
        workflows = self._workflows if self._workflows is not None else self._known_workflows()
        if not workflows:
            return None
        states = [state for state in self._states if state in ENDED]
        tests = [
            f"workflow in ({self._bound(workflows)})",
            f"state in ({self._bound(states)})",
            "ended_at is not null",
            *self._test("ended_at", condition.test),
        ]
        return Driver(_select("number", "holdfast_runs indexed by holdfast_runs_ended", tests), (condition,))

    def _due(self, condition: Condition) -> Driver:
        """Runs that are due some day sleep, or were paused while they slept; the timers' index has only the former."""
        tests = ["due_at is not null", *self._test("due_at", condition.test)]
        asleep = ["state in ('scheduled', 'waiting')", *tests]
        paused = ["state = 'paused'", *tests]
        sides = (
            _select("number", "holdfast_runs indexed by holdfast_runs_due", asleep),
            _select("number", "holdfast_runs indexed by holdfast_runs_state", paused),
        )
        return Driver(" union all ".join(sides), (condition,))

    def _suspects(self, condition: Condition) -> Driver | None:
        """Runs with so many crashes that they are tried alone: those that wait have an index, others have a worker."""
        low = condition.test.low if isinstance(condition.test, Between) else None
        if not isinstance(low, int) or low < SUSPECT_AFTER or not {*self._states} <= {"ready", "running"}:
            return None
        tests = self._test("crashes", condition.test)
        ready = ["state = 'ready'", f"crashes >= {SUSPECT_AFTER}", *tests]
        sides = (
            _select("number", "holdfast_runs indexed by holdfast_runs_suspect", ready),
            _select("number", "holdfast_runs indexed by holdfast_runs_worker", ["worker is not null", *tests]),
        )
        return Driver(" union all ".join(sides), (condition,))

    def _block(self) -> Driver:
        """State, workflow and creation together."""
        low, high = self._created
        tests = [f"state in ({self._bound(self._states)})"]
        tests += [f"created_at >= {self._bind(low)}"] if low is not None else []
        tests += [f"created_at < {self._bind(high)}"] if high is not None else []
        index, covers = "holdfast_runs_state", self._own("state") + self._own("created_at")
        if self._workflows is not None:
            tests.insert(0, f"workflow in ({self._bound(self._workflows)})")
            index, covers = "holdfast_runs_workflow", covers + self._own("workflow")
        return Driver(_select("number", f"holdfast_runs indexed by {index}", tests), covers)

    def _own(self, name: str) -> tuple[Condition, ...]:
        """The conditions on a column that `_states`, `_workflows` and `_created` hold."""
        own = [c for c in self._query.conditions if c.name == name and not c.attribute]
        return tuple(c for c in own if name != "created_at" or (not c.negated and isinstance(c.test, Between)))

    def _counted(self, driver: Driver, limit: int) -> int:
        text = self._sql["count_runs"].replace("{numbers}", driver.sql)
        count: int = self._connection.execute(text, {**self._values, "limit": limit}).fetchone()[0]
        return count

    # Workflows by name.

    def _resolved_workflows(self) -> tuple[str, ...] | None:
        """The workflows that the conditions leave; none if they leave all or too many to name."""
        conditions = [c for c in self._query.conditions if c.name == "workflow" and not c.attribute]
        named = [c.test for c in conditions if isinstance(c.test, OneOf) and not c.negated]
        if named:
            candidates: Sequence[str] | None = [str(value) for value in dict.fromkeys(named[0].values)]
        elif conditions:
            candidates = self._known_workflows()
        else:
            candidates = None
        if candidates is None:
            return None
        return tuple(name for name in candidates if all(_holds(c, name) for c in conditions))

    def _known_workflows(self) -> list[str] | None:
        """Every workflow that has runs; none if there are too many."""
        rows = self._connection.execute(self._sql["workflows"], {"limit": WORKFLOWS_MAX + 1}).fetchall()
        return None if len(rows) > WORKFLOWS_MAX else [row[0] for row in rows]

    # Conditions as SQL.

    def _checks(self, covered: tuple[Condition, ...]) -> list[str]:
        """The conditions that a run of `r` must still meet."""
        return [self._check(c) for c in self._query.conditions if not any(c is other for other in covered)]

    def _check(self, condition: Condition) -> str:
        if not condition.attribute:
            tests = " and ".join(self._test(f"r.{condition.name}", condition.test))
            return f"({tests}) is not true" if condition.negated else tests
        tests = " and ".join(
            [
                "run = r.number",
                f"key = {self._bind(condition.name)}",
                *self._test("value", condition.test, any_type=True),
            ]
        )
        exists = "not exists" if condition.negated else "exists"
        index = _BY_VALUE if isinstance(condition.test, OneOf) else "holdfast_attributes_run"
        return f"{exists} (select 1 from holdfast_attributes indexed by {index} where {tests})"

    def _test(self, column: str, test: Test, *, any_type: bool = False) -> list[str]:
        """`any_type`: the column holds texts and numbers, and SQLite puts every number before every text."""
        match test:
            case OneOf(values):
                return [f"{column} in ({self._bound(values)})"]
            case Prefix(start):
                following = _following(start)
                tests = [f"{column} >= {self._bind(start)}"]
                return tests if following is None else [*tests, f"{column} < {self._bind(following)}"]
            case Exists():
                return [] if any_type else [f"{column} is not null"]
            case Between(low, high):
                tests = []
                if low is not None:
                    tests.append(f"{column} {'>=' if test.low_included else '>'} {self._bind(low)}")
                elif any_type and isinstance(high, str):
                    tests.append(f"{column} >= ''")
                if high is not None:
                    tests.append(f"{column} {'<=' if test.high_included else '<'} {self._bind(high)}")
                elif any_type and not isinstance(low, str):
                    tests.append(f"{column} < ''")
                return tests
        assert_never(test)

    def _bound(self, values: Iterable[Scalar]) -> str:
        return ", ".join(map(self._bind, values))

    def _bind(self, value: Scalar) -> str:
        key = (type(value), value)
        if key not in self._names:
            self._names[key] = f"v{len(self._names)}"
            self._values[self._names[key]] = value
        return f":{self._names[key]}"


def _select(columns: str, source: str, tests: Sequence[str], order: str = "") -> str:
    where = f" where {' and '.join(tests)}" if tests else ""
    return f"select {columns} from {source}{where}{f' order by {order}' if order else ''}"


def _states(conditions: Sequence[Condition]) -> tuple[str, ...]:
    """The states that the conditions leave. A run has ended if and only if it has an instant of its end."""
    own = [c for c in conditions if c.name == "state" and not c.attribute]
    ends = any(c.name == "ended_at" and not c.attribute and not c.negated for c in conditions)
    return tuple(state for state in _STATES if all(_holds(c, state) for c in own) and (not ends or state in ENDED))


def _holds(condition: Condition, text: str) -> bool:
    """Whether a text meets a condition."""
    match condition.test:
        case OneOf(values):
            met = text in values
        case Prefix(start):
            met = text.startswith(start)
        case Exists():
            met = True
        case Between(low, high):
            above = low is None or text > str(low) or (condition.test.low_included and text == low)
            met = above and (high is None or text < str(high) or (condition.test.high_included and text == high))
        case _:
            assert_never(condition.test)
    return met is not condition.negated


def _created(conditions: Sequence[Condition]) -> tuple[int | None, int | None]:
    """First instant of creation, and the first one after, that the conditions leave."""
    lows: list[int] = []
    highs: list[int] = []
    for condition in conditions:
        test: Any = condition.test
        if condition.attribute or condition.negated or not isinstance(test, Between):
            continue
        if condition.name == "created_at":
            if test.low is not None:
                lows.append(int(test.low) + (not test.low_included))
            if test.high is not None:
                highs.append(int(test.high) + test.high_included)
        elif condition.name == "ended_at" and test.high is not None:
            highs.append(int(test.high) + 1 + CLOCK_BACK_US)
    return max(lows, default=None), min(highs, default=None)


def _following(start: str) -> str | None:
    """The first text after all that begin with `start`; none if there is none."""
    for place in range(len(start) - 1, -1, -1):
        code = ord(start[place]) + 1
        if code <= 0x10FFFF:
            return start[:place] + chr(0xE000 if code == 0xD800 else code)
    return None

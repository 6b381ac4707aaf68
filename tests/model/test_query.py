"""The query language: its form, its meaning, and that no text can break it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast._model.query import QUERY_CHARS_MAX, TERMS_MAX, VALUES_MAX, Query, Term, Word, parse, render
from holdfast._model.querykeys import KEYS, attribute_terms, conditions_of, unknown_key
from holdfast._model.search import Between, Condition, Exists, OneOf, Prefix
from holdfast.errors import QueryError, UsageError

NOW = 1_772_000_000_000_000
HOUR, DAY = 3_600_000_000, 86_400_000_000
FIRST_OF_MARCH = 1_772_323_200_000_000


def meaning(text: str) -> tuple[Condition, ...]:
    return conditions_of(parse(text), now=NOW)


def attribute(key: str, test: Any, *, negated: bool = False) -> Condition:
    return Condition(key, test, negated, attribute=True)


MEANINGS: dict[str, Condition] = {
    "state:failed": Condition("state", OneOf(("failed",))),
    "-state:failed,ready": Condition("state", OneOf(("failed", "ready")), negated=True),
    "workflow:check*": Condition("workflow", Prefix("check")),
    "id:a:b": Condition("id", OneOf(("a:b",))),
    'id:"a b"': Condition("id", OneOf(("a b",))),
    "priority:5": Condition("priority", OneOf((5,))),
    "crashes:>0": Condition("crashes", Between(low=0, low_included=False)),
    "priority:>-1": Condition("priority", Between(low=-1, low_included=False)),
    "worker:*": Condition("worker", Exists()),
    "forked:order-1": Condition("forked_from", OneOf(("order-1",))),
    "created:<1h": Condition("created_at", Between(low=NOW - HOUR, low_included=False)),
    "created:<=1h": Condition("created_at", Between(low=NOW - HOUR)),
    "started:>2h": Condition("started_at", Between(high=NOW - 2 * HOUR, high_included=False)),
    "started:>=2h": Condition("started_at", Between(high=NOW - 2 * HOUR)),
    "ended:1h..1d": Condition("ended_at", Between(NOW - DAY, NOW - HOUR)),
    "ended:1h..": Condition("ended_at", Between(high=NOW - HOUR)),
    "due:<1h30m": Condition("due_at", Between(high=NOW + HOUR * 3 // 2, high_included=False)),
    "due:>1w": Condition("due_at", Between(low=NOW + 7 * DAY, low_included=False)),
    "created:2026-03-01": Condition("created_at", Between(FIRST_OF_MARCH, FIRST_OF_MARCH + DAY, True, False)),
    "created:>2026-03-01": Condition("created_at", Between(FIRST_OF_MARCH + DAY, None, True, False)),
    "created:>=2026-03-01": Condition("created_at", Between(FIRST_OF_MARCH, None, True, False)),
    "created:<2026-03-01": Condition("created_at", Between(None, FIRST_OF_MARCH, True, False)),
    "created:<=2026-03-01": Condition("created_at", Between(None, FIRST_OF_MARCH + DAY, True, False)),
    "created:..2026-03-01": Condition("created_at", Between(None, FIRST_OF_MARCH + DAY, True, False)),
    "created:>=2026-03-01T09:00": Condition("created_at", Between(FIRST_OF_MARCH + 9 * HOUR, None, True, False)),
    "created:>=2026-03-01T09:00:00+01:00": Condition(
        "created_at", Between(FIRST_OF_MARCH + 8 * HOUR, None, True, False)
    ),
    'created:"2026-03-01 00:00:01.5Z"': Condition(
        "created_at", Between(FIRST_OF_MARCH + 1_500_000, FIRST_OF_MARCH + 1_500_001, True, False)
    ),
    "customer:42": attribute("customer", OneOf((42, "42"))),
    'customer:"42"': attribute("customer", OneOf(("42",))),
    "customer:042": attribute("customer", OneOf(("042",))),
    "customer:4.20": attribute("customer", OneOf((4.2, "4.20"))),
    "customer:1e3": attribute("customer", OneOf((1000.0, "1e3"))),
    f"customer:{2**63}": attribute("customer", OneOf((str(2**63),))),
    "customer:1e999": attribute("customer", OneOf(("1e999",))),
    "customer:nan": attribute("customer", OneOf(("nan",))),
    "vip:true": attribute("vip", OneOf((1, "true"))),
    "vip:false,x": attribute("vip", OneOf((0, "false", "x"))),
    "address.city:Ber*": attribute("address.city", Prefix("Ber")),
    'name:"Anna L"*': attribute("name", Prefix("Anna L")),
    "amount:5..10": attribute("amount", Between(5, 10)),
    "amount:5..": attribute("amount", Between(low=5)),
    "amount:>=5": attribute("amount", Between(low=5)),
    "amount:..5": attribute("amount", Between(high=5)),
    "amount:<-5.5": attribute("amount", Between(high=-5.5, high_included=False)),
    "since:>2026-03-01": attribute("since", Between(low="2026-03-01", low_included=False)),
    'version:>"10"': attribute("version", Between(low="10", low_included=False)),
    "-vip:*": attribute("vip", Exists(), negated=True),
    "@state:open": attribute("state", OneOf(("open",))),
    "-@state:open": attribute("state", OneOf(("open",)), negated=True),
    '"odd key: \\"x\\"":1': attribute('odd key: "x"', OneOf((1, "1"))),
    'path:"C:\\\\temp"': attribute("path", OneOf(("C:\\temp",))),
    "mail:anna@example.org": attribute("mail", OneOf(("anna@example.org",))),
    "url:http://x/?a=b": attribute("url", OneOf(("http://x/?a=b",))),
    "v:1.2.3": attribute("v", OneOf(("1.2.3",))),
}


@pytest.mark.parametrize("text", MEANINGS)
def test_a_term_means_this(text: str) -> None:
    assert meaning(text) == (MEANINGS[text],)


def test_terms_are_joined_by_and_whatever_spaces_are_between() -> None:
    assert len(meaning("  state:failed\tcustomer:42\n -vip:true ")) == 3
    assert meaning("") == meaning(" \u00a0 ") == ()


WRONG: dict[str, tuple[int, str]] = {
    "failed": (0, "not key:value"),
    "state=failed": (0, "did you mean state:...?"),
    "customer:Anna Lee": (14, "a value with spaces needs quotes"),
    "state:": (6, "a value should stand here"),
    ":x": (0, "a key should stand here"),
    "state:failed and:": (17, "a value should stand here"),
    "state:failed OR state:ready": (13, "'OR' is not key:value"),
    "a:1 - b:2": (5, "a key should stand here"),
    "(a:1)": (0, "a key should stand here"),
    "state:faild": (6, "did you mean 'failed'"),
    "state:ready,faild": (12, "did you mean 'failed'"),
    "state:fail*": (6, "no beginning"),
    "state:>a": (7, "no order"),
    "workflow:>a": (10, "cannot be compared"),
    "priority:high": (9, "is a number"),
    "priority:5*": (9, "is a number"),
    "created:yesterday": (8, "neither an instant nor a duration"),
    "created:2h": (8, "created:<2h"),
    "created:2026-02-30": (8, "not in the calendar"),
    "created:0000-01-01": (8, "not in the calendar"),
    "created:2026-01-01,2026-01-02": (8, "is an instant"),
    "created:2026*": (8, "is an instant"),
    "created:1h..2026-01-01": (12, "one bound is a duration"),
    "created:>99999999999d": (9, "a thousand years"),
    "amount:10..5": (7, "the smaller one first"),
    "created:7d..1d": (8, "the smaller one first"),
    "due:2h..1h": (4, "the smaller one first"),
    "created:2026-03-02..2026-03-01": (8, "the smaller one first"),
    "amount:5..x": (10, "one bound is a number"),
    "amount:>": (8, "a value should stand here"),
    "amount:>>5": (8, "cannot begin so"),
    "amount:=5": (7, "cannot begin so"),
    "amount:5,": (9, "a value should stand here"),
    "amount:..": (9, "a value should stand here"),
    "name:a*b": (7, "put quotes"),
    'name:a"b"': (6, "put quotes"),
    'name:"Anna': (5, "has no end"),
    'name:"a\\n"': (5, "has no end"),
    '"":1': (2, "cannot be empty"),
    "name:\x00": (5, "cannot be part"),
    "name:\ud800": (5, "cannot be part"),
    " ".join(f"a:{n}" for n in range(TERMS_MAX + 1)): (TERMS_MAX * 4 + 10, "more than 20 conditions"),
    f"a:{','.join('x' * (VALUES_MAX + 1))}": (2 * VALUES_MAX + 2, "more than 100 values"),
}


@pytest.mark.parametrize("text", WRONG, ids=lambda text: ascii(text)[:40])
def test_what_is_wrong_is_shown_in_its_place_with_the_next_move(text: str) -> None:
    with pytest.raises(QueryError) as raised:
        meaning(text)
    at, words = WRONG[text]
    error = raised.value
    assert (error.query, error.at) == (text, at)
    assert words in str(error)
    assert error.hint
    shown, marks = error.message.splitlines()[1:3]
    begun = marks.index("^")
    if at < len(text) and text[at].isprintable():
        assert shown[begun] == text[at]


@pytest.mark.parametrize("text", ["a:" + "x" * QUERY_CHARS_MAX, None, 7, b"state:failed"])
def test_what_is_no_text_or_too_long_is_refused(text: Any) -> None:
    with pytest.raises(UsageError):
        parse(text)


def test_unknown_keys_come_with_the_likely_one() -> None:
    query = parse("state:failed @custmer:1 custmer:42 -regoin:eu")
    custmer, regoin = attribute_terms(query)
    error = unknown_key(query, custmer, ["customer", "region"])
    assert error.at == 24
    assert "did you mean 'customer'?" in error.hint
    assert "@custmer:" in error.hint
    assert "'region'" in unknown_key(query, regoin, ["region"]).hint
    assert "'created'" in unknown_key(parse("creatd:<1h"), Term("creatd", Exists()), []).hint
    assert "workflow" in unknown_key(query, Term("xyzzy", Exists()), []).hint


def test_keys_are_columns_of_the_runs_table() -> None:
    from holdfast._model.runinfo import RunDetail

    assert {key.column for key in KEYS} <= set(RunDetail._fields)
    assert len({key.name for key in KEYS}) == len(KEYS)


def test_a_time_zone_is_utc_unless_it_is_said() -> None:
    plain = datetime(2026, 3, 1, 9, tzinfo=UTC)
    first = (plain - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    for text in ("2026-03-01T09:00", "2026-03-01T09:00Z", "2026-03-01T10:00+01:00"):
        (condition,) = meaning(f"created:{text}")
        assert condition.test == Between(first, first + 60_000_000, True, False)


# No text can break it.

ALPHABET = st.sampled_from(
    [*'abz059-@:.,*<>="\\ \t()é日\u00a0', "..", ">=", "state", "created", "customer", "2h", "1e5"]
)
TEXTS = st.lists(ALPHABET, max_size=30).map("".join) | st.text(max_size=40)
WORDS = st.builds(Word, st.text(st.characters(categories=["L", "N", "P", "S"]), max_size=8), st.just(True))
TESTS = st.one_of(
    st.lists(WORDS, min_size=1, max_size=4).map(lambda words: OneOf(tuple(words))),
    st.builds(Prefix, WORDS),
    st.just(Exists()),
    st.builds(Between, WORDS, WORDS),
    st.builds(lambda word, included: Between(low=word, low_included=included), WORDS, st.booleans()),
    st.builds(lambda word, included: Between(high=word, high_included=included), WORDS, st.booleans()),
)
KEY_TEXTS = st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=8)
TERMS = st.builds(Term, KEY_TEXTS, TESTS, st.booleans(), st.booleans())


@given(TEXTS)
def test_any_text_is_a_query_or_an_error_that_shows_the_place(text: str) -> None:
    fault: QueryError | None = None
    try:
        meaning(text)
    except QueryError as error:
        fault = error
    assert fault is None or (0 <= fault.at <= len(text) and fault.hint)


@given(TEXTS)
def test_a_query_written_out_is_the_same_query(text: str) -> None:
    try:
        query = parse(text)
    except QueryError:
        return
    assert parse(render(query)) == query


@given(st.lists(TERMS, max_size=5))
def test_any_terms_can_be_written_out(terms: list[Term]) -> None:
    query = Query(tuple(terms))
    assert parse(render(query)) == query

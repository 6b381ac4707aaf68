"""The query language: text to terms, and back.

    state:failed workflow:checkout customer:42 started:>2h

    query  =  [term {spaces term}]          every term must hold
    term   =  ["-"] ["@"] key ":" test      "-": the opposite; "@": an attribute, whatever else the key may be
    test   =  "*"                           there is a value
           |  word {"," word}               one of these
           |  word "*"                      begins so
           |  (">" | ">=" | "<" | "<=") word
           |  word ".." [word] | ".." word  within bounds, both included
    word   =  bare characters | a quoted text, in which \\" and \\\\ stand for a quote and a backslash

This module knows the form only; what keys and words mean is in `querykeys.py`. Whatever the text, `parse` gives a
`Query` or raises `QueryError` that shows the place; `render` is its inverse: ``parse(render(parse(text)))`` equals
``parse(text)``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final, NoReturn, TypeAlias

from holdfast._model.bounds import shown
from holdfast._model.search import Between, Exists, OneOf, Prefix
from holdfast.errors import QueryError, UsageError

QUERY_CHARS_MAX: Final = 2_000
TERMS_MAX: Final = 20
VALUES_MAX: Final = 100

_BARE_KEY: Final = re.compile(r'[^\s:",*<>=@()-][^\s:",*<>=()]*')
_BARE: Final = re.compile(r'(?:(?!\.\.)[^\s,"*])+')
_QUOTED: Final = re.compile(r'"((?:[^"\\]|\\["\\])*)"')
_ESCAPE: Final = re.compile(r"\\(.)")
_OPERATORS: Final = (">=", "<=", ">", "<")


@dataclass(frozen=True, slots=True)
class Word:
    """A value as it was written. `at` is where."""

    text: str
    quoted: bool = False
    at: int = field(default=0, compare=False)

    def __str__(self) -> str:
        return _quote(self.text) if self.quoted else self.text


WordTest: TypeAlias = OneOf[Word] | Between[Word] | Prefix[Word] | Exists


@dataclass(frozen=True, slots=True)
class Term:
    """One condition as it was written; `at` and `end` are where its key stands."""

    key: str
    test: WordTest
    negated: bool = False
    attribute: bool = False
    at: int = field(default=0, compare=False)
    end: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Query:
    """All terms, and the text they came from."""

    terms: tuple[Term, ...]
    text: str = field(default="", compare=False)


def parse(text: str) -> Query:
    """The terms of a query.

    Raises:
        QueryError: the text is none; the error shows where and says what to do.
        UsageError: it is no text, or too long.
    """
    if not isinstance(text, str):
        raise UsageError(f"where={shown(text)} must be a string", hint="such as 'state:failed customer:42'")
    if len(text) > QUERY_CHARS_MAX:
        raise UsageError(f"where=... has {len(text):,} characters; the bound is {QUERY_CHARS_MAX:,}")
    for place, character in enumerate(text):
        if not character.isprintable() and not character.isspace():
            raise QueryError(f"{character!r} cannot be part of a query", query=text, at=place, hint="leave it out")
    return _Reader(text).query()


def render(query: Query) -> str:
    """The query as text, in one form."""
    return " ".join(map(_render_term, query.terms))


class _Reader:
    """Reads from left to right; `_at` is the next character."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def query(self) -> Query:
        terms: list[Term] = []
        while self._skip_spaces():
            if len(terms) == TERMS_MAX:
                self._fail(f"more than {TERMS_MAX} conditions", "leave some out")
            terms.append(self._term())
        return Query(tuple(terms), self._text)

    def _term(self) -> Term:
        negated = self._take("-")
        attribute = self._take("@")
        began = self._at
        key = self._key(negated)
        ended = self._at
        if not self._take(":"):
            self._fail("there is no value for this key", "conditions are key:value", at=began, end=ended)
        test = self._test()
        if not self._ends():
            self._fail("this does not belong to the value", 'put quotes around the value: key:"..."')
        return Term(key, test, negated, attribute, began, ended)

    def _key(self, negated: bool) -> str:
        if self._text.startswith('"', self._at):
            key = self._quoted().text
            if not key:
                self._fail("a key cannot be empty", "conditions are key:value")
            return key
        match = _BARE_KEY.match(self._text, self._at)
        if match is None:
            self._fail(
                "a key should stand here", "conditions are key:value" if not negated else "such as -state:failed"
            )
        if not self._text.startswith(":", match.end()):
            word = match[0]
            self._fail(
                f"{word!r:.60} is not key:value",
                _meant(word, self._text[match.end() :]),
                at=match.start(),
                end=match.end(),
            )
        self._at = match.end()
        return match[0]

    def _test(self) -> WordTest:
        for operator in _OPERATORS:
            if self._take(operator):
                return _compared(operator, self._word())
        if self._take(".."):
            return Between(None, self._word())
        if self._take("*"):
            return Exists()
        first = self._word()
        if self._take("*"):
            return Prefix(first)
        if self._take(".."):
            return Between(first, None if self._ends() else self._word())
        return OneOf(self._others(first))

    def _others(self, first: Word) -> tuple[Word, ...]:
        words = [first]
        while self._take(","):
            if len(words) == VALUES_MAX:
                self._fail(f"more than {VALUES_MAX} values", "ask in several queries")
            words.append(self._word())
        return tuple(words)

    def _word(self) -> Word:
        if self._text.startswith('"', self._at):
            return self._quoted()
        match = _BARE.match(self._text, self._at)
        if match is None:
            self._fail("a value should stand here", 'put quotes around it if it has such characters: key:"..."')
        if match[0][0] in "<>=":
            self._fail("a value cannot begin so", 'comparisons are key:>5 key:>=5 key:<5 key:<=5; a text is key:"..."')
        self._at = match.end()
        return Word(match[0], False, match.start())

    def _quoted(self) -> Word:
        match = _QUOTED.match(self._text, self._at)
        if match is None:
            self._fail("this quoted text has no end", 'write \\" for a quote and \\\\ for a backslash in it')
        self._at = match.end()
        return Word(_ESCAPE.sub(r"\1", match[1]), True, match.start())

    def _take(self, text: str) -> bool:
        found = self._text.startswith(text, self._at)
        if found:
            self._at += len(text)
        return found

    def _ends(self) -> bool:
        return self._at == len(self._text) or self._text[self._at].isspace()

    def _skip_spaces(self) -> bool:
        """Go to the next term; false when there is none."""
        while self._at < len(self._text) and self._text[self._at].isspace():
            self._at += 1
        return self._at < len(self._text)

    def _fail(self, message: str, hint: str, *, at: int | None = None, end: int | None = None) -> NoReturn:
        raise QueryError(message, query=self._text, at=self._at if at is None else at, end=end, hint=hint)


def _meant(word: str, rest: str) -> str:
    """What somebody may have wanted who wrote a word alone."""
    if rest.startswith("="):
        return f"did you mean {word:.40}:...?"
    return f'such as id:{word:.40}* or customer:{word:.40}; a value with spaces needs quotes: key:"..."'


def _compared(operator: str, word: Word) -> Between[Word]:
    included = operator.endswith("=")
    return (
        Between(low=word, low_included=included) if operator[0] == ">" else Between(high=word, high_included=included)
    )


def _render_term(term: Term) -> str:
    key = term.key if _BARE_KEY.fullmatch(term.key) else _quote(term.key)
    return f"{'-' * term.negated}{'@' * term.attribute}{key}:{_render_test(term.test)}"


def _render_test(test: WordTest) -> str:
    match test:
        case OneOf(words):
            return ",".join(map(str, words))
        case Prefix(word):
            return f"{word}*"
        case Exists():
            return "*"
        case Between(low, None):
            return f"{'>=' if test.low_included else '>'}{low}"
        case Between(None, high):
            return f"{'<=' if test.high_included else '<'}{high}"
        case Between(low, high):
            return f"{low}..{high}"


def _quote(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

"""Text, numbers and names as nobody should give them: strategies that the tests of this folder share.

``HOLDFAST_FUZZ=2000`` makes the long form with so many examples, always other ones; `make crash` does. The short form
takes the same few examples each time.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

E = TypeVar("E", bound=Exception)

EXAMPLES: Final = int(os.environ.get("HOLDFAST_FUZZ", "0"))

NAMES: Final = (
    "", " ", "r", "done", "failed-1", "-", "--", "-1", "-rf", "--help", "a b", "a\nb", "a\tb", "a\rb", "..", "../..",
    "a/b/../c", "~", "*", "?", "%", "_", "%00", "%2e%2e", "#", "a#b", "a?b", "a&b=c", "$(reboot)", "`reboot`", "a;b",
    "a|b",
    "a'b", 'a"b', '"', "'; drop table holdfast_runs; --", "' or 1=1 --", "null", "NaN", "Infinity", "true", "\\", "a\\",
    "ünïcødé 漢字 𝄞", "e\u0301", "\u202eevil\u202c", "\u2066x", "\u200b", "\ufeff", "\ufffe", "\U0010ffff", "\u2028",
    "\x1b[2J", "\x1b]0;owned\x07", "\x9b31m", "\x7f", "\x01", "\x08\x08", "x" * 201, "x" * 5000,
)  # fmt: skip
"""Words that have broken something somewhere."""

NOT_UTF8: Final = st.binary(min_size=1, max_size=8).filter(lambda raw: 0 not in raw).map(os.fsdecode)
"""What Python makes of arguments and file names that are not UTF-8: lone surrogates. A NUL ends such a text."""

TEXT: Final = st.sampled_from(NAMES) | st.text(st.characters(exclude_characters="\0"), max_size=30) | NOT_UTF8
"""Any text that can be an argument of a program."""

ANY_TEXT: Final = TEXT | st.text(max_size=30)
"""The same, NUL included."""

CONTROLS: Final = st.text(
    st.characters(categories=["Cc", "Cf", "Zl", "Zp"]) | st.sampled_from("ab\x1b\x9b[]2J;\x07\n\u202e"), max_size=12
)
"""Text that steers a terminal."""

NUMBERS: Final = st.one_of(
    st.sampled_from(
        ["0", "-0", "1", "-1", "-5", "1.5", "1e3", "1e999", "nan", "inf", "-inf", "∞", "٣", "0x10", "1_000", " 7 ",
         "+3",
         "9" * 19, str(2**63), str(-(2**63) - 1), "9" * 40, "9" * 5000]
    ),
    st.integers().map(str),
    st.floats().map(str),
    TEXT,
)  # fmt: skip

DURATIONS: Final = st.one_of(
    st.builds(
        str.__add__,
        st.sampled_from(["0", "1", "-5", "1.5", "1e99", "∞", "9" * 12, "9" * 400, "0.0000001", ""]),
        st.sampled_from(["", "ms", "s", "m", "min", "h", "d", "w", " h", "H", "hh", "y"]),
    ),
    NUMBERS,
)

INSTANTS: Final = st.one_of(
    st.sampled_from(
        ["now", "2026-03-01", "2026-03-01T09:00", "2026-02-30", "0001-01-01", "0000-01-01",
         "9999-12-31T23:59:59.999999",
         "9999-12-31T23:59:59-12:00", "0001-01-01T00:00+14:00", "2026-03-01T09:00+25:00", "20260301", "2026-W09-1"]
    ),
    st.datetimes().map(str),
    NUMBERS,
)  # fmt: skip

JSON: Final = st.one_of(
    st.sampled_from(
        ["{", "[", '"', "{}", "[]", "nul", "1e999", "-0", '{"a":1,"a":2}', '"\\ud800"', "[" * 100_000,
         '{"a":' * 100_000,
         "[" * 500 + "]" * 500, "9" * 5000, '"\\u0000"', "NaN", "[1,]", "\ufeff1"]
    ),
    TEXT,
)  # fmt: skip


def fault(kind: type[E], work: Callable[[], object]) -> E | None:
    """The error of this kind that the work ends with; none if it ends well."""
    try:
        work()
    except kind as error:
        return error
    return None


def examples(short: int, *, share: float = 1.0) -> settings:
    """How many: `short` in the short form, `share` of what is asked for in the long one."""
    return settings(
        max_examples=max(short, int(EXAMPLES * share)),
        derandomize=not EXAMPLES,
        database=None,
        deadline=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast._store.uri import SqliteUri, parse
from holdfast.errors import MissingExtra, UsageError


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("sqlite:///orders.db", Path("orders.db")),
        ("sqlite:////var/lib/orders.db", Path("/var/lib/orders.db")),
        ("SQLITE:///a%20b%3Fc.db", Path("a b?c.db")),
        ("sqlite:///:memory:", None),
        ("sqlite://", None),
    ],
)
def test_uri_names_a_file_or_memory(uri: str, path: Path | None) -> None:
    assert parse(uri) == SqliteUri(path=path)


def test_options_are_read() -> None:
    parsed = parse("sqlite:///a.db?synchronous=NORMAL&busy_timeout=2.5")
    assert (parsed.synchronous, parsed.busy_timeout) == ("normal", 2.5)


def test_full_synchronous_is_the_default() -> None:
    assert parse("sqlite:///a.db").synchronous == "full"


@pytest.mark.parametrize(
    ("uri", "message", "hint"),
    [
        ("orders.db", "orders.db", "sqlite:///orders.db"),
        ("sqlite:orders.db", "sqlite:orders.db", "write sqlite:///orders.db"),
        ("sqlite:/var/orders.db", "sqlite:/var/orders.db", "write sqlite:////var/orders.db"),
        ("sqlit:///a.db", "sqlit", "did you mean sqlite?"),
        ("mongodb://x", "mongodb", "sqlite:///"),
        ("sqlite://host/a.db", "host", "sqlite:///host/a.db"),
        ("sqlite:///", "no file", "sqlite:///"),
        ("sqlite:///a%00b", "no file", ""),
        ("sqlite:///a.db?synchronos=full", "synchronos", "did you mean synchronous?"),
        ("sqlite:///a.db?zzz=1", "zzz", "busy_timeout and synchronous"),
        ("sqlite:///a.db?synchronous=nrmal", "nrmal", "did you mean normal?"),
        ("sqlite:///a.db?synchronous=off", "off", "corrupts"),
        ("sqlite:///a.db?busy_timeout=soon", "soon", "seconds"),
        ("sqlite:///a.db?busy_timeout=0", "'0'", "more than 0"),
        ("sqlite:///a.db?busy_timeout=nan", "nan", "seconds"),
        ("sqlite:///a.db?synchronous=full&synchronous=full", "twice", ""),
    ],
)
def test_what_is_wrong_is_named_with_a_hint(uri: str, message: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(uri)
    assert message in caught.value.message
    assert hint in caught.value.hint


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+asyncpg"])
def test_postgresql_says_that_this_release_has_sqlite_only(scheme: str) -> None:
    with pytest.raises(MissingExtra, match="SQLite only"):
        parse(f"{scheme}://localhost/orders")


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1))
def test_every_path_survives_percent_encoding(name: str) -> None:
    if name != ":memory:":
        assert parse(f"sqlite:///{quote(name, safe='')}").path == Path(name)

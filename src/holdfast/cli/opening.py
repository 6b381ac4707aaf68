"""Opening the database of a command. Commands that only look never make one."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, TypeVar

from holdfast import Client, Holdfast
from holdfast._app import find_uri
from holdfast._store import place
from holdfast._store.readonly import ReadOnlyDatabase
from holdfast._store.sqlite_contents import refuse_foreign
from holdfast._store.uri import SqliteUri, parse
from holdfast.cli.problems import NoDatabase
from holdfast.cli.settings import Settings
from holdfast.errors import StoreError, UsageError

T = TypeVar("T")
OTHERS_MAX: Final = 3
RUNS_TABLE: Final = "holdfast_runs"


def with_client(
    settings: Settings, work: Callable[[Client], Awaitable[T]], *, app: Holdfast | None = None, create: bool = False
) -> T:
    """Open a client, do the work, close it, and return what came out.

    Args:
        app: whose database, unless `--db` says otherwise.
        create: whether a missing database is made.

    Raises:
        NoDatabase: there is none, and `create` is false.
    """
    if app is None:
        app = Holdfast(settings.db)
    elif settings.db is not None:
        point_to(app, settings.db)
    if not create:
        require(parse(app.uri))

    async def session() -> T:
        async with app.client() as client:
            return await work(client)

    return asyncio.run(session())


def point_to(app: Holdfast, uri: str) -> None:
    """Let an app that is not open use another database."""
    app.uri, app._parsed = uri, parse(uri)


def location(settings: Settings) -> SqliteUri:
    """The database that the command is about."""
    return parse(find_uri(settings.db))


def require(uri: SqliteUri) -> Path:
    """The path of a database that exists and holds our tables.

    Raises:
        NoDatabase: it does not, or holds none.
        UsageError: it is in memory.
    """
    path = existing(uri)
    tables = tables_in(path)
    if tables is None or RUNS_TABLE in tables:
        return path
    if not tables:
        raise NoDatabase(f"{path} holds no runs of holdfast", hint="`holdfast migrate` makes its tables")
    more = ", ..." if len(tables) > OTHERS_MAX else ""
    raise NoDatabase(
        f"{path} holds no runs of holdfast, but tables of another program: {', '.join(tables[:OTHERS_MAX])}{more}",
        hint="choose another with --db or HOLDFAST_URI; if it is meant to hold both, run `holdfast migrate`",
    )


def existing(uri: SqliteUri) -> Path:
    """The path of a database file that exists; nothing is opened.

    Raises:
        NoDatabase: there is none.
        UsageError: it is in memory.
    """
    if uri.path is None:
        raise UsageError("a database in memory belongs to one process", hint="name a file: --db sqlite:///orders.db")
    if not os.path.exists(uri.path):
        raise NoDatabase(
            f"no database at {uri.path.absolute()}",
            hint=_others(uri.path) or "choose another with --db or HOLDFAST_URI; workers and `start` make it",
        )
    place.refuse_other_than_file(uri.path)
    return uri.path


def _others(missing: Path) -> str:
    """Databases beside the one that is not there: whoever has named theirs in code forgets it here."""
    turns = sorted(missing.parent.glob("*-turn-a"))[:OTHERS_MAX]
    there = [path for turn in turns if (path := turn.with_name(turn.name.removesuffix("-turn-a"))).exists()]
    return f"there is {' and '.join(f'--db sqlite:///{path}' for path in there)}" if there else ""


def tables_in(path: Path) -> list[str] | None:
    """The names of the tables; none when they cannot be told, so that opening it tells why."""

    def look(connection: sqlite3.Connection) -> list[str]:
        refuse_foreign(connection, path)
        query = "select name from sqlite_master where type = 'table' and name not like 'sqlite\\_%' escape '\\'"
        return [row["name"] for row in connection.execute(f"{query} order by name")]

    database = ReadOnlyDatabase(path)
    try:
        return database.read(look)
    except StoreError:
        return None
    finally:
        database.close()

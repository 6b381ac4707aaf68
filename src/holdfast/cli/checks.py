"""What `holdfast doctor` looks at, each a small function that gives findings. Nothing here writes to the database.

Checks of the surroundings come first, since they work without a database, or with one that cannot be opened. The file
is opened as every client opens it, so a fault that would stop a client is found as that client's error.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import socket
import sqlite3
import stat
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from holdfast._model.lifecycle import SUSPECT_AFTER
from holdfast._model.retention import Retention
from holdfast._store import lifelock, migrate, place
from holdfast._store.sqlfile import load
from holdfast._store.sqlite_doctor import examine
from holdfast._store.sqlite_faults import SQLITE_FAULTS
from holdfast._store.sqlitefile import (
    LOG_BYTES_MAX,
    OLDEST_LIBRARY,
    PAGE_BYTES,
    SqliteFile,
    wal_reset_bug,
)
from holdfast._store.turnstile import NoTurnstile
from holdfast._store.uri import SqliteUri
from holdfast.cli.opening import require
from holdfast.cli.words import size
from holdfast.errors import HoldfastError, StoreError

FREE_BYTES_FAIL: Final = 64 * 1024 * 1024
FREE_BYTES_WARN: Final = 1024 * 1024 * 1024
OTHER_LIBRARIES: Final = ("apsw", "libsql", "pysqlite2", "pysqlite3", "sqlean", "sqlcipher3")
SUSPECTS_NAMED_MAX: Final = 5
OVERDUE: Final = timedelta(days=1)
"""By how much runs may have outlived their retention: workers look each minute, but need not be there always."""
FIXED_VERSIONS: Final = "3.44.6, 3.50.7 or 3.51.3"


class Level(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report.

    Attributes:
        level: ok, warn or fail.
        name: what was looked at.
        message: what was found.
        advice: what to do; empty when nothing is.
    """

    level: Level
    name: str
    message: str
    advice: str = ""


def findings(uri: SqliteUri) -> Iterator[Finding]:
    """Everything, in the order in which it is read best."""
    yield sqlite_version(sqlite3.sqlite_version_info)
    yield from other_libraries()
    try:
        path = place.real_path(require(uri))
    except HoldfastError as error:
        yield Finding(Level.FAIL, "database", error.message, error.hint)
        return
    yield Finding(Level.OK, "database", f"{path}, {size(path.stat().st_size)}")
    for check in (file_system, permissions, disk_space, log_size, turnstile):
        yield from check(path)
    yield from _inside(uri, path)


def _inside(uri: SqliteUri, path: Path) -> Iterator[Finding]:
    try:
        file = SqliteFile(uri)
        try:
            with file.reading() as connection:
                yield from _contents(connection, path)
        finally:
            file.close()
    except SQLITE_FAULTS as error:
        yield Finding(Level.FAIL, "integrity", f"SQLite cannot read it: {error}", RESTORE)
    except StoreError as error:
        yield Finding(Level.FAIL, "open", error.message, error.hint)


def _contents(connection: sqlite3.Connection, path: Path) -> Iterator[Finding]:
    facts = examine(connection)
    yield from integrity(facts)
    yield from schema(connection)
    yield from pragmas(facts["pragmas"])
    yield from workers(connection, path)
    yield from runs(connection)
    yield from suspects(connection)
    yield from retention(connection)
    yield from shrinking(facts)
    yield from strangers(connection)


RESTORE: Final = "stop every worker, keep a copy of the database with its -wal, and restore a backup"


# The surroundings.


def sqlite_version(version: tuple[int, ...]) -> Finding:
    """The library of this Python, and its known faults."""
    told = ".".join(map(str, version))
    if version < OLDEST_LIBRARY:
        return Finding(Level.FAIL, "sqlite", f"{told} is too old", "3.37 or newer is needed: use a newer Python")
    if wal_reset_bug(version):
        return Finding(
            Level.WARN,
            "sqlite",
            f"{told} has the WAL-reset bug; holdfast takes turns around it, other programs do not",
            f"let no other program write to this file, or use SQLite {FIXED_VERSIONS}",
        )
    return Finding(Level.OK, "sqlite", told)


def other_libraries() -> Iterator[Finding]:
    """A second SQLite library in a process drops the locks of the first."""
    loaded = [name for name in OTHER_LIBRARIES if name in sys.modules]
    if loaded:
        advice = "one process must use one SQLite library: Python's sqlite3"
        yield Finding(Level.FAIL, "libraries", f"{', '.join(loaded)} is loaded beside sqlite3", advice)
        return
    installed = [name for name in OTHER_LIBRARIES if importlib.util.find_spec(name) is not None]
    if installed:
        advice = "never open this database with it in a process that uses holdfast: commits would be lost"
        yield Finding(Level.WARN, "libraries", f"{', '.join(installed)} is installed beside sqlite3", advice)
    else:
        yield Finding(Level.OK, "libraries", "no second SQLite library is installed")


def file_system(path: Path) -> Iterator[Finding]:
    """Where write-ahead logging is safe."""
    kind = place.file_system(path.parent)
    try:
        place.check(path)
    except StoreError as error:
        yield Finding(Level.FAIL, "file system", error.message, error.hint)
    else:
        yield Finding(Level.OK, "file system", kind or "of unknown kind")


def permissions(path: Path) -> Iterator[Finding]:
    """Who may read and write the files."""
    for file in (path, *_beside(path, "-wal", "-shm")):
        status = file.stat()
        if status.st_uid != os.geteuid():
            advice = "run everything that uses it as one user, or as one group with write permission"
            yield Finding(Level.WARN, "permissions", f"{file.name} belongs to user {status.st_uid}", advice)
            return
        if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            mode = f"{stat.S_IMODE(status.st_mode):04o}"
            advice = f"if that is not meant: chmod 600 {file}"
            yield Finding(Level.WARN, "permissions", f"{file.name} is open to other users (mode {mode})", advice)
            return
    yield Finding(Level.OK, "permissions", "only its owner reads and writes it")


def disk_space(path: Path) -> Iterator[Finding]:
    """Room to write."""
    free = shutil.disk_usage(path.parent).free
    level = Level.FAIL if free < FREE_BYTES_FAIL else Level.WARN if free < FREE_BYTES_WARN else Level.OK
    advice = "" if level is Level.OK else "make room; writing goes on by itself"
    yield Finding(level, "disk space", f"{size(free)} free", advice)


def log_size(path: Path) -> Iterator[Finding]:
    """The write-ahead log grows while a reader holds an old snapshot."""
    logs = _beside(path, "-wal")
    taken = logs[0].stat().st_size if logs else 0
    if taken > 2 * LOG_BYTES_MAX:
        advice = "a program keeps a read transaction open: find it and close it"
        yield Finding(Level.WARN, "log", f"{size(taken)} of write-ahead log", advice)
    else:
        yield Finding(Level.OK, "log", f"{size(taken)} of write-ahead log")


def turnstile(path: Path) -> Iterator[Finding]:
    """The two lock files: whoever may write the database must be able to take a turn."""
    files = _beside(path, "-turn-a", "-turn-b")
    odd = [file.name for file in files if not _is_lockable(file)]
    if odd:
        advice = "they must be plain files with the database's owner and mode"
        yield Finding(Level.FAIL, "turns", f"{' and '.join(odd)} cannot be used", advice)
    else:
        yield Finding(Level.OK, "turns", "both lock files are there" if len(files) == 2 else "made at the next opening")


# Inside.


def integrity(facts: Mapping[str, Any]) -> Iterator[Finding]:
    """SQLite's own examination of every page."""
    problems = [problem for problem in facts["integrity"] if problem != "ok"]
    if problems:
        yield Finding(Level.FAIL, "integrity", "; ".join(problems[:3]), RESTORE)
    elif facts["broken_references"]:
        yield Finding(Level.FAIL, "integrity", f"{facts['broken_references']} rows refer to nothing", RESTORE)
    else:
        yield Finding(Level.OK, "integrity", f"{facts['pages']:,} pages, {facts['pages_free']:,} of them free")


def schema(connection: sqlite3.Connection) -> Iterator[Finding]:
    """Whether this release knows the schema."""
    try:
        pending = migrate.migrate(connection, NoTurnstile(), now_us=0, dry_run=True)
    except HoldfastError as error:
        yield Finding(Level.FAIL, "schema", error.message, error.hint)
        return
    if pending:
        yield Finding(Level.WARN, "schema", f"{len(pending)} migrations are not applied", "run `holdfast migrate`")
    else:
        yield Finding(Level.OK, "schema", "up to date")


def pragmas(facts: Mapping[str, Any]) -> Iterator[Finding]:
    """Settings of the file, and of connections as this URI opens them."""
    told = f"{facts['journal_mode']}, synchronous {'normal' if facts['synchronous'] == 1 else 'full'}"
    if facts["journal_mode"] != "wal":
        yield Finding(Level.FAIL, "pragmas", f"journal mode {facts['journal_mode']}", "put it on a local disk")
    elif facts["synchronous"] < 2:
        advice = "drop ?synchronous=normal from the URI if acknowledged must mean durable"
        yield Finding(Level.WARN, "pragmas", f"{told}: a power cut may take the last commits", advice)
    elif facts["page_size"] != PAGE_BYTES:
        yield Finding(Level.WARN, "pragmas", f"page size {facts['page_size']}", f"{PAGE_BYTES} is what was measured")
    else:
        yield Finding(Level.OK, "pragmas", told)


def workers(connection: sqlite3.Connection, path: Path) -> Iterator[Finding]:
    """Leases: who lives, and who only seems to."""
    rows = connection.execute("select id, host, pid, lease_until from holdfast_workers where state = 'live'").fetchall()
    now, here = time.time_ns() // 1000, socket.gethostname()
    alive, dead = 0, list[str]()
    for worker, host, pid, lease_until in rows:
        gone = host == here and lifelock.is_free(path, worker)
        if gone:
            dead.append(worker)
            advice = "any worker takes its runs over"
            yield Finding(Level.WARN, "workers", f"{worker} (process {pid}) is dead, and nobody has buried it", advice)
        elif lease_until < now:
            over = (now - lease_until) // 1_000_000
            advice = "its process is stopped or overloaded; the next worker takes its runs over"
            yield Finding(Level.WARN, "workers", f"{worker} (process {pid} on {host}) is {over} s late", advice)
        else:
            alive += 1
    if alive:
        yield Finding(Level.OK, "workers", f"{alive} alive")
        return
    waiting = connection.execute(
        "select count(*) from holdfast_runs where state = 'ready'"
        " or (state in ('scheduled', 'waiting') and due_at <= ?)"
        " or (state = 'running' and worker in (select value from json_each(?)))",
        (now, json.dumps(dead)),
    ).fetchone()[0]
    if waiting:
        told = f"none is alive, and {_runs(waiting)} {'waits' if waiting == 1 else 'wait'} for one"
        yield Finding(Level.WARN, "workers", told, "nobody executes them until you start one: holdfast worker MOD:APP")
    elif not rows:
        yield Finding(Level.OK, "workers", "none, and no run waits for one")


def suspects(connection: sqlite3.Connection) -> Iterator[Finding]:
    """Runs with which their processes died again and again: what to look at before they are blocked as poison."""
    try:
        rows = connection.execute(
            "select id, workflow, crashes from holdfast_runs where state in ('ready', 'running') and crashes >= ?"
            " order by crashes desc, number",
            (SUSPECT_AFTER,),
        ).fetchall()
    except sqlite3.OperationalError:  # an older schema, which `schema` has told of
        return
    for run_id, workflow, crashes in rows[:SUSPECTS_NAMED_MAX]:
        told = f"{run_id} ({workflow}): its process has died with it {crashes} times in a row; it is tried alone"
        yield Finding(Level.WARN, "suspect", told, f"look behind its last entry: holdfast show {run_id}")
    if len(rows) > SUSPECTS_NAMED_MAX:
        advice = f"look at them: holdfast ls 'crashes:>={SUSPECT_AFTER}'"
        yield Finding(Level.WARN, "suspect", f"{len(rows) - SUSPECTS_NAMED_MAX:,} more like these", advice)


def runs(connection: sqlite3.Connection) -> Iterator[Finding]:
    """Runs that need a person."""
    blocked = connection.execute(
        "select reason, count(*) from holdfast_runs where state = 'blocked' group by reason order by reason"
    ).fetchall()
    for reason, count in blocked:
        advice = "look at them: holdfast ls --state blocked"
        yield Finding(Level.WARN, "runs", f"{count:,} blocked ({reason})", advice)
    if not blocked:
        yield Finding(Level.OK, "runs", "none is blocked")


def retention(connection: sqlite3.Connection) -> Iterator[Finding]:
    """Ended runs that nobody removes. What an app's own retention is, the database does not know: judged by default."""
    policy, now_us, sql = Retention(), time.time_ns() // 1000, load("sqlite.sql")
    overdue = 0
    for workflow, state, _ in connection.execute(sql["ended_groups"]).fetchall():
        kept = policy.age(workflow, state)
        if kept is not None:
            before = now_us - (kept + OVERDUE) // timedelta(microseconds=1)
            overdue += connection.execute(sql["count_ended"], (workflow, state, before)).fetchone()[0]
    if overdue:
        advice = "`holdfast prune` shows and removes them; if your app keeps them on purpose, nothing is wrong"
        yield Finding(Level.WARN, "retention", f"{overdue:,} runs are kept for longer than the default", advice)
    else:
        yield Finding(Level.OK, "retention", "no run is kept for longer than the default")


def shrinking(facts: Mapping[str, Any]) -> Iterator[Finding]:
    """Whether the file can give space back."""
    free = size(facts["pages_free"] * facts["pragmas"]["page_size"])
    if facts["pragmas"]["auto_vacuum"] == 0:
        advice = "stop every worker, then: sqlite3 FILE 'pragma auto_vacuum = incremental; vacuum' (takes as much room)"
        yield Finding(Level.WARN, "space", f"{free} free inside; this file was not made to shrink", advice)
    else:
        yield Finding(Level.OK, "space", f"{free} free inside, for the next runs; what is not needed is given back")


def strangers(connection: sqlite3.Connection) -> Iterator[Finding]:
    """Ready runs that no live worker will take; without any live worker, `workers` has told of them all."""
    try:
        rows = connection.execute(
            "select workflow, count(*) from holdfast_runs where state = 'ready' and workflow not in ("
            "select value from holdfast_workers, json_each(workflows) where holdfast_workers.state = 'live'"
            ") and exists (select 1 from holdfast_workers where holdfast_workers.state = 'live')"
            " group by workflow order by workflow"
        ).fetchall()
    except sqlite3.OperationalError:  # an older schema, which `schema` has told of: its workers do not tell
        return
    for workflow, count in rows:
        advice = "start a worker with it: holdfast worker MOD:APP"
        yield Finding(Level.WARN, "ready", f"{_runs(count)} of {workflow} ready, and no live worker knows it", advice)


# Leaves.


def _runs(count: int) -> str:
    return "1 run" if count == 1 else f"{count:,} runs"


def _beside(path: Path, *endings: str) -> list[Path]:
    """The files beside the database that exist."""
    files = [path.with_name(path.name + ending) for ending in endings]
    return [file for file in files if os.path.lexists(file)]


def _is_lockable(file: Path) -> bool:
    return file.is_file() and not file.is_symlink() and os.access(file, os.R_OK | os.W_OK)

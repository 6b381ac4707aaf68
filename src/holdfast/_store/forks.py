"""What happens to open databases when the process forks.

A connection must not be used in a forked child, and must not be closed there either. But it is not enough to leave it
alone and open another one: SQLite keeps one list of open files per process and copies of it are inherited. A child that
opens a file which is on its list believes that it holds the file's locks already, and takes none. Then the parent, when
it closes its last connection, sees nobody, folds the log into the database and removes it, and what the child commits
afterwards goes into a removed file: acknowledged, and lost. (Reproduced with SQLite 3.40.1.)

So nothing may be open at the moment of the fork:

    before            wait until no thread is inside SQLite; take the turn; close every connection
    fork
    in the parent     open the same connection objects again; let the turn and the threads go
    in the child      forget the connections, which are closed; close the turnstile's descriptors; open again when asked

"Inside SQLite" is being in a turn, or in `SqliteFile.no_fork()`. A thread that forks while it is there itself cannot be
waited for. Its connections stay open, and the child refuses the file with an error instead of losing commits.

Order of waiting: the lock of all files, the threads' locks, then the turns by device and inode. A thread in its turn
never waits for a thread's lock, and two processes that fork at once take turns in the same order: there is no circle.

Fork handlers cannot be taken back, so there is one set for the process, made with the first file.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
from collections.abc import Iterable
from contextlib import AbstractContextManager, ExitStack
from functools import cache
from typing import TYPE_CHECKING, TypeAlias
from weakref import WeakSet

from holdfast.errors import HoldfastError, StoreUnsupported

if TYPE_CHECKING:
    from holdfast._store.sqlitefile import SqliteFile

Identity: TypeAlias = tuple[int, int]
_log = logging.getLogger("holdfast.engine")


class Forks:
    """The open files of this process, and the handlers. Use `forks()`, of which there is one."""

    def __init__(self) -> None:
        self._files: WeakSet[SqliteFile] = WeakSet()
        self._lost: set[Identity] = set()
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.RLock()
        self._forking = threading.local()

    def add(self, file: SqliteFile) -> None:
        """Take part in forks from now on."""
        with self._lock:
            self._files.add(file)

    def remove(self, file: SqliteFile) -> None:
        """Take part no more: it is closed, and another file may be at its path."""
        with self._lock:
            self._files.discard(file)

    def no_fork(self) -> AbstractContextManager[object]:
        """While in this block, forks in other threads wait: for a connection that belongs to no file yet."""
        return self._lock

    def check(self, identity: Identity, name: object) -> None:
        """Refuse a file that was open, and could not be closed, when this process was forked."""
        if identity in self._lost:
            raise StoreUnsupported(
                f"this process was forked while {name} was in use by the forking thread",
                hint="fork outside of transactions, or start the process with the `spawn` method",
            )

    def before(self) -> None:
        """In the thread that forks: bring every file to rest."""
        stack = ExitStack()
        resting: list[SqliteFile] = []
        self._forking.stack, self._forking.resting = stack, resting
        stack.enter_context(self._lock)
        for _, group in sorted(_grouped(self._files).items()):
            if not any(file.in_use_here() for file in group):
                try:
                    _bring_to_rest(group, stack)
                except (HoldfastError, sqlite3.Error):
                    # A fork handler cannot raise. The child refuses the file, which is safe.
                    _log.exception("cannot close %s before a fork", group[0].path)
                else:
                    resting += group

    def in_parent(self) -> None:
        """In the thread that forked: go on."""
        with self._forking.stack:
            for file in self._forking.resting:
                try:
                    file.reopen()
                except (HoldfastError, sqlite3.Error):
                    # A fork handler cannot raise. The thread that needs the connection meets the error itself.
                    _log.exception("cannot reopen %s after a fork", file.path)

    def in_child(self) -> None:
        """In the new process, with one thread: forget."""
        resting = self._forking.resting
        self._reset()
        for file in list(self._files):
            if file not in resting:
                self._lost.add(file.identity)
                _keep_for_ever(file.connections())
            file.forget()


@cache
def forks() -> Forks:
    """The one of this process; its handlers are registered with the first call."""
    registry = Forks()
    os.register_at_fork(before=registry.before, after_in_parent=registry.in_parent, after_in_child=registry.in_child)
    return registry


def _grouped(files: Iterable[SqliteFile]) -> dict[Identity, list[SqliteFile]]:
    groups: dict[Identity, list[SqliteFile]] = {}
    for file in files:
        groups.setdefault(file.identity, []).append(file)
    return groups


def _bring_to_rest(group: list[SqliteFile], stack: ExitStack) -> None:
    """Hold the threads of all files at one path, and one turn, then close. Late-comers among threads are held, too."""
    held: set[int] = set()
    while True:
        for file in group:
            for thread in file.threads():
                if id(thread) not in held:
                    held.add(id(thread))
                    stack.enter_context(thread)
        turn = group[0].turnstile.turn()
        turn.__enter__()
        if held.issuperset(id(thread) for file in group for thread in file.threads()):
            break
        turn.__exit__(None, None, None)
    stack.push(turn)
    for file in group:
        file.rest()


def _keep_for_ever(connections: Iterable[sqlite3.Connection]) -> None:
    """Not even the interpreter's end may close these: that would run SQLite on what belongs to the parent."""
    import ctypes  # in this rare case only

    for connection in connections:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))

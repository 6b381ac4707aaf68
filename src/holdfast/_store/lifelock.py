"""A file lock that a worker holds for life, so that others on this host notice its death at once.

The kernel drops a flock when the last descriptor of its open file goes, however the process ends; a free lock is a dead
worker. A forked child inherits the descriptor and would keep a dead parent's lock alive, so children close it: that
does not release the parent's. The files lie beside the database, `<database>-worker-<id>`, and are removed by the
worker when it leaves or by whoever buries it. Removal is safe because ids are never used twice.

A process may die after it has made its file and before its row is there: nobody would bury it. Such files are swept up
when they are free, belong to no live row and are older than a minute. A process that needs longer than that between the
first and the last of its three moves (make the file, lock it, enter the row) may lose its file to the sweep: if it has
not locked it by then, it notices and makes another; if its row is there, others see a row without a file, which is how
a dead worker looks, and bury it. It is fenced then, and takes a new identity: nothing is lost but its time.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import os
import weakref
from collections.abc import Collection
from functools import cache
from pathlib import Path

from holdfast.errors import InternalError, StoreUnavailable


class LifeLock:
    """Held from construction until `release`, or until the process is gone."""

    def __init__(self, database: Path, worker: str) -> None:
        self._path = _path(database, worker)
        self._descriptor: int | None = _locked(self._path)
        _held().add(self)

    @property
    def path(self) -> Path:
        """The file."""
        return self._path

    @property
    def is_held(self) -> bool:
        """Whether it still is."""
        return self._descriptor is not None

    def release(self) -> None:
        """Remove the file and let the lock go. May be called twice."""
        if self._descriptor is None:
            return
        with contextlib.suppress(OSError):  # the disk has become read-only: a free lock says the same
            self._path.unlink(missing_ok=True)
        os.close(self._descriptor)
        self._descriptor = None

    def abandon(self) -> None:
        """In a forked child: close the inherited descriptor without touching the parent's lock."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def is_free(database: Path, worker: str) -> bool:
    """Whether nobody holds the lock of `worker`: its process is gone.

    Raises:
        StoreUnavailable: that cannot be seen now, which says nothing about the worker.
    """
    if not worker.isalnum():  # somebody has edited its row: no process ever had a lock of that name
        return True
    try:
        descriptor = _open(_path(database, worker))
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def remove(database: Path, worker: str) -> None:
    """Remove the file of a buried worker."""
    if not worker.isalnum():
        return
    with contextlib.suppress(OSError):  # the disk has become read-only: a free lock says the same
        _path(database, worker).unlink(missing_ok=True)


def sweep(database: Path, known: Collection[str], *, before_us: int) -> None:
    """Remove files that nobody holds, of no known worker, made before this instant."""
    prefix = _prefix(database)
    for file in database.parent.glob(f"{glob.escape(prefix)}*"):
        worker = file.name.removeprefix(prefix)
        with contextlib.suppress(FileNotFoundError):  # somebody else sweeps, too
            is_old = worker.isalnum() and worker not in known and file.lstat().st_mtime_ns // 1000 < before_us
            if is_old and is_free(database, worker):
                file.unlink()


def _locked(path: Path) -> int:
    """Make the file and lock it; once more if it was swept up in between."""
    while True:
        descriptor = _open(path, os.O_CREAT)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            return descriptor
        os.close(descriptor)


def held_locks() -> list[LifeLock]:
    """The locks that this process holds."""
    return [lock for lock in list(_held()) if lock.is_held]


def _open(path: Path, flags: int = 0) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC | flags, 0o600)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StoreUnavailable(
            f"cannot open {path}: {error.strerror}", hint="look at its owner, and at the number of open files"
        ) from error


def _path(database: Path, worker: str) -> Path:
    if not worker.isalnum():
        raise InternalError(f"worker id {worker!r} cannot be part of a file name")
    return database.with_name(f"{_prefix(database)}{worker}")


def _prefix(database: Path) -> str:
    return f"{database.name}-worker-"


@cache
def _held() -> weakref.WeakSet[LifeLock]:
    """The locks of this process. Fork handlers are registered once per process and cannot be taken back."""
    held: weakref.WeakSet[LifeLock] = weakref.WeakSet()

    def abandon_all() -> None:
        for lock in list(held):
            lock.abandon()

    os.register_at_fork(after_in_child=abandon_all)
    return held

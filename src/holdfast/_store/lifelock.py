"""A file lock that a worker holds for life, so that others on this host notice its death at once.

The kernel drops a flock when the last descriptor of its open file goes, however the process ends; a free lock is a dead
worker. A forked child inherits the descriptor and would keep a dead parent's lock alive, so children close it: that
does not release the parent's. The files lie beside the database, `<database>-worker-<id>`, and are removed by the
worker when it leaves or by whoever buries it. Removal is safe because ids are never used twice.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import weakref
from functools import cache
from pathlib import Path

from holdfast.errors import InternalError, StoreUnavailable


class LifeLock:
    """Held from construction until `release`, or until the process is gone."""

    def __init__(self, database: Path, worker: str) -> None:
        self._path = _path(database, worker)
        self._descriptor: int | None = _open(self._path, os.O_CREAT)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        _held().add(self)

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
    _path(database, worker).unlink(missing_ok=True)


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
    return database.with_name(f"{database.name}-worker-{worker}")


@cache
def _held() -> weakref.WeakSet[LifeLock]:
    """The locks of this process. Fork handlers are registered once per process and cannot be taken back."""
    held: weakref.WeakSet[LifeLock] = weakref.WeakSet()

    def abandon_all() -> None:
        for lock in list(held):
            lock.abandon()

    os.register_at_fork(after_in_child=abandon_all)
    return held

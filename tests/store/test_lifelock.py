from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from holdfast._store import lifelock
from holdfast._store.lifelock import LifeLock
from holdfast.errors import InternalError

HOLDER = """
import sys
from pathlib import Path
from holdfast._store.lifelock import LifeLock
lock = LifeLock(Path(sys.argv[1]), "w1")
print("held", flush=True)
sys.stdin.read()
"""


def test_a_lock_is_held_until_release_and_its_file_goes(tmp_path: Path) -> None:
    database = tmp_path / "a.db"
    assert lifelock.is_free(database, "w1")
    lock = LifeLock(database, "w1")
    assert not lifelock.is_free(database, "w1")
    assert (tmp_path / "a.db-worker-w1").stat().st_mode & 0o777 == 0o600
    lock.release()
    lock.release()
    assert lifelock.is_free(database, "w1")
    assert list(tmp_path.iterdir()) == []


def test_a_killed_process_lets_go_at_once(tmp_path: Path) -> None:
    database = tmp_path / "a.db"
    command = [sys.executable, "-c", HOLDER, str(database)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        assert not lifelock.is_free(database, "w1")
        process.kill()
        process.wait()
    assert (tmp_path / "a.db-worker-w1").exists()
    assert lifelock.is_free(database, "w1")
    assert lifelock.is_free(database, "w1"), "looking does not take it"
    lifelock.remove(database, "w1")
    lifelock.remove(database, "w1")
    assert list(tmp_path.iterdir()) == []


def test_a_forked_child_does_not_keep_the_parents_lock(tmp_path: Path) -> None:
    database = tmp_path / "a.db"
    lock = LifeLock(database, "w1")
    read, write = os.pipe()
    began, begin = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(write)
        os.write(begin, b".")
        os.read(read, 1)  # stays until the parent has looked
        os._exit(0)
    os.close(read)
    try:
        os.read(began, 1)
        assert not lifelock.is_free(database, "w1"), "closing in the child does not release it"
        descriptor = lock._descriptor
        assert descriptor is not None
        os.close(descriptor)  # as the parent's death would
        lock._descriptor = None
        assert lifelock.is_free(database, "w1"), "the child keeps nothing"
    finally:
        for end in (write, began, begin):
            os.close(end)
        os.waitpid(child, 0)


@pytest.mark.parametrize("worker", ["", "../x", "a b"])
def test_a_worker_id_that_is_no_file_name_is_our_fault(worker: str, tmp_path: Path) -> None:
    with pytest.raises(InternalError):
        LifeLock(tmp_path / "a.db", worker)


def test_files_that_nobody_holds_or_knows_are_swept_up_when_they_are_old(tmp_path: Path) -> None:
    database = tmp_path / "a[1].db"
    held = lifelock.LifeLock(database, "held")
    for name in ("known", "orphan", "young"):
        (tmp_path / f"a[1].db-worker-{name}").touch()
    (tmp_path / "a[1].db-worker-not.ours").touch()
    (tmp_path / "b.db-worker-other").touch()
    for file in tmp_path.iterdir():
        os.utime(file, (10, 10) if "young" not in file.name else (30, 30))
    lifelock.sweep(database, {"known"}, before_us=20_000_000)
    left = {file.name.rpartition("-")[2] for file in tmp_path.iterdir()}
    assert left == {"held", "known", "young", "not.ours", "other"}
    held.release()


def test_a_lock_is_never_held_on_a_file_that_was_swept_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process was stopped between making its file and locking it."""
    path, flock = tmp_path / "a.db", fcntl.flock
    swept: list[int] = []

    def late(descriptor: int, operation: int) -> None:
        if not swept:
            swept.append(descriptor)
            os.unlink(tmp_path / "a.db-worker-w")
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    lock = lifelock.LifeLock(path, "w")
    monkeypatch.undo()
    assert not lifelock.is_free(path, "w")
    lock.release()
    assert not list(tmp_path.iterdir())

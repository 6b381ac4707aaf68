"""Backups: one state, whole, private and in place, or nothing at all; and restoring them."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.runtime.kit import Gate, app_of, play, until_state

from holdfast import (
    Backup,
    Holdfast,
    NotOpen,
    StoreBusy,
    StoreCorrupt,
    StoreUnavailable,
    StoreUnsupported,
    UsageError,
    step,
    workflow,
)
from holdfast._store import backup as backups
from holdfast._store import restore as restoring
from holdfast._store.backup import back_up
from holdfast._store.readonly import ReadOnlyDatabase
from holdfast._store.restore import restore
from holdfast._world import SystemWorld

gates: list[Gate] = []


@step
async def waiting() -> str:
    await gates[0]()
    return "waited"


@workflow
async def patient() -> str:
    return await waiting()


@workflow
async def quick(number: int) -> int:
    return number


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A database with 300 runs, that nobody has open."""
    path = tmp_path / "orders.db"

    async def fill() -> None:
        async with app_of(quick, at=path) as app:
            await asyncio.gather(*(app.run(quick, number, id=f"run-{number}") for number in range(300)))

    play(fill())
    return path


def copied(source: Path, target: Path, **options: Any) -> Backup:
    with ReadOnlyDatabase(source) as database:
        return back_up(database.read, database.path, target, **options)


def restored(backup: Path, target: Path) -> restoring.Restored:
    return restore(backup, target, world=SystemWorld())


def runs_in(path: Path) -> int:
    with closing(sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)) as connection:
        count: int = connection.execute("select count(*) from holdfast_runs").fetchone()[0]
        return count


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if "-turn-" not in path.name}


def test_copy_is_private_whole_and_alone(source: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copies"
    folder.mkdir()
    before = os.umask(0)
    try:
        made = copied(source, folder / "copy.db")
    finally:
        os.umask(before)
    assert made == Backup(path=folder / "copy.db", size=made.path.stat().st_size, runs=300, entries=0)
    assert names(folder) == {"copy.db"}
    assert made.path.stat().st_mode & 0o777 == 0o600
    assert runs_in(made.path) == 300


def test_others_commit_while_pages_are_copied_and_are_not_in_the_copy(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backups, "PAGES_PER_PIECE", 1)
    other = sqlite3.connect(source, isolation_level=None, timeout=0)
    other.execute("update holdfast_runs set priority = 7")  # it has the database open, with a log
    pieces = 0

    def commit(what: str, done: int, total: int) -> None:
        nonlocal pieces
        pieces += what == "copying"
        other.execute("update holdfast_runs set priority = priority + 1")  # every page of the table
        other.execute("delete from holdfast_runs where id = ?", (f"run-{pieces}",))

    made = copied(source, tmp_path / "copy.db", progress=commit)
    other.close()
    assert pieces > 10
    assert made.runs == runs_in(made.path) == 300
    with closing(sqlite3.connect(made.path)) as connection:
        assert connection.execute("select distinct priority from holdfast_runs").fetchall() == [(7,)]


def test_copy_begins_again_when_the_database_is_opened_for_writing_meanwhile(source: Path, tmp_path: Path) -> None:
    told: list[str] = []
    others: list[sqlite3.Connection] = []

    def open_once(what: str, done: int, total: int) -> None:
        told.append(what)
        if not others:
            other = sqlite3.connect(source, isolation_level=None)
            others.append(other)
            other.execute("delete from holdfast_runs where id = 'run-0'")
            other.execute("pragma wal_checkpoint(full)")

    assert not Path(f"{source}-wal").exists()
    made = copied(source, tmp_path / "copy.db", progress=open_once)
    others[0].close()
    assert made.runs == 299


def test_copy_while_an_app_works_and_a_worker_on_it_finishes(tmp_path: Path) -> None:
    gates[:] = [Gate()]

    async def main() -> None:
        async with app_of(patient, at=tmp_path / "orders.db") as app:
            run = await app.start(patient, id="patient-1")
            await gates[0].came.wait()
            made = await app.backup(tmp_path / "copy.db")
            assert made.runs == 1
            gates[0].open.set()
            assert await run.result() == "waited"
        async with app_of(
            patient, at=tmp_path / "copy.db"
        ) as copy:  # its worker's row says live; its lock is not there
            await until_state(copy, "patient-1", "succeeded")
            states = {worker.state for worker in (await copy.stats()).workers}
            assert states == {"dead", "live"}

    play(main())


def test_facade_backs_up(source: Path, tmp_path: Path) -> None:
    with Holdfast(f"sqlite:///{source}").sync() as client:
        assert client.backup(str(tmp_path / "copy.db")).runs == 300
        with pytest.raises(UsageError, match="exists already"):
            client.backup(tmp_path / "copy.db")
        assert client.backup(tmp_path / "copy.db", force=True).runs == 300


@pytest.mark.parametrize("path", [None, 17, "", b"", object()])
def test_path_that_is_none_is_refused(path: Any, source: Path) -> None:
    with Holdfast(f"sqlite:///{source}").sync() as client, pytest.raises(UsageError):
        client.backup(path)


def test_backup_of_what_is_not_open_or_in_memory(tmp_path: Path) -> None:
    async def main() -> None:
        app = Holdfast("sqlite://")
        with pytest.raises(NotOpen):
            await app.backup(tmp_path / "copy.db")
        async with app:
            with pytest.raises(UsageError, match="in memory"):
                await app.backup(tmp_path / "copy.db")

    play(main())


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], asyncio.Future[None]]]:
    """Copies that stand still after their first piece; gives a future that tells when one has come there."""
    began: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []
    original = backups._nothing

    def wait() -> asyncio.Future[None]:
        loop = asyncio.get_running_loop()
        began.append((loop, loop.create_future()))
        return began[0][1]

    def stand(what: str, done: int, total: int) -> None:
        loop, future = began[0]
        loop.call_soon_threadsafe(lambda: future.done() or future.set_result(None))
        original(what, done, total)
        os.sched_yield()

    monkeypatch.setattr(backups, "PAGES_PER_PIECE", 1)
    monkeypatch.setattr(backups, "_nothing", stand)
    return wait


def test_cancelled_backup_leaves_nothing(
    source: Path, tmp_path: Path, slow: Callable[[], asyncio.Future[None]]
) -> None:
    async def main() -> None:
        async with Holdfast(f"sqlite:///{source}").client() as client:
            began = slow()
            task = asyncio.create_task(client.backup(tmp_path / "copy.db"))
            await began
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert not [name for name in names(tmp_path) if "copy" in name]

    play(main())


def test_interrupt_while_the_copy_is_verified_is_one(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C reaches Python inside SQLite's progress handler, whose exceptions it turns into an error of its own."""
    monkeypatch.setattr(backups, "STEPS_BETWEEN_LOOKS", 10)

    class Interrupted(threading.Event):
        def is_set(self) -> bool:
            if doing == ["verifying"]:
                doing.clear()
                signal.raise_signal(signal.SIGINT)
            return False

    doing: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        copied(
            source,
            tmp_path / "copy.db",
            stop=Interrupted(),
            progress=lambda what, _done, _total: doing.__setitem__(slice(None), [what]),
        )
    assert not [name for name in names(tmp_path) if "copy" in name]


def test_closing_the_app_gives_a_backup_up(
    source: Path, tmp_path: Path, slow: Callable[[], asyncio.Future[None]]
) -> None:
    async def main() -> None:
        async with Holdfast(f"sqlite:///{source}").client() as client:
            began = slow()
            task = asyncio.create_task(client.backup(tmp_path / "copy.db"))
            await began
        with pytest.raises(NotOpen, match="closed while"):
            await task
        assert not [name for name in names(tmp_path) if "copy" in name]

    play(main())


def test_targets_that_are_refused(source: Path, tmp_path: Path) -> None:
    (tmp_path / "there.db").write_text("something")
    (tmp_path / "used.db-wal").write_text("a log")
    (tmp_path / "link.db").symlink_to(source)
    for target, message in (
        (tmp_path / "there.db", "exists already"),
        (tmp_path, "is a folder"),
        (tmp_path / "used.db", "in use, or was"),
        (source, "the database itself"),
    ):
        with pytest.raises(UsageError, match=message):
            copied(source, target)
    for target in (source, tmp_path / "link.db"):
        with pytest.raises(UsageError, match="the database itself"):
            copied(source, target, force=True)
    with pytest.raises(StoreUnavailable, match="no folder"):
        copied(source, tmp_path / "none" / "copy.db")
    assert (tmp_path / "there.db").read_text() == "something"


def damage(path: Path) -> None:
    """Overwrite a page in the middle, as a failing disk would."""
    with path.open("r+b") as file:
        file.seek(4096 * (path.stat().st_size // 4096 // 2))
        file.write(b"\xff" * 4096)


def test_only_a_file_is_replaced_even_by_force(source: Path, tmp_path: Path) -> None:
    """The superuser may rename a file onto `/dev/null`, and everybody onto a link or a pipe."""
    other, pipe = tmp_path / "other.db", tmp_path / "pipe"
    (tmp_path / "link").symlink_to(other)
    os.mkfifo(pipe)
    for target, problem in ((tmp_path / "link", f"is a link to {other}"), (pipe, "is not a file")):
        for force in (False, True):
            with pytest.raises(UsageError, match=problem):
                copied(source, target, force=force)
    assert (tmp_path / "link").is_symlink()
    assert pipe.is_fifo()
    other.write_text("")
    with pytest.raises(UsageError, match="is a link"):
        copied(source, tmp_path / "link", force=True)


def test_damaged_database_gives_no_backup(source: Path, tmp_path: Path) -> None:
    damage(source)
    with pytest.raises(StoreCorrupt):
        copied(source, tmp_path / "copy.db")
    assert not [name for name in names(tmp_path) if "copy" in name]


def test_damage_that_copying_and_counting_do_not_meet_is_found_by_verifying(source: Path, tmp_path: Path) -> None:
    content = source.read_bytes()
    source.write_bytes(content.replace(b"run-299", b"run-xxx", 1))  # in the table, or in an index
    with pytest.raises(StoreCorrupt, match=r"is damaged, and a copy of it would be: .*index"):
        copied(source, tmp_path / "copy.db")
    assert not [name for name in names(tmp_path) if "copy" in name]


def test_copy_that_holds_something_else_than_was_counted_is_refused(source: Path, tmp_path: Path) -> None:
    with ReadOnlyDatabase(source) as database, pytest.raises(StoreCorrupt, match=r"holds Counts.runs=300.*not"):
        back_up(lambda query: database.read(query)._replace(runs=299), source, tmp_path / "copy.db")
    assert not [name for name in names(tmp_path) if "copy" in name]


class Disk:
    """What a test did to the disk: which file or folder was flushed, and when names changed."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.done: list[object] = []
        fsync = os.fsync
        patch.setattr(
            os, "fsync", lambda descriptor: (self.done.append(os.fstat(descriptor).st_ino), fsync(descriptor))
        )
        for name in ("replace", "link", "unlink"):
            patch.setattr(os, name, self.noting(name, getattr(os, name)))

    def noting(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any, *more: Any, **options: Any) -> Any:
            if "-shm" not in str(path):  # it means nothing
                self.done.append(name)
            return real(path, *more, **options)

        return call


def test_a_copy_is_flushed_before_it_has_its_name_and_its_name_before_it_is_told(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "copies").mkdir()
    with monkeypatch.context() as patch:
        disk = Disk(patch)
        made = copied(source, tmp_path / "copies" / "copy.db")
    copy, folder = made.path.stat().st_ino, made.path.parent.stat().st_ino
    assert disk.done[:3] == [copy, "replace", folder]


def test_a_restore_is_flushed_between_any_two_names_that_change(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a power cut no log stands beside a database that is not its own, and what was there has a name."""
    made = copied(source, tmp_path / "copy.db")
    source.write_bytes(b"not a database" * 1000)
    Path(f"{source}-wal").write_bytes(b"its log")
    with monkeypatch.context() as patch:
        disk = Disk(patch)
        done = restored(made.path, source)
    draft, folder = done.path.stat().st_ino, tmp_path.stat().st_ino
    assert disk.done[:9] == [draft, "link", "link", folder, "unlink", folder, "replace", folder, "unlink"]


def test_full_disk_leaves_nothing_and_says_so(source: Path, tmp_path: Path) -> None:
    """A process may write no file beyond 64 kB."""
    code = (
        "import resource, signal, sys; from holdfast.cli import run; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536)); sys.exit(run(sys.argv[1:]))"
    )
    command = [
        sys.executable,
        "-c",
        code,
        "backup",
        str(tmp_path / "copy.db"),
        "--db",
        f"sqlite:///{source}",
        "-o",
        "json",
    ]
    child = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert child.returncode in (1, 9), child.stderr
    assert '"code":"store' in child.stderr
    assert not [name for name in names(tmp_path) if "copy" in name]


# Restoring.


def test_restore_keeps_the_old_database_beside(source: Path, tmp_path: Path) -> None:
    made = copied(source, tmp_path / "copy.db")
    with closing(sqlite3.connect(source, isolation_level=None)) as connection:
        connection.execute("delete from holdfast_runs where id != 'run-1'")
    done = restored(made.path, source)
    assert (done.runs, runs_in(source)) == (300, 300)
    assert done.kept is not None
    assert runs_in(done.kept) == 1
    assert names(tmp_path) == {"orders.db", "copy.db", done.kept.name}
    assert [path.stat().st_nlink for path in (source, done.kept, made.path)] == [1, 1, 1]
    assert source.stat().st_mode & 0o777 == 0o600
    with Holdfast(f"sqlite:///{source}").sync() as client:
        assert client.count() == 300


def test_restore_where_there_was_nothing(source: Path, tmp_path: Path) -> None:
    made = copied(source, tmp_path / "copy.db")
    (tmp_path / "new").mkdir()
    done = restored(made.path, tmp_path / "new" / "orders.db")
    assert (done.kept, done.runs) == (None, 300)
    assert names(tmp_path / "new") == {"orders.db"}


@contextmanager
def log_left_behind(source: Path) -> Iterator[None]:
    """As after a kill: what was committed last is in the log alone."""
    with closing(sqlite3.connect(source, isolation_level=None)) as connection:
        connection.execute("pragma wal_autocheckpoint = 0")
        connection.execute("delete from holdfast_runs where id = 'run-0'")
        wal = Path(f"{source}-wal").read_bytes()
        database = source.read_bytes()
    source.write_bytes(database)
    Path(f"{source}-wal").write_bytes(wal)
    yield


def test_log_of_the_old_database_is_folded_into_it_never_into_the_new(source: Path, tmp_path: Path) -> None:
    made = copied(source, tmp_path / "copy.db")
    with log_left_behind(source):
        done = restored(made.path, source)
    assert done.kept is not None
    assert (runs_in(source), runs_in(done.kept)) == (300, 299)
    assert not Path(f"{source}-wal").exists()


def test_damaged_database_is_replaced_and_kept_with_its_log(source: Path, tmp_path: Path) -> None:
    made = copied(source, tmp_path / "copy.db")
    source.write_bytes(b"not a database" * 1000)
    Path(f"{source}-wal").write_bytes(b"its log")
    done = restored(made.path, source)
    assert done.kept is not None
    assert done.kept.read_bytes().startswith(b"not a database")
    assert Path(f"{done.kept}-wal").read_bytes() == b"its log"
    assert not Path(f"{source}-wal").exists()
    assert runs_in(source) == 300


def test_restore_is_refused_while_somebody_uses_the_database(source: Path, tmp_path: Path) -> None:
    made = copied(source, tmp_path / "copy.db")
    code = (
        "import sys; from holdfast import Holdfast\n"
        "app = Holdfast(sys.argv[1])\n"
        "with app.sync(worker=sys.argv[2] == 'worker') as client:\n"
        "    client.count(); print('open', flush=True); sys.stdin.read()"
    )
    for role, message in (("worker", "is working on"), ("client", "is open in another process")):
        command = [sys.executable, "-c", code, f"sqlite:///{source}", role]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == "open\n"
            before = names(tmp_path)
            with pytest.raises(StoreBusy, match=message):
                restored(made.path, source)
            assert names(tmp_path) == before
            child.communicate()
    assert restored(made.path, source).runs == 300


def test_backups_that_are_refused(source: Path, tmp_path: Path) -> None:
    made = copied(source, tmp_path / "copy.db")
    with pytest.raises(UsageError, match="the database itself"):
        restored(source, source)
    with pytest.raises(StoreUnavailable, match="no database at"):
        restored(tmp_path / "none.db", source)
    damage(made.path)
    with pytest.raises(StoreCorrupt):
        restored(made.path, source)
    made.path.write_bytes(b"not a database" * 1000)
    with pytest.raises(StoreCorrupt):
        restored(made.path, source)
    Path(f"{made.path}-wal").write_text("a log")
    with pytest.raises(UsageError, match="has a log beside it"):
        restored(made.path, source)
    assert runs_in(source) == 300
    assert not [name for name in names(tmp_path) if "partial" in name or "before-restore" in name]


@pytest.mark.parametrize("dies_at", ["unlink", "replace"])
def test_dying_in_the_middle_of_a_restore_loses_nothing_and_is_noticed(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dies_at: str
) -> None:
    made = copied(source, tmp_path / "copy.db")
    source.write_bytes(b"not a database" * 1000)
    Path(f"{source}-wal").write_bytes(b"its log")

    class Died(BaseException):
        pass

    def die(*_: Any, **__: Any) -> None:
        raise Died

    with monkeypatch.context() as patch:
        if dies_at == "unlink":
            patch.setattr(Path, "unlink", die)
        else:
            patch.setattr(os, "replace", die)
        with pytest.raises(Died):
            restored(made.path, source)
    (kept,) = tmp_path.glob("*.before-restore-*Z")
    assert kept.read_bytes().startswith(b"not a database")
    assert Path(f"{kept}-wal").read_bytes() == b"its log"
    with pytest.raises(StoreUnsupported, match="2 names"):
        Holdfast(f"sqlite:///{source}").sync().__enter__()


def test_a_target_with_two_slashes_at_its_head_is_a_path_and_no_host(tmp_path: Path) -> None:
    async def main() -> None:
        async with Holdfast(f"sqlite:///{tmp_path / 'a.db'}") as app:
            copy = await app.backup(f"/{tmp_path / 'copy.db'}")
            assert copy.path == tmp_path / "copy.db"

    asyncio.run(main())

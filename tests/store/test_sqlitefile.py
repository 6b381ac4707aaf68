from __future__ import annotations

import logging
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

import holdfast
from holdfast._store import place, sqlite_contents
from holdfast._store.migrate import migrate
from holdfast._store.sqlite_contents import APPLICATION_ID
from holdfast._store.sqlite_faults import translate
from holdfast._store.sqlitefile import SqliteFile, _check_library, wal_reset_bug
from holdfast._store.turnstile import Turnstile
from holdfast._store.uri import SqliteUri
from holdfast.errors import (
    NotOpen,
    StoreBusy,
    StoreCorrupt,
    StoreError,
    StoreFull,
    StoreReplaced,
    StoreUnavailable,
    StoreUnsupported,
    UsageError,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.db"


@pytest.fixture
def file(path: Path) -> Generator[SqliteFile, None, None]:
    opened = open_file(path)
    yield opened
    opened.close()


def open_file(path: Path | None) -> SqliteFile:
    return SqliteFile(SqliteUri(path=path), joins=True)  # the tests have tables of their own in it


def pragma(connection: sqlite3.Connection, name: str) -> object:
    return connection.execute(f"pragma {name}").fetchone()[0]


def put(file: SqliteFile, value: object) -> None:
    with file.turnstile.turn():
        file.writer().execute("insert into t values (?)", (value,))


def values(file: SqliteFile) -> list[object]:
    with file.reading() as connection:
        return [row[0] for row in connection.execute("select x from t order by x")]


def prepared(path: Path) -> SqliteFile:
    file = open_file(path)
    with file.turnstile.turn():
        file.writer().execute("create table t (x)")
    return file


def plain(path: Path, *statements: str) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    for statement in statements:
        connection.execute(statement)
    connection.close()


def contents(folder: Path) -> dict[str, bytes]:
    return {found.name: found.read_bytes() for found in folder.iterdir()}


# Opening.


def test_new_file_is_private_marked_and_set_up(file: SqliteFile, path: Path) -> None:
    expected = {
        "page_size": 4096,
        "auto_vacuum": 2,
        "application_id": APPLICATION_ID,
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 1,
        "trusted_schema": 0,
        "cell_size_check": 1,
        "temp_store": 2,
        "mmap_size": 0,
        "journal_size_limit": 64 * 1024 * 1024,
        "wal_autocheckpoint": 4000,
        "busy_timeout": 30_000,
        "fullfsync": 1,
        "checkpoint_fullfsync": 1,
        "query_only": 0,
    }
    assert {name: pragma(file.writer(), name) for name in expected} == expected
    assert pragma(file.reader(), "query_only") == 1
    file.writer().execute("create table t (x)")
    assert {found.stat().st_mode & 0o777 for found in path.parent.iterdir()} == {0o600}


def test_uri_chooses_synchronous_and_busy_timeout(path: Path) -> None:
    file = SqliteFile(SqliteUri(path=path, synchronous="normal", busy_timeout=2.5))
    assert (pragma(file.writer(), "synchronous"), pragma(file.writer(), "busy_timeout")) == (1, 2500)
    file.close()


def test_application_database_is_shared_and_not_marked(path: Path) -> None:
    plain(path, "create table orders (x)")
    file = open_file(path)
    assert pragma(file.writer(), "application_id") == 0
    assert pragma(file.writer(), "journal_mode") == "wal"
    file.close()


def test_tables_of_another_program_are_joined_only_on_purpose(path: Path) -> None:
    plain(path, "create table a (x)", "create table b (x)", "create table c (x)", "create table d (x)")
    before = contents(path.parent)
    with pytest.raises(UsageError, match=r"tables of another program: a, b, c, \.\.\. .*holdfast migrate"):
        SqliteFile(SqliteUri(path=path))
    assert contents(path.parent) == before
    file = open_file(path)
    migrate(file.writer(), file.turnstile, now_us=0)
    file.close()
    SqliteFile(SqliteUri(path=path)).close()


def test_database_of_another_application_is_refused_and_nothing_is_written(path: Path) -> None:
    plain(path, "pragma application_id = 252006673", "create table t (x)")
    before = contents(path.parent)
    with pytest.raises(StoreCorrupt, match="0xf055111"):
        open_file(path)
    assert contents(path.parent) == before


@pytest.mark.parametrize("garbage", [b"This is no database. " * 100, b"x", b"SQLite format 3\0" + b"\xff" * 4080])
def test_garbage_is_refused_and_left_as_it_is(path: Path, garbage: bytes) -> None:
    path.write_bytes(garbage)
    with pytest.raises(StoreCorrupt, match=r"a\.db"):
        open_file(path)
    assert contents(path.parent) == {"a.db": garbage}


def test_empty_file_becomes_a_database(path: Path) -> None:
    path.touch()
    file = prepared(path)
    assert pragma(file.writer(), "application_id") == APPLICATION_ID
    file.close()


def test_a_file_that_was_torn_while_somebody_wrote_is_looked_at_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever writes may be done, and have removed the journal, before the one who has read asks for it."""
    plain(path, "create table orders (x)")
    whole, looks = path.read_bytes(), list[Path]()

    def has_log(database: Path) -> bool:
        looks.append(database)
        if len(looks) == 2:  # after the first look
            path.write_bytes(whole)
        return real(database)

    real = sqlite_contents._has_log
    monkeypatch.setattr(sqlite_contents, "_has_log", has_log)
    path.write_bytes(whole[:100].ljust(len(whole), b"\xff"))
    open_file(path).close()
    assert len(looks) >= 2


def test_journal_that_a_crash_left_is_played_back(path: Path) -> None:
    plain(path, "create table t (x)", "insert into t values (1)")
    dying = "import os, sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
    dying += "c.execute('pragma cache_size = 1'); c.execute('begin')\n"
    dying += "c.executemany('insert into t values (randomblob(4000))', [()] * 100); os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", dying, str(path)], check=False)
    assert path.with_name("a.db-journal").exists()
    file = open_file(path)
    assert values(file) == [1]
    file.close()


def test_name_with_special_characters_is_taken_literally(tmp_path: Path) -> None:
    name = "100% ä?mode=memory#x&y.db"
    file = prepared(tmp_path / name)
    put(file, 1)
    file.close()
    assert {found.name for found in tmp_path.iterdir()} == {name, f"{name}-turn-a", f"{name}-turn-b"}


def test_missing_folder_may_appear_and_a_folder_never_becomes_a_file(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="no folder") as missing:
        open_file(tmp_path / "none" / "a.db")
    with pytest.raises(StoreUnsupported, match="not a file") as folder:
        open_file(tmp_path)
    assert (missing.value.retryable, folder.value.retryable) == (True, False)


@pytest.fixture
def public_folder() -> Generator[Path, None, None]:
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)


def test_file_that_may_not_be_written_is_unavailable(public_folder: Path) -> None:
    plain(public_folder / "a.db", "create table t (x)")
    (public_folder / "a.db").chmod(0o444)
    public_folder.chmod(0o777)
    before = contents(public_folder)
    assert as_nobody(lambda: expect(StoreUnavailable, lambda: open_file(public_folder / "a.db"))) == 0
    assert contents(public_folder) == before


def test_folder_that_may_not_be_written_is_unavailable(public_folder: Path) -> None:
    public_folder.chmod(0o555)
    assert as_nobody(lambda: expect(StoreUnavailable, lambda: open_file(public_folder / "a.db"))) == 0
    assert contents(public_folder) == {}


def as_nobody(work: Callable[[], None]) -> int:
    def child() -> None:
        if os.getuid() == 0:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
        work()

    return exit_code(fork(child))


def expect(kind: type[BaseException], work: Callable[[], object]) -> None:
    with pytest.raises(kind):
        work()


def test_old_library_is_refused() -> None:
    _check_library((3, 37, 0))
    with pytest.raises(StoreUnsupported, match=r"3\.36\.9"):
        _check_library((3, 36, 9))


# Identity.


def test_hard_link_is_refused_before_and_reported_after_opening(tmp_path: Path) -> None:
    file = prepared(tmp_path / "a.db")
    file.check_identity()
    os.link(tmp_path / "a.db", tmp_path / "b.db")
    with pytest.raises(StoreUnsupported, match="2 names"):
        file.check_identity()
    file.close()
    with pytest.raises(StoreUnsupported, match="2 names"):
        open_file(tmp_path / "b.db")


def test_symbolic_link_leads_to_the_real_path(file: SqliteFile, path: Path) -> None:
    link = path.with_name("link.db")
    link.symlink_to(path)
    other = open_file(link)
    assert (other.path, other.identity, other.turnstile.room) == (file.path, file.identity, file.turnstile.room)
    other.close()


def test_replaced_and_removed_files_are_reported_and_not_made_again(path: Path) -> None:
    file = prepared(path)
    path.rename(path.with_name("moved.db"))
    with pytest.raises(StoreReplaced, match="removed"):
        file.check_identity()
    with pytest.raises(StoreReplaced):
        file.reader()
    assert not path.exists()
    path.touch()
    with pytest.raises(StoreReplaced, match="another file"):
        file.check_identity()
    file.close()


MOUNTS = r"""22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
23 22 0:30 / /mnt/with\040space rw - nfs4 host:/x rw
24 22 0:31 / /mnt/twice rw - ext4 /dev/b rw
25 22 0:32 / /mnt/twice rw - fuse.sshfs host rw
26 23 0:33 / /mnt/with\040space/local rw - xfs /dev/c rw
"""


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        ("/var/lib", "ext4"),
        ("/mnt/with space/x", "nfs4"),
        ("/mnt/with space/local", "xfs"),
        ("/mnt/with spaces", "ext4"),
        ("/mnt/twice", "fuse.sshfs"),
    ],
)
def test_deepest_and_last_mount_tells_the_file_system(folder: str, kind: str) -> None:
    assert place.kind_in_mountinfo(Path(folder), MOUNTS) == kind


def test_mounts_of_macos_are_read() -> None:
    mounts = "/dev/disk3s1 on / (apfs, sealed, local)\n//me@nas/x on /Volumes/My Disk (smbfs, nodev)\n"
    assert place.kind_in_mount(Path("/Users/me"), mounts) == "apfs"
    assert place.kind_in_mount(Path("/Volumes/My Disk/x"), mounts) == "smbfs"


@pytest.mark.parametrize(
    "kind",
    [
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "smbfs",
        "9p",
        "virtiofs",
        "fuse",
        "fuseblk",
        "fuse.sshfs",
        "lustre",
        "gpfs",
        "ceph",
    ],
)
def test_network_file_systems_are_refused(kind: str) -> None:
    with pytest.raises(StoreUnsupported, match=f"{kind} file system"):
        place.refuse_network(Path("/x/a.db"), kind)


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "zfs", "tmpfs", "overlay", "apfs", ""])
def test_local_file_systems_are_accepted(kind: str) -> None:
    place.refuse_network(Path("/x/a.db"), kind)


# Connections.


def test_each_thread_has_its_own_connections_and_ended_ones_are_closed(file: SqliteFile) -> None:
    mine = (file.writer(), file.reader())
    assert (file.writer(), file.reader()) == mine
    others = in_thread(lambda: [file.writer(), file.reader()])
    assert len({*mine, *others}) == 4
    in_thread(file.reader)
    for connection in others:
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            connection.execute("select 1")


def in_thread(work: Callable[[], object]) -> list[sqlite3.Connection]:
    results: list[object] = []
    thread = threading.Thread(target=lambda: results.append(work()))
    thread.start()
    thread.join()
    return results[0]  # type: ignore[return-value]


def test_close_thread_closes_only_the_callers_connections(file: SqliteFile) -> None:
    file.close_thread()
    mine, other = file.writer(), in_thread(lambda: [file.writer()])[0]
    file.close_thread()
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        mine.execute("select 1")
    assert other.execute("select 1").fetchone() == (1,)
    assert file.writer() is not mine


def test_last_close_folds_the_log_into_the_database_and_removes_it(path: Path) -> None:
    file = prepared(path)
    file.reader()
    assert path.with_name("a.db-wal").exists()
    file.close()
    file.close()
    assert {found.name for found in path.parent.iterdir()} == {"a.db", "a.db-turn-a", "a.db-turn-b"}
    with pytest.raises(NotOpen):
        file.writer()


@pytest.mark.parametrize("act", [SqliteFile.writer, SqliteFile.reader, SqliteFile.close], ids=lambda act: act.__name__)
def test_connections_are_opened_and_closed_in_a_turn(act: Callable[[SqliteFile], object], path: Path) -> None:
    """The first one may have to play the log back, the last one folds it into the database."""
    file = prepared(path)
    here = threading.Thread(target=act, args=(file,))
    with Turnstile(path).turn():
        here.start()
        while here.is_alive() and not any(seat.waiting for seat in list(file.turnstile._seats)):
            continue
        assert here.is_alive(), "it did not wait for its turn"
    here.join()
    file.close()


def test_reader_cannot_write(file: SqliteFile) -> None:
    with pytest.raises(sqlite3.OperationalError) as caught:
        file.reader().execute("create table t (x)")
    assert isinstance(translate(caught.value, file.path), StoreUnavailable)


def test_memory_has_one_connection_for_all_and_free_turns() -> None:
    file = open_file(None)
    assert file.memory
    assert file.writer() is file.reader() is in_thread(lambda: [file.reader()])[0]
    with file.turnstile.turn(), file.no_fork(), file.reading() as connection:
        assert connection is file.writer()
    file.check_identity()
    file.close_thread()
    assert file.writer().execute("select 1").fetchone() == (1,)
    file.close()


# Nothing but SQLite opens the files.

AUDIT = """
import sys, threading
from pathlib import Path
path = Path(sys.argv[1])
seen = []
def hook(event, args):
    if event == "open" and str(args[0]).startswith(str(path)): seen.append(str(args[0]))
sys.addaudithook(hook)
from holdfast._store.sqlitefile import SqliteFile
from holdfast._store.uri import SqliteUri
first = SqliteFile(SqliteUri(path=path)); first.writer()
made = list(seen)
seen.clear()
def work(file):
    with file.turnstile.turn():
        file.writer().execute("begin immediate")
        file.writer().execute("create table if not exists t (x)")
        file.writer().execute("insert into t values (1)")
        file.writer().execute("commit")
        file.writer().execute("pragma wal_checkpoint")
    with file.reading() as connection: connection.execute("select * from t").fetchall()
    file.check_identity()
second = SqliteFile(SqliteUri(path=path))
for file in (first, second):
    work(file)
    thread = threading.Thread(target=work, args=(file,)); thread.start(); thread.join()
    file.reader(); file.close_thread(); work(file)
second.close(); first.check_identity(); first.close()
print(made, set(seen))
"""


def test_nothing_but_sqlite_opens_the_database_its_log_or_its_index(path: Path) -> None:
    made, seen = run_script(AUDIT, path).stdout.strip().split("] ")
    assert made == f"['{path}', '{path}-turn-a', '{path}-turn-b'"
    assert "-turn-a" in seen
    assert set(eval(seen)) <= {f"{path}-turn-a", f"{path}-turn-b"}


def run_script(script: str, *args: object, timeout: float | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(holdfast.__file__).parents[1])}
    command = [sys.executable, "-c", script, *map(str, args)]
    return subprocess.run(command, env=environment, text=True, capture_output=True, check=True, timeout=timeout)


OTHER_LIBRARY = """
import sys
sys.modules["apsw"] = sys
from pathlib import Path
from holdfast._store.sqlitefile import SqliteFile
from holdfast._store.uri import SqliteUri
for _ in range(3): SqliteFile(SqliteUri(path=Path(sys.argv[1]))).close()
"""


def test_another_sqlite_library_in_the_process_is_warned_of_once(path: Path) -> None:
    assert run_script(OTHER_LIBRARY, path).stderr.count("RuntimeWarning: apsw is loaded") == 1


# Forks. A child reports by its exit code; what it prints is in pytest's captured output.


def fork(work: Callable[[], object]) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException:
            logging.getLogger().exception("in the child")
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        os._exit(0)
    return pid


def exit_code(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_forked_child_and_parent_write_at_once(path: Path) -> None:
    file = prepared(path)
    put(file, 0)

    def write(numbers: range) -> None:
        for number in numbers:
            put(file, number)

    child = fork(lambda: write(range(1, 101)))
    write(range(101, 201))
    assert exit_code(child) == 0
    assert values(file) == list(range(201))
    assert pragma(file.reader(), "integrity_check") == "ok"
    file.close()


def test_child_keeps_its_commits_when_the_parent_closes_the_file(path: Path) -> None:
    file = prepared(path)
    put(file, 1)
    readable, writable = os.pipe()
    said, say = os.pipe()

    def work() -> None:
        put(file, 2)
        os.write(say, b"x")
        os.read(readable, 1)
        put(file, 3)

    child = fork(work)
    os.read(said, 1)
    file.close()
    os.write(writable, b"x")
    assert exit_code(child) == 0
    reopened = open_file(path)
    assert values(reopened) == [1, 2, 3]
    reopened.close()
    for descriptor in (readable, writable, said, say):
        os.close(descriptor)


def test_connection_objects_survive_a_fork_in_the_parent(path: Path) -> None:
    file = prepared(path)
    writer, reader = file.writer(), file.reader()
    reader.row_factory = sqlite3.Row
    assert exit_code(fork(lambda: None)) == 0
    assert (file.writer(), file.reader()) == (writer, reader)
    put(file, 1)
    assert reader.execute("select x from t").fetchone()["x"] == 1
    assert pragma(reader, "query_only") == 1
    assert pragma(writer, "synchronous") == 2
    assert not file.turnstile.held
    file.close()


def test_forks_wait_for_threads_that_read_and_write(path: Path) -> None:
    file, second = prepared(path), open_file(path)
    stop = threading.Event()
    errors: list[BaseException] = []

    def until_stopped(work: Callable[[], object]) -> None:
        try:
            while not stop.is_set():
                work()
        except BaseException as error:
            errors.append(error)

    def write(to: SqliteFile) -> None:
        with to.turnstile.turn():
            connection = to.writer()
            connection.execute("begin immediate")
            connection.executemany("insert into t values (?)", [(-1,)] * 20)
            connection.execute("commit")

    work = [lambda: write(file), lambda: write(second), lambda: values(file), lambda: values(second)]
    threads = [threading.Thread(target=until_stopped, args=(each,)) for each in work]
    for thread in threads:
        thread.start()
    codes = [exit_code(fork(lambda number=number: put(file, number))) for number in range(20)]  # type: ignore[misc]
    stop.set()
    for thread in threads:
        thread.join()
    assert errors == []
    assert codes == [0] * 20
    assert [value for value in values(file) if value != -1] == list(range(20))
    assert pragma(file.reader(), "integrity_check") == "ok"
    second.close()
    file.close()


@pytest.mark.parametrize("where", ["turn", "no_fork", "transaction"])
def test_child_forked_in_the_middle_is_refused_and_the_parent_goes_on(path: Path, where: str) -> None:
    file = prepared(path)

    def refused() -> None:
        expect(StoreUnsupported, file.writer)
        expect(StoreUnsupported, lambda: open_file(path))

    if where == "transaction":
        file.writer().execute("begin immediate")
    with file.turnstile.turn() if where == "turn" else file.no_fork():
        file.writer().execute("insert into t values (1)")
        child = fork(refused)
        file.writer().execute("insert into t values (2)")
        assert exit_code(child) == 0
    if where == "transaction":
        file.writer().execute("commit")
    assert values(file) == [1, 2]
    file.close()


CLOSING = """
import os, sys, threading, warnings
from pathlib import Path
warnings.simplefilter("ignore", DeprecationWarning)  # of CPython 3.12: it forks while a thread runs, on purpose
from holdfast._store.sqlitefile import SqliteFile
from holdfast._store.uri import SqliteUri
for _ in range(30):
    stays, goes = (SqliteFile(SqliteUri(path=Path(sys.argv[1]))) for _ in range(2))
    stays.writer()
    opening = threading.Thread(target=goes.writer)  # ends, so that whoever opens next closes for it
    opening.start(); opening.join()
    ready = threading.Barrier(2)
    def work():
        ready.wait(); goes.reader(); goes.close()
    thread = threading.Thread(target=work); thread.start()
    ready.wait()
    for _ in range(3):
        child = os.fork()
        if child == 0: os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
    thread.join()
    assert stays.writer().execute("pragma integrity_check").fetchone() == ("ok",)
    stays.close()
print("closed")
"""


def test_forks_while_another_thread_opens_and_closes_do_not_wait_for_each_other_for_ever(path: Path) -> None:
    done = run_script(CLOSING, path, timeout=60)
    assert (done.stdout, done.stderr) == ("closed\n", "")


REPLACED = """
import os, sys
from pathlib import Path
from holdfast._store.sqlitefile import SqliteFile
from holdfast._store.uri import SqliteUri
path = Path(sys.argv[1])
before = SqliteFile(SqliteUri(path=path))
before.writer(); before.close()
path.rename(path.with_name("kept"))
after = SqliteFile(SqliteUri(path=path))
after.writer()
child = os.fork()
if child == 0: os._exit(0)
assert os.waitpid(child, 0)[1] == 0
print("forked")
"""


def test_closed_file_takes_no_part_in_forks(path: Path) -> None:
    """Its turn would be that of the file which is at its path since: taken twice by one thread, it never comes."""
    assert run_script(REPLACED, path, timeout=30).stdout == "forked\n"


def test_child_that_exits_normally_does_not_touch_what_it_inherited(path: Path) -> None:
    script = """
import os, sys
from pathlib import Path
from holdfast._store.sqlitefile import SqliteFile
from holdfast._store.uri import SqliteUri
file = SqliteFile(SqliteUri(path=Path(sys.argv[1])))
file.writer().execute("create table t (x)")
with file.turnstile.turn():
    file.writer().execute("begin immediate"); file.writer().execute("insert into t values (1)")
    child = os.fork()
    if child == 0: sys.exit(0)
    assert os.waitpid(child, 0)[1] == 0
    file.writer().execute("insert into t values (2)"); file.writer().execute("commit")
print(file.reader().execute("select x from t").fetchall(), file.reader().execute("pragma integrity_check").fetchone())
"""
    assert run_script(script, path).stdout == "[(1,), (2,)] ('ok',)\n"


# Errors.


def test_locked_is_busy(path: Path) -> None:
    file = SqliteFile(SqliteUri(path=path, busy_timeout=0.001))
    file.writer().execute("begin immediate")
    other = in_thread(lambda: [file.writer()])[0]
    with pytest.raises(sqlite3.OperationalError) as caught:
        other.execute("begin immediate")
    error = translate(caught.value, path)
    assert isinstance(error, StoreBusy)
    assert error.retryable
    file.writer().execute("rollback")
    file.close()


def test_full_is_full_and_work_goes_on_with_the_same_connection(path: Path) -> None:
    file = prepared(path)
    writer = file.writer()
    pages = pragma(writer, "page_count")
    writer.execute(f"pragma max_page_count = {pages}")
    with pytest.raises(sqlite3.OperationalError) as caught:
        writer.execute("insert into t values (zeroblob(100000))")
    assert isinstance(translate(caught.value, path), StoreFull)
    writer.execute("pragma max_page_count = 1000000")
    writer.execute("insert into t values (zeroblob(100000))")
    file.close()


@pytest.mark.parametrize(
    ("code", "kind", "retryable"),
    [
        (sqlite3.SQLITE_BUSY_SNAPSHOT, StoreBusy, True),
        (sqlite3.SQLITE_LOCKED, StoreBusy, True),
        (sqlite3.SQLITE_CORRUPT_INDEX, StoreCorrupt, False),
        (sqlite3.SQLITE_NOTADB, StoreCorrupt, False),
        (sqlite3.SQLITE_CANTOPEN_ISDIR, StoreUnavailable, True),
        (sqlite3.SQLITE_READONLY, StoreUnavailable, True),
        (1032, StoreReplaced, False),
        (sqlite3.SQLITE_IOERR_FSYNC, StoreError, False),
        (sqlite3.SQLITE_IOERR_SHMSIZE, StoreFull, True),
        (sqlite3.SQLITE_IOERR_SHMOPEN, StoreUnavailable, True),
        (sqlite3.SQLITE_IOERR_WRITE, StoreError, False),
        (sqlite3.SQLITE_ERROR, StoreError, False),
    ],
)
def test_each_kind_of_error_has_a_meaning_and_a_hint(code: int, kind: type[StoreError], retryable: bool) -> None:
    error = sqlite3.OperationalError("words of SQLite")
    error.sqlite_errorcode, error.sqlite_errorname = code, "SQLITE_NAME"
    meaning = translate(error, Path("/x/a.db"))
    assert (type(meaning), meaning.retryable) == (kind, retryable)
    assert meaning.message == "/x/a.db: words of SQLite (SQLITE_NAME)"
    assert meaning.hint


def test_error_without_a_code_is_unexpected() -> None:
    assert "ProgrammingError" in translate(sqlite3.ProgrammingError("closed"), None).message


@pytest.mark.parametrize(
    ("version", "bad"),
    [
        ((3, 6, 23), False),
        ((3, 7, 0), True),
        ((3, 40, 1), True),
        ((3, 44, 5), True),
        ((3, 44, 6), False),
        ((3, 45, 0), True),
        ((3, 50, 6), True),
        ((3, 50, 7), False),
        ((3, 51, 2), True),
        ((3, 51, 3), False),
        ((3, 52, 0), False),
    ],
)
def test_libraries_with_the_wal_reset_bug_are_known(version: tuple[int, ...], bad: bool) -> None:
    assert wal_reset_bug(version) is bad

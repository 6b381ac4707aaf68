"""Faults of the disk under a real app: full, failing to sync, read-only."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest
from tests.crash.faults.kit import Faults, assert_kept, subject
from tests.crash.power.trials import recover

from holdfast._store.sqlitefile import PAGE_BYTES

pytestmark = pytest.mark.crash
SOME = 20
DISK_BYTES = 24_000_000
"""More than the log ever needs, 17 MB."""


def test_a_full_disk_delays_everything_and_loses_nothing(faults: Faults, folder: Path) -> None:
    with subject(folder / "a.db", faults=faults) as running:
        running.until_results(SOME)
        faults.switches.full.strike()
        running.until_logged("writing is delayed, will be tried again", times=2)
        assert (
            "database or disk is full (SQLITE_FULL) (hint: make room on the disk; work goes on by itself)"
            in running.log
        )
        before = running.told.facts
        running.until_logged("writing is delayed", times=5)
        assert running.told.facts == before, "nothing is acknowledged while nothing can be stored"
        faults.switches.full.end()
        running.until_logged("the store accepts writes again")
        running.until_results(SOME)
        assert running.finish() == 0
        assert running.done
        assert_kept(folder / "a.db", running.told)


def own_disk(folder: Path, kept: Path) -> list[str]:
    """Execute what follows with a small file system of its own at the folder, and keep a copy of what was on it."""
    script = f'at=$1 kept=$2; shift 2; mount -t tmpfs -o size={DISK_BYTES} tmpfs "$at" || exit; "$@"; code=$?'
    script += '; cp "$at"/* "$kept"; exit $code'
    return ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh", str(folder), str(kept)]


def may_mount(folder: Path) -> bool:
    if shutil.which("unshare") is None:
        return False
    return not subprocess.call([*own_disk(folder, folder), "touch", f"{folder}/x"], stderr=subprocess.DEVNULL)


def test_a_file_system_that_is_really_full_delays_everything_and_loses_nothing(folder: Path, tmp_path: Path) -> None:
    if not may_mount(tmp_path):
        pytest.skip("no file system may be mounted here (unshare --user --mount)")
    kept = tmp_path / "kept"
    kept.mkdir()
    with subject(folder / "a.db", within=own_disk(folder, kept)) as running:
        running.until_results(SOME)
        ballast = Path(f"/proc/{running.process.pid}/root{folder}/ballast")
        with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(bytes(65_536)):
                continue
        running.until_logged("database or disk is full (SQLITE_FULL) (hint: make room on the disk", times=3)
        ballast.unlink()
        running.until_logged("the store accepts writes again")
        running.until_results(SOME)
        assert running.finish() == 0
        assert_kept(kept / "a.db", running.told)


def test_a_failed_sync_ends_the_process_and_nothing_is_guessed(faults: Faults, folder: Path) -> None:
    with subject(folder / "a.db", faults=faults) as running:
        running.until_results(SOME)
        faults.switches.sync_fails.strike()
        assert running.ended() == 1
        assert "CRITICAL holdfast.engine worker" in running.log
        assert (
            "disk I/O error (SQLITE_IOERR_FSYNC) (hint: the disk failed; stop, look at the system's log" in running.log
        )
        assert not running.done
        assert_kept(folder / "a.db", running.told, ended=False)
        recover(folder / "a.db", running.told)


def test_a_disk_that_becomes_read_only_ends_the_process(faults: Faults, folder: Path) -> None:
    with subject(folder / "a.db", faults=faults) as running:
        running.until_results(SOME)
        faults.switches.read_only.strike()
        assert running.ended() == 1
        assert "CRITICAL holdfast.engine worker" in running.log
        assert "OSError" not in running.log, "what happens while it leaves does not hide the cause"
        assert not running.done
        assert_kept(folder / "a.db", running.told, ended=False)
        recover(folder / "a.db", running.told)


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with ended runs, closed."""
    database = tmp_path_factory.mktemp("used").resolve() / "a.db"
    with subject(database) as running:
        running.until_results(SOME)
        assert running.finish() == 0
    return database


@pytest.mark.parametrize("there", [False, True])
def test_a_read_only_place_is_refused_with_what_to_do(there: bool, used: Path, faults: Faults, folder: Path) -> None:
    if there:
        shutil.copy(used, folder)
    files = {file.name: file.read_bytes() for file in folder.iterdir()}
    faults.switches.read_only.strike()
    with subject(folder / "a.db", faults=faults) as running:
        assert running.ended() == 1
        assert f"holdfast.errors.StoreUnavailable: the folder {folder} may not be written by this user" in running.log
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == files


def test_a_failed_sync_of_a_lease_ends_an_idle_worker(faults: Faults, folder: Path) -> None:
    with subject(folder / "a.db", "--at-once", "0", "--lease", "0.5", faults=faults) as running:
        running.until(lambda: running.lines > 0)
        faults.switches.sync_fails.strike()
        running.until_logged("CRITICAL holdfast.engine worker")
        assert "SQLITE_IOERR_FSYNC" in running.log


def test_a_database_that_is_opened_on_a_full_disk_says_so_and_is_not_harmed(
    used: Path, faults: Faults, folder: Path
) -> None:
    shutil.copy(used, folder)
    faults.switches.full.strike()
    with subject(folder / "a.db", "--name", "new", faults=faults) as running:
        assert running.ended() == 1
        assert "holdfast.errors.StoreFull" in running.log
        assert "hint: make room on the disk" in running.log
    faults.switches.full.end()
    with subject(folder / "a.db", "--name", "new", faults=faults) as running:
        running.until_results(1)
        assert running.finish() == 0
        assert_kept(folder / "a.db", running.told)


def damage(database: Path, name: str) -> tuple[int, bytes]:
    """Rub out a part of the first page of a table or index; nothing has the file open. Returns place and page."""
    with closing(sqlite3.connect(database)) as connection:
        page = connection.execute("select rootpage from sqlite_master where name = ?", (name,)).fetchone()[0]
    content = bytearray(database.read_bytes())
    at = (page - 1) * PAGE_BYTES
    content[at : at + 64] = b"\xa5" * 64
    database.write_bytes(content)
    return at, bytes(content[at : at + PAGE_BYTES])


@pytest.mark.parametrize("name", ["holdfast_runs", "holdfast_history", "holdfast_workers", "holdfast_runs_state"])
def test_a_damaged_page_is_named_and_never_written_over(name: str, used: Path, folder: Path) -> None:
    database = Path(shutil.copy(used, folder))
    at, page = damage(database, name)
    with subject(database, "--name", "new") as running:
        assert running.ended() == 1
        assert "holdfast.errors.StoreCorrupt" in running.log
        assert "SQLITE_CORRUPT) (hint: run `holdfast doctor`, keep a copy of all files, restore a backup" in running.log
        assert not running.told.results
    assert database.read_bytes()[at : at + PAGE_BYTES] == page
    assert not [file.name for file in folder.iterdir() if not file.name.startswith("a.db")]

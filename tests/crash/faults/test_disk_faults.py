"""Faults of the disk under a real app: full, failing to sync, read-only."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.crash.faults.kit import Faults, assert_kept, subject
from tests.crash.power.trials import recover

pytestmark = pytest.mark.crash
SOME = 40


def test_a_full_disk_delays_everything_and_loses_nothing(faults: Faults, folder: Path) -> None:
    with subject(folder / "a.db", faults=faults) as running:
        running.until_results(SOME)
        faults.switches.full = 1
        running.until_logged("writing is delayed, will be tried again", times=2)
        assert "database or disk is full (SQLITE_FULL) (hint: make room on the disk; work goes on by itself)" in running.log
        before = running.told.facts
        running.until_logged("writing is delayed", times=5)
        assert running.told.facts == before, "nothing is acknowledged while nothing can be stored"
        faults.switches.full = 0
        running.until_logged("the store accepts writes again")
        running.until_results(SOME)
        assert running.finish() == 0
        assert running.done
        assert_kept(folder / "a.db", running.told)


def test_a_failed_sync_ends_the_process_and_nothing_is_guessed(faults: Faults, folder: Path) -> None:
    with subject(folder / "a.db", faults=faults) as running:
        running.until_results(SOME)
        faults.switches.sync_fails = 1
        assert running.ended() == 1
        assert "CRITICAL holdfast.engine worker" in running.log
        assert "disk I/O error (SQLITE_IOERR_FSYNC) (hint: the disk failed; stop, look at the system's log" in running.log
        assert not running.done
        assert_kept(folder / "a.db", running.told, ended=False)
        recover(folder / "a.db", running.told)


def test_a_disk_that_becomes_read_only_ends_the_process(faults: Faults, folder: Path) -> None:
    with subject(folder / "a.db", faults=faults) as running:
        running.until_results(SOME)
        faults.switches.read_only = 1
        assert running.ended() == 1
        assert "CRITICAL holdfast.engine worker" in running.log
        assert not running.done
        assert_kept(folder / "a.db", running.told, ended=False)
        recover(folder / "a.db", running.told)


@pytest.mark.parametrize("there", [False, True])
def test_a_read_only_place_is_refused_with_what_to_do(there: bool, faults: Faults, folder: Path) -> None:
    if there:
        with subject(folder / "a.db") as first:
            first.until_results(1)
            assert first.finish() == 0
    files = {file.name: file.read_bytes() for file in folder.iterdir()}
    faults.switches.read_only = 1
    with subject(folder / "a.db", faults=faults) as running:
        assert running.ended() == 1
        assert f"holdfast.errors.StoreUnavailable: the folder {folder} may not be written by this user" in running.log
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == files

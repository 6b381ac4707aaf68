"""The model of the disk and the judge, on their own: trials that could not fail would prove nothing."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from tests.crash.power import judge
from tests.crash.power.disk import PAGE_BYTES, SECTOR_BYTES, Disk
from tests.crash.power.recording import Change, Kind

TRIES = 400


def made(*changes: Change) -> Disk:
    disk = Disk()
    for change in (Change(Kind.CREATED, 1, 0, b""), Change(Kind.FOLDER_SYNCED, 0, 0, b""), *changes):
        disk.play(change)
    return disk


def written(text: bytes, *, at: int = 0) -> Change:
    return Change(Kind.WRITTEN, 1, at, text)


SYNCED = Change(Kind.SYNCED, 1, 0, b"")


def contents(disk: Disk) -> set[bytes]:
    dice = random.Random(1)
    return {disk.survivors(dice)[""] for _ in range(TRIES)}


def test_what_was_synced_is_always_there() -> None:
    assert contents(made(written(b"a" * 5000), SYNCED)) == {b"a" * 5000}


def test_what_was_not_synced_is_there_in_any_pieces() -> None:
    found = contents(made(written(b"a" * PAGE_BYTES), SYNCED, written(b"b" * PAGE_BYTES)))
    assert {b"a" * PAGE_BYTES, b"b" * PAGE_BYTES} <= found
    torn = found - {b"a" * PAGE_BYTES, b"b" * PAGE_BYTES}
    assert torn
    for content in torn:
        sectors = [content[at : at + SECTOR_BYTES] for at in range(0, PAGE_BYTES, SECTOR_BYTES)]
        assert set(sectors) == {b"a" * SECTOR_BYTES, b"b" * SECTOR_BYTES}


def test_a_later_write_may_be_there_without_an_earlier_one() -> None:
    found = contents(made(written(b"a" * 1024), SYNCED, written(b"b" * 512), written(b"c" * 512, at=512)))
    halves = {(content[:512][:1], content[512:][:1]) for content in found}
    assert halves == {(b"a", b"a"), (b"b", b"a"), (b"a", b"c"), (b"b", b"c")}


def test_a_file_may_have_grown_without_its_bytes() -> None:
    found = contents(made(written(b"a" * 512), SYNCED, written(b"b" * 512, at=512)))
    grown = {content[512:] for content in found}
    assert {b"", b"b" * 512, bytes(512)} <= grown
    assert len(grown) > 3, "rubbish, too"


def test_a_cut_of_the_file_may_have_happened_or_not() -> None:
    found = contents(made(written(b"a" * 1024), SYNCED, Change(Kind.CUT, 1, 512, b"")))
    assert found == {b"a" * 1024, b"a" * 512}


def test_a_name_may_be_there_or_not_until_the_folder_is_synced() -> None:
    disk = made(Change(Kind.CREATED, 2, 0, b"-wal"), Change(Kind.UNLINKED, 0, 0, b""))
    dice = random.Random(1)
    assert {tuple(disk.survivors(dice)) for _ in range(TRIES)} == {(), ("",), ("-wal",), ("", "-wal")}
    disk.play(Change(Kind.FOLDER_SYNCED, 0, 0, b""))
    assert {tuple(disk.survivors(dice)) for _ in range(TRIES)} == {("-wal",)}


# The judge.

SCHEMA = """
create table holdfast_runs (number integer primary key, id, state, request, output, generation);
create table holdfast_history (run, seq, kind, state, output);
insert into holdfast_runs values (1, 'a', 'succeeded', null, '"a 0 2 beef"', 0), (2, 'b', 'cancelled', null, null, 1);
insert into holdfast_history values (1, 1, 'step', 'succeeded', '"a 0 1 dead"');
insert into holdfast_history values (1, 2, 'step', 'succeeded', '"a 0 2 beef"');
"""
MARKS = ["S a", "S b", "C b", "K b 0 7 gone", "K a 0 1 dead", "R a a 0 2 beef"]


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ("", ""),
        ("delete from holdfast_runs where id = 'b'", "lost"),
        ("update holdfast_runs set state = 'waiting' where id = 'b'", "lost"),
        ("update holdfast_runs set generation = 0 where id = 'b'", "lost"),
        ("update holdfast_runs set state = 'running' where id = 'a'", "lost"),
        ("delete from holdfast_history where seq = 1", "lost"),
        ("update holdfast_runs set output = '\"a 0 2 f00d\"' where id = 'a'", "changed"),
        ("update holdfast_history set output = '\"a 0 1 f00d\"' where seq = 1", "changed"),
        ("update holdfast_history set output = '\"a 0' where seq = 1", "damaged"),
        ("insert into holdfast_history values (9, 1, 'step', 'succeeded', '\"c 0 1 aaaa\"')", "damaged"),
    ],
)
def test_the_judge_notices_what_is(change: str, wrong: str, tmp_path: Path) -> None:
    told = judge.Told()
    for mark in MARKS:
        told.hear(mark)
    with closing(sqlite3.connect(tmp_path / "power.db", isolation_level=None)) as connection:
        connection.executescript(SCHEMA)
        connection.execute(change)
    verdict = judge.judge(judge.read(tmp_path / "power.db"), told, ever={})
    assert getattr(verdict, wrong) if wrong else verdict.ok


def test_disks_of_one_recording_must_agree_on_an_outcome(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "power.db")) as connection:
        connection.executescript(SCHEMA)
    found = judge.read(tmp_path / "power.db")
    assert judge.judge(found, judge.Told(), ever={("a", 0, 1): "a 0 1 dead"}).ok
    assert judge.judge(found, judge.Told(), ever={("a", 0, 1): "a 0 1 else"}).changed

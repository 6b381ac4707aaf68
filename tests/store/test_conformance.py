from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from holdfast._model.lifecycle import TRANSITIONS
from holdfast._store.sqlite import SqliteStore
from holdfast._store.uri import SqliteUri
from holdfast._world import SystemWorld
from holdfast.testing.store_conformance import (
    CHECKS,
    MOVES,
    SHARED_CHECKS,
    Check,
    batches,
    going_back,
    importing,
    life,
    name_of,
    pruning,
    reading,
    run_check,
    searching,
    workers,
)


@pytest.mark.parametrize("check", [*CHECKS, *SHARED_CHECKS], ids=name_of)
def test_a_file_passes(check: Check, tmp_path: Path) -> None:
    uri = SqliteUri(path=tmp_path / "runs.db")
    asyncio.run(run_check(check, lambda: SqliteStore(uri, world=SystemWorld())))


@pytest.mark.parametrize("check", CHECKS, ids=name_of)
def test_a_database_in_memory_passes(check: Check) -> None:
    asyncio.run(run_check(check, lambda: SqliteStore(SqliteUri(path=None), world=SystemWorld())))


def test_every_check_of_the_suite_is_listed() -> None:
    defined = {
        name
        for module in (batches, going_back, importing, life, pruning, reading, searching, workers)
        for name, value in vars(module).items()
        if asyncio.iscoroutinefunction(value) and not name.startswith("_")
    }
    assert defined == {name_of(check) for check in (*CHECKS, *SHARED_CHECKS)}


def test_every_transition_is_tried() -> None:
    assert MOVES.keys() == TRANSITIONS.keys()

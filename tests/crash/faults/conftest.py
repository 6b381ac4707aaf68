"""The library of faults, compiled once."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.crash.faults.kit import SOURCE, Faults
from tests.crash.power import recording


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if recording.why_not():
        pytest.skip(recording.why_not())
    return recording.build(SOURCE, tmp_path_factory.mktemp("faults"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path.resolve() / "place"
    place.mkdir()
    return place


@pytest.fixture
def faults(library: Path, folder: Path) -> Faults:
    return Faults(library, folder)

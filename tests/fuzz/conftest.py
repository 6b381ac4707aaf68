"""One small shop with runs in every state, made once: tests work on copies of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.fuzz.commandline import make_shop
from tests.fuzz.things import LONG


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Every value in every place is for the long form; the short one draws some."""
    if LONG:
        return
    left_out = [item for item in items if item.get_closest_marker("long")]
    items[:] = [item for item in items if not item.get_closest_marker("long")]
    config.hook.pytest_deselected(items=left_out)


@pytest.fixture(scope="session")
def shop_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `shop.py` and `orders.db`, which was closed. Not to be written to."""
    return make_shop(tmp_path_factory.mktemp("shop") / "shop")

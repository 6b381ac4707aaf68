"""One small shop with runs in every state, made once: tests work on copies of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.fuzz.commandline import make_shop


@pytest.fixture(scope="session")
def shop_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `shop.py` and `orders.db`, which was closed. Not to be written to."""
    return make_shop(tmp_path_factory.mktemp("shop") / "shop")

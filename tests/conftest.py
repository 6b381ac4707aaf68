"""For all tests: the figures that some of them report."""

from __future__ import annotations

import pytest
from tests.crash.figures import Collector, figures, progress

__all__ = ["figures", "progress"]


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Collector())

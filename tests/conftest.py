"""For all tests: the figures that some of them report, and signals as a terminal has them."""

from __future__ import annotations

import signal

import pytest
from tests.crash.figures import Collector, figures, progress

__all__ = ["figures", "progress"]


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Collector())
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as for what a shell runs in the background
        signal.signal(signal.SIGINT, signal.default_int_handler)

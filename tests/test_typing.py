"""The types that users see: `tests/typing/` is checked by mypy, not run. `make check` does so with pyright, too."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_starts_steps_and_results_have_the_types_that_users_expect(tmp_path: Path) -> None:
    pytest.importorskip("mypy", reason="mypy is installed by `make check`")
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path), "tests/typing"]
    checked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert checked.returncode == 0, checked.stdout


def test_package_says_that_it_is_typed() -> None:
    assert (ROOT / "src" / "holdfast" / "py.typed").exists()

"""Reading source: what cannot replay is found, and nothing else."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Cli = Callable[..., Any]
HERE = Path(__file__).parent


def findings(cli: Cli, module: str) -> list[dict[str, Any]]:
    importlib.invalidate_caches()
    answer = cli("check", f"{module}:app", "--source-only", "-o", "json")
    assert (answer.code, answer.err) == (0, "")
    return list(answer.json["findings"])


def test_every_line_that_cannot_replay_is_found_and_no_other(cli: Cli) -> None:
    shutil.copy(HERE / "bad.txt", "bad.py")
    found: dict[int, list[str]] = {}
    for finding in findings(cli, "bad"):
        found.setdefault(finding["line"], []).append(finding["rule"])
    lines = Path("bad.py").read_text().splitlines()
    wanted = {
        number: line.partition("# expect: ")[2].split(", ")
        for number, line in enumerate(lines, 1)
        if "# expect" in line
    }
    assert found == wanted


def test_good_code_is_left_alone(cli: Cli) -> None:
    shutil.copy(HERE / "good.txt", "good.py")
    assert findings(cli, "good") == []


def test_functions_of_the_same_package_are_read_and_others_are_not(cli: Cli) -> None:
    for path, text in {
        "firm/__init__.py": "",
        "firm/flows.py": "from firm.deep import prices\nimport others\nfrom holdfast import Holdfast, workflow\n"
        "app = Holdfast('sqlite:///x.db')\n@app.workflow\nasync def buy() -> None:\n"
        "    prices.price(); others.price()\n",
        "firm/deep/__init__.py": "",
        "firm/deep/prices.py": "import time\ndef price():\n    return time.time()\n",
        "others.py": "import time\ndef price():\n    return time.time()\n",
    }.items():
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(text)
    (finding,) = findings(cli, "firm.flows")
    assert (finding["file"], finding["line"], finding["column"]) == ("firm/deep/prices.py", 3, 12)
    assert (finding["workflow"], finding["via"]) == ("buy", ["price"])
    assert finding["remedy"] == "holdfast.now()"


def test_a_finding_shows_its_line_with_a_caret_and_the_remedy(cli: Cli) -> None:
    Path("shown.py").write_text(
        "from datetime import datetime\nfrom holdfast import Holdfast\napp = Holdfast('sqlite:///x.db')\n"
        "@app.workflow\nasync def buy() -> None:\n\tü = datetime.now().year\n"
    )
    importlib.invalidate_caches()
    lines = cli("check", "shown:app", "--source-only").out.splitlines()
    assert lines[0] == "shown.py:6:6: clock: the clock shows another time in every replay"
    assert lines[1] == "  6 │ ü = datetime.now().year"
    assert lines[2] == "    │     ^^^^^^^^^^^^"
    assert lines[3] == "    → holdfast.now()   in buy"


def test_strict_counts_warnings(cli: Cli) -> None:
    shutil.copy(HERE / "bad.txt", "strictly.py")
    importlib.invalidate_caches()
    assert cli("check", "strictly:app", "--source-only").code == 0
    assert cli("check", "strictly:app", "--source-only", "--strict").code == 1


@pytest.mark.parametrize("change", ["", "def helper(): pass\n" * 3])
def test_source_that_is_not_to_be_had_is_passed_over(cli: Cli, change: str) -> None:
    Path("moved.py").write_text(
        "import time\nfrom holdfast import Holdfast, workflow\napp = Holdfast('sqlite:///x.db')\n"
        "exec('@app.workflow\\nasync def buy() -> float:\\n    return time.time()\\n')\n" + change
    )
    assert findings(cli, "moved") == []

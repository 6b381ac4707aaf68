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


@pytest.mark.parametrize("name", ["bad", "forms", "fields"])
def test_every_line_that_cannot_replay_is_found_and_no_other(cli: Cli, name: str) -> None:
    shutil.copy(HERE / f"{name}.txt", f"{name}.py")
    found: dict[int, list[str]] = {}
    for finding in findings(cli, name):
        found.setdefault(finding["line"], []).append(finding["rule"])
    lines = Path(f"{name}.py").read_text().splitlines()
    wanted = {
        number: line.partition("# expect: ")[2].split(", ")
        for number, line in enumerate(lines, 1)
        if "# expect" in line
    }
    assert found == wanted


@pytest.mark.parametrize("name", ["good", "traps"])
def test_good_code_is_left_alone(cli: Cli, name: str) -> None:
    shutil.copy(HERE / f"{name}.txt", f"{name}.py")
    assert findings(cli, name) == []


def test_packages_that_reach_out_are_known_by_whatever_name_they_have(cli: Cli) -> None:
    for path, text in {
        "requests/__init__.py": "from requests.api import get\nfrom requests.sessions import Session\n",
        "requests/api.py": "def get(url): ...\n",
        "requests/sessions.py": "class Session:\n    def get(self, url): ...\n",
        "shopping.py": "import requests as rq\nfrom requests import get\nfrom holdfast import Holdfast, step\n"
        "app = Holdfast('sqlite:///x.db')\nsession = rq.Session()\n@step\ndef fetch(url: str) -> None: rq.get(url)\n"
        "@app.workflow\nasync def buy(url: str) -> None:\n    rq.get(url)\n    get(url)\n    session.get(url)\n"
        "    rq.Session().get(url)\n    fetch(url)\n",
    }.items():
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(text)
    assert [(found["rule"], found["line"]) for found in findings(cli, "shopping")] == [
        ("network", line) for line in (10, 11, 12, 13)
    ]


def test_code_that_leads_back_to_itself_is_read_in_no_time(cli: Cli) -> None:
    many = "\n".join(
        f"def f{n}(n): return f{n - 1}(n) | f{(n + 7) % 30}(n) | f{(n + 11) % 30}(n)" for n in range(1, 30)
    )
    Path("circles.py").write_text(
        f"from holdfast import Holdfast\napp = Holdfast('sqlite:///x.db')\ndef f0(n): return f29(n) | f0(n)\n{many}\n"
        "class Node:\n    def __init__(self, o):\n        self.next = o.next.next or self.prev or self.next\n"
        "        self.prev = self.next.prev or self.prev.next\n        self.next = self.prev\n"
        "@app.workflow\nasync def buy(x: Node) -> None:\n    y = x\n    y = y.next; y = y.prev; y = y or z\n"
        "    z = z or y; z = z.next or y; z = z.prev or z\n    for q in y: pass\n    for q in q.next: pass\n"
        "    for q in f3(1) | f5(2) | q: pass\n"
    )
    assert findings(cli, "circles") == []


def test_objects_that_answer_for_others_are_not_asked(cli: Cli) -> None:
    Path("lazily.py").write_text(
        "from holdfast import Holdfast\nimport unittest.mock\napp = Holdfast('sqlite:///x.db')\n"
        "class Proxy:\n    __hash__ = None\n    def __eq__(self, other): raise RuntimeError\n"
        "    def __getattr__(self, name): raise RuntimeError('outside of a request')\n"
        "request, mock, table = Proxy(), unittest.mock.MagicMock(), {}\n"
        "@app.workflow\nasync def buy() -> None:\n    r = request; r = request; t = table; t = table\n"
        "    request.time(); request(); r.x.y; r(); mock(); mock.now(); next(request); request | {1}; sorted(r)\n"
        "    for each in request: pass\n    with request: pass\n    with mock as m: m.x()\n"
    )
    assert findings(cli, "lazily") == []


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

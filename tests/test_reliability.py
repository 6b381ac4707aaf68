"""docs/reliability.md cannot rot: its tests exist, its commands work, its figures are those of a run.

That its code runs, and that its links lead somewhere, is tested with all pages in `test_readme.py`.
"""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest
from tests.crash import figures as crash
from tests.crash.figures import PARTS, SETTINGS, Collector, Refused

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "reliability.md"
TEXT = PAGE.read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
pytest_plugins = ["pytester"]

LONG = {variable: str(short + 1) for variable, short in SETTINGS.values()}


def rows() -> list[str]:
    """The table of promises, without its head."""
    _, _, promises = TEXT.partition("| what happens |")
    return promises.partition("\n\n")[0].splitlines()[2:]


def collected(file: Path) -> set[str]:
    """The tests that pytest finds in a file: its functions of such a name."""
    nodes = ast.parse(file.read_text(encoding="utf-8")).body
    return {node.name for node in nodes if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


def test_every_test_that_is_named_exists() -> None:
    named = re.findall(r"(tests/[\w/]+/(?:test_\w+\.py))::(\w+)", TEXT)
    assert len(named) > 20
    for file, name in named:
        assert (ROOT / file).exists(), file
        assert name in collected(ROOT / file), f"{file}::{name}"


def test_every_row_names_its_test() -> None:
    assert len(rows()) > 20
    for before, row in zip(["", *rows()], rows(), strict=False):
        assert "::test_" in row or ("the same two" in row and ("::test_" in before or "the same two" in before)), row


def test_every_place_that_is_named_exists() -> None:
    for place in re.findall(r"tests/[\w/]+(?:\.py)?", TEXT):
        assert (ROOT / place).exists(), place


def test_every_variable_that_is_named_is_one_of_make_crash() -> None:
    named = {*re.findall(r"\b([A-Z]{3,})=", TEXT), *re.findall(r"`([A-Z]+)`", "".join(rows()))}
    assert {*SETTINGS, "REPORT", "ARGS"} <= named
    for name in named:
        assert re.search(rf"^{name} \?=", MAKEFILE, re.MULTILINE), name


@pytest.mark.parametrize("name", SETTINGS)
def test_make_passes_every_setting_on_to_a_test_that_has_a_shorter_form(name: str) -> None:
    variable, short = SETTINGS[name]
    assert f"{variable}=$({name})" in MAKEFILE
    default = re.search(rf"^{name} \?= (\d+)$", MAKEFILE, re.MULTILINE)
    assert default is not None
    assert int(default[1]) > short
    files = [file.read_text(encoding="utf-8") for file in (ROOT / "tests").rglob("*.py")]
    assert any(f'environ.get("{variable}", "{short}")' in file for file in files)


def test_the_block_of_figures_is_what_the_tool_made_of_a_whole_long_run(tmp_path: Path) -> None:
    report = json.loads(PAGE.with_suffix(".json").read_text(encoding="utf-8"))
    copy = tmp_path / PAGE.name
    copy.write_text(TEXT, encoding="utf-8")
    crash.write(copy, report)
    assert copy.read_text(encoding="utf-8") == TEXT, "written by hand; run `make crash REPORT=docs/reliability.md`"
    settings = dict(word.split("=") for word in report["command"].split()[2:])
    crash.settings_of({SETTINGS[name][0]: value for name, value in settings.items()})
    crash.refuse_unfinished(report["parts"], passed="failed" not in report["tests"])
    for part in report["parts"]:
        file, _, test = part["test"].partition("::")
        assert test in collected(ROOT / file)


# The tool.


def part(name: str, **changed: Any) -> dict[str, Any]:
    known = {
        "part": name,
        "trials": "1",
        "facts": 1,
        "seed": 1,
        "lost": 0,
        "test": "a::b",
        "passed": True,
        "seconds": 1,
    }
    return known | changed


WHOLE = [part(name) for name in PARTS]


def test_a_whole_run_is_taken_and_controls_may_lose() -> None:
    controls = [part(name, lost=5, damaged=3) for name in crash.CONTROLS]
    crash.refuse_unfinished([each for each in WHOLE if each["part"] not in crash.CONTROLS] + controls, passed=True)


@pytest.mark.parametrize(
    ("parts", "passed"),
    [
        (WHOLE, False),
        (WHOLE[1:], True),
        ([*WHOLE[1:], part("storm", passed=False)], True),
        ([*WHOLE[1:], part("storm", lost=1)], True),
        ([*WHOLE[1:], part("storm", damaged=1)], True),
        ([*WHOLE[1:], part("storm", facts=0)], True),
    ],
)
def test_a_run_that_failed_or_is_not_whole_is_refused(parts: list[dict[str, Any]], passed: bool) -> None:
    with pytest.raises(Refused):
        crash.refuse_unfinished(parts, passed=passed)


@pytest.mark.parametrize("variable", LONG)
def test_a_short_form_is_refused(variable: str) -> None:
    crash.settings_of(LONG)
    with pytest.raises(Refused, match="short form"):
        crash.settings_of({name: value for name, value in LONG.items() if name != variable})
    with pytest.raises(Refused, match="short form"):
        crash.settings_of(LONG | {variable: str(int(LONG[variable]) - 1)})


SESSION = """
import pytest
from tests.crash.figures import seed_in

@pytest.mark.parametrize("lost", {lost})
def test_storm(figures, progress, lost):
    said = progress.run(["sh", "-c", "echo 'progress: half' >&2; echo told >&2; echo seed 4711"])
    assert (said.stdout, said.stderr) == ("seed 4711\\n", "told\\n")
    figures("storm", trials="9 kills", facts=1234, lost=lost, seed=seed_in(said.stdout))
    assert not lost
"""


@pytest.fixture
def page(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A page to be written by a session in its folder."""
    pytester.makeini("[pytest]\ntestpaths = .\naddopts = --import-mode=importlib\n")
    page = pytester.makefile(".md", page="<!-- crash -->\n<!-- /crash -->\n")
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.setattr(crash, "PROGRESS_SECONDS", 0.0)
    for name, value in (LONG | {"HOLDFAST_REPORT": str(page)}).items():
        monkeypatch.setenv(name, value)
    return page


@pytest.mark.parametrize(("lost", "said"), [([0], "left out: pruning"), ([0, 1], "not everything passed")])
def test_a_session_shows_its_table_and_leaves_the_page_alone_when_it_is_no_good(
    lost: list[int], said: str, page: Path, pytester: pytest.Pytester
) -> None:
    pytester.makepyfile(test_it=SESSION.format(lost=lost))
    result = pytester.runpytest_inprocess(plugins=[crash, Collector()])
    shown = result.stdout.str()
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert "  half" in shown
    assert re.search(r"^workers killed under load +9 kills +1,234 +0 +– +– +4711 +\d s$", shown, re.MULTILINE)
    assert ("workers killed under load FAILED" in shown) == (1 in lost)
    assert f"page.md was not written: {said}" in shown
    assert page.read_text().split() == ["<!--", "crash", "-->", "<!--", "/crash", "-->"]


@pytest.mark.parametrize("unfit", ["-k storm", "test_it.py", "no page", "short"])
def test_a_session_that_could_not_write_the_page_does_not_begin(
    unfit: str, page: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.makepyfile(test_it="def test_storm(): print('executed')")
    if unfit == "no page":
        page.unlink()
    if unfit == "short":
        monkeypatch.delenv("HOLDFAST_KILLS")
    options = unfit.split() if unfit in {"-k storm", "test_it.py"} else []
    result = pytester.runpytest_inprocess("-s", *options, plugins=[crash, Collector()])
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "page.md would not be written: " in result.stderr.str()
    assert "executed" not in result.stdout.str()

"""The floors of the layout: a module imports only from below. Read from the source; nothing has to be installed.

`make check` asks import-linter the same of `pyproject.toml`; here the floors are written down again, on purpose.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "src" / "holdfast"

FLOORS: list[set[str]] = [
    {"errors"},
    {"_world", "_collector"},
    {"_model"},
    {"_flow", "_store"},
    {"_runtime"},
    {"_options", "_rows", "_conflicts", "_looking"},
    {"_search", "_stats"},
    {"_client", "_run"},
    {"_app", "_sync"},
    {"__init__"},
    {"cli", "testing", "dashboard", "integrations"},
    {"__main__"},
]
APART = [{"_flow", "_store"}, {"cli", "testing"}, {"dashboard", "cli"}, {"dashboard", "testing"}]
TERMINAL = {"click", "rich"}


def modules() -> list[tuple[str, Path]]:
    """Every module with the part of the package that it belongs to."""
    paths = sorted(PACKAGE.rglob("*.py"))
    return [(path.relative_to(PACKAGE).parts[0].removesuffix(".py"), path) for path in paths]


def imports_of(path: Path) -> Iterator[str]:
    """Everything a module imports, wherever in it, as dotted names."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def part_of(name: str) -> str | None:
    """The part of the package that an import is from, or none."""
    first, *rest = name.split(".")
    if first != "holdfast":
        return None
    known = set().union(*FLOORS)
    return rest[0] if rest and rest[0] in known else "__init__"


def floor_of(part: str) -> int:
    (floor,) = [number for number, parts in enumerate(FLOORS) if part in parts]
    return floor


def test_every_module_has_a_floor() -> None:
    assert {part for part, _ in modules()} <= set().union(*FLOORS)


@pytest.mark.parametrize(("part", "path"), modules(), ids=lambda value: None if isinstance(value, str) else value.stem)
def test_module_imports_only_from_its_floor_and_below(part: str, path: Path) -> None:
    upward = [name for name in imports_of(path) if (other := part_of(name)) and floor_of(other) > floor_of(part)]
    assert upward == []


def test_determinism_and_durability_never_meet_below_the_executor() -> None:
    for apart in APART:
        for part, path in modules():
            if part in apart:
                others = {part_of(name) for name in imports_of(path)} & (apart - {part})
                assert not others, f"{path.relative_to(PACKAGE)} imports {others}"


def test_only_the_executor_and_its_live_run_know_both_history_and_journal() -> None:
    both = [
        path.stem
        for part, path in modules()
        if part == "_runtime"
        and any(name.startswith("holdfast._flow.activation") for name in imports_of(path))
        and any(name.startswith("holdfast._store.journal") for name in imports_of(path))
    ]
    assert set(both) <= {"executor", "liverun"}


def test_only_the_command_line_imports_terminal_libraries() -> None:
    users = {part for part, path in modules() for name in imports_of(path) if name.split(".")[0] in TERMINAL}
    assert users == {"cli"}


def test_workflow_code_has_neither_sockets_nor_threads_nor_a_database() -> None:
    unwanted = {"socket", "threading", "sqlite3", "subprocess", "concurrent", "multiprocessing", "selectors"}
    for part, path in modules():
        if part == "_flow":
            assert not {name.split(".")[0] for name in imports_of(path)} & unwanted, path.name


def test_no_file_is_longer_than_the_manner_allows() -> None:
    lengths = {str(path.relative_to(PACKAGE)): len(path.read_text("utf-8").splitlines()) for _, path in modules()}
    assert {name: lines for name, lines in lengths.items() if lines > 500} == {}

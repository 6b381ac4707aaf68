"""The package as it is built and the commands around it: what is in the wheel, what the Makefile and CI promise."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import metadata, version
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "holdfast"
MAKE_TARGETS = {"help", "demo", "test", "fast", "test-all", "crash", "check", "format", "bench", "clean"}


@pytest.fixture(scope="module")
def project() -> dict[str, object]:
    content = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return dict(content["project"])


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    directory = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(directory)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (built,) = directory.glob("*.whl")
    return zipfile.ZipFile(built)


def test_installed_version_is_the_one_of_pyproject(project: dict[str, object]) -> None:
    assert version("holdfast") == project["version"]


def test_changelog_begins_with_the_version_of_pyproject(project: dict[str, object]) -> None:
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert newest is not None
    assert newest[1] == project["version"]


def test_licence_is_mit_and_ships_with_the_package(wheel: zipfile.ZipFile) -> None:
    assert metadata("holdfast")["License-Expression"] == "MIT"
    assert any(name.endswith("licenses/LICENSE") for name in wheel.namelist())


def test_wheel_holds_every_file_of_the_package(wheel: zipfile.ZipFile) -> None:
    built = {name for name in wheel.namelist() if name.startswith("holdfast/")}
    source = {
        path.relative_to(PACKAGE.parent).as_posix()
        for path in PACKAGE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert source - built == set()
    assert "holdfast/py.typed" in built


def test_wheel_holds_migrations_and_order_file(wheel: zipfile.ZipFile) -> None:
    names = wheel.namelist()
    assert [name for name in names if re.fullmatch(r"holdfast/_store/migrations/sqlite/0001_\w+\.sql", name)]
    assert [name for name in names if name.endswith(".csv")]


def test_wheel_installs_one_command_and_one_pytest_plugin_beside_the_package(wheel: zipfile.ZipFile) -> None:
    names = wheel.namelist()
    (entry_points,) = [name for name in names if name.endswith("entry_points.txt")]
    told = wheel.read(entry_points).decode()
    assert "[console_scripts]\nholdfast = holdfast.cli:main" in told
    assert "[pytest11]\nholdfast = pytest_holdfast" in told
    assert {name.split("/")[0].split("-")[0] for name in names} == {"holdfast", "pytest_holdfast.py"}


def test_pytest_is_needed_by_its_plugin_alone() -> None:
    code = "import sys, holdfast.testing; print(*sys.modules)"
    child = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert {"pytest", "_pytest", "pytest_holdfast"} & set(child.stdout.split()) == set()


def test_import_brings_neither_terminal_libraries_nor_extras() -> None:
    code = "import sys, holdfast; print(*sys.modules)"
    child = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    unwanted = {"click", "rich", "pydantic", "asyncpg", "starlette", "jinja2", "uvicorn", "opentelemetry", "obstore"}
    assert unwanted & set(child.stdout.split()) == set()


def test_core_dependencies_are_those_of_the_design(project: dict[str, object]) -> None:
    dependencies = project["dependencies"]
    assert isinstance(dependencies, list)
    assert {re.split(r"[><=]", name)[0] for name in dependencies} == {"msgspec", "greenlet", "click", "rich"}


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
@pytest.mark.parametrize("arguments", [[], ["help"]], ids=["make", "make help"])
def test_make_lists_its_targets(arguments: list[str]) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    child = subprocess.run(["make", *arguments], cwd=ROOT, env=environment, check=True, capture_output=True, text=True)
    assert set(re.findall(r"^  make (\S+) +\S", child.stdout, re.MULTILINE)) == MAKE_TARGETS


def test_ci_script_is_executable_and_runs_check_and_test() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    commands = re.findall(r"^make (\w+)", script.read_text(encoding="utf-8"), re.MULTILINE)
    assert commands == ["check", "test"]

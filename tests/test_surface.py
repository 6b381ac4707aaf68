"""The public surface: its names, their documentation, the errors, and what importing it does."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import holdfast
import holdfast.errors
import holdfast.testing

# Names that a client has and a facade cannot: none of them is a call that waits for an answer.
NOT_IN_THE_FACADE: set[str] = set()


def errors() -> list[type[holdfast.HoldfastError]]:
    found = [value for name, value in vars(holdfast.errors).items() if inspect.isclass(value) and name[0] != "_"]
    return [value for value in found if issubclass(value, holdfast.HoldfastError)]


def public_members(kind: type) -> dict[str, Any]:
    return {name: value for name, value in inspect.getmembers(kind) if not name.startswith("_")}


def documented_things() -> Iterator[tuple[str, Any]]:
    """Every public name, and every method and property of the public classes that we have written."""
    for module in (holdfast, holdfast.testing):
        for name in module.__all__:
            value = getattr(module, name)
            yield name, value
            if inspect.isclass(value):
                for member, found in vars(value).items():
                    if not member.startswith("_") and (inspect.isfunction(found) or isinstance(found, property)):
                        yield f"{name}.{member}", found


@pytest.mark.parametrize("module", [holdfast, holdfast.testing], ids=lambda module: module.__name__)
def test_all_is_sorted_without_repeats_and_every_name_exists(module: Any) -> None:
    assert module.__all__ == sorted(set(module.__all__))
    assert [name for name in module.__all__ if not hasattr(module, name)] == []


def test_all_holds_every_public_name_that_the_package_defines() -> None:
    defined = {
        name for name, value in vars(holdfast).items() if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert defined == set(holdfast.__all__)


@pytest.mark.parametrize(("name", "value"), [pytest.param(*thing, id=thing[0]) for thing in documented_things()])
def test_every_public_name_has_a_docstring_of_its_own(name: str, value: Any) -> None:
    text = vars(value).get("__doc__") if inspect.isclass(value) else value.__doc__
    assert text, f"{name} has no docstring"
    assert text.strip()[0].isupper() or text.strip()[0] in "`*", f"{name}: {text[:40]!r}"
    assert not text.startswith(f"{name}("), f"{name} has the docstring that dataclasses generate"


def test_every_error_is_public_with_a_code_of_its_own() -> None:
    codes = [error.code for error in errors()]
    assert {error.__name__ for error in errors()} <= set(holdfast.__all__)
    assert len(set(codes)) == len(codes)
    assert all(code == code.lower() and " " not in code for code in codes)
    assert all("code" in vars(error) for error in errors())


def test_every_error_tells_who_must_act() -> None:
    who = holdfast.UsageError, holdfast.WorkflowError, holdfast.StoreError, holdfast.InternalError, holdfast.WaitTimeout
    lost = [error for error in errors() if error is not holdfast.HoldfastError and not issubclass(error, who)]
    assert lost == []


def test_error_tree_at_the_head_of_the_module_is_the_tree_of_classes() -> None:
    drawing = holdfast.errors.__doc__ or ""
    for error in errors():
        assert f" {error.__name__} " in drawing.replace("\n", " "), error.__name__


@pytest.mark.parametrize(
    ("facade", "original"),
    [(holdfast.SyncClient, holdfast.Client), (holdfast.SyncRun, holdfast.Run)],
    ids=["client", "run"],
)
def test_facade_has_the_methods_of_the_client_and_their_parameters(facade: type, original: type) -> None:
    theirs, ours = public_members(original), public_members(facade)
    assert set(ours) == set(theirs) - NOT_IN_THE_FACADE
    for name, method in ours.items():
        asked = {p for p, q in inspect.signature(method).parameters.items() if q.kind is not q.VAR_KEYWORD}
        offered = {p for p, q in inspect.signature(theirs[name]).parameters.items() if q.kind is not q.VAR_KEYWORD}
        assert asked <= offered, f"{facade.__name__}.{name}"
        assert not inspect.iscoroutinefunction(method)


def test_app_is_a_client() -> None:
    assert issubclass(holdfast.Holdfast, holdfast.Client)


IMPORT = """
import os, sys, threading, signal
before = {"cwd": sorted(os.listdir()), "signals": [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]}
import asyncio, logging
policy = asyncio.get_event_loop_policy()
import holdfast
assert sorted(os.listdir()) == before["cwd"], "a file was made"
assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == before["signals"], "a signal handler was set"
assert threading.active_count() == 1, threading.enumerate()
assert asyncio.get_event_loop_policy() is policy
assert not logging.getLogger().handlers
assert not logging.getLogger("holdfast").handlers
app = holdfast.Holdfast("sqlite:///shop.db")
assert sorted(os.listdir()) == before["cwd"], "making an app has made a file"
print(*sys.modules)
"""


def test_import_has_no_side_effects_and_brings_no_extras(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", "-c", IMPORT]
    child = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert child.returncode == 0, child.stderr
    unwanted = {"click", "rich", "pydantic", "asyncpg", "starlette", "jinja2", "uvicorn", "opentelemetry", "obstore"}
    assert unwanted & set(child.stdout.split()) == set()
    assert not [name for name in child.stdout.split() if name.startswith(("holdfast.cli", "holdfast.testing"))]

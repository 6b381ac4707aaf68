"""Histories are held against the code at hand, in this process and in others, and nothing is executed."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from holdfast import Holdfast, NotOpen, RunNotFound, SyncClient, UsageError, sleep, step, workflow
from holdfast.testing import Clock, assert_replays, export_run, play, run_until_idle

MakeSync = Callable[..., SyncClient]
NAMES = ("anna", "bert", "carl", "dora", "emil", "frieda", "gustav", "hanna")
CALLED: list[str] = []


@step
async def greet(name: str) -> str:
    CALLED.append(name)
    return f"hello {name}"


@workflow
async def greets_in_order(days: int) -> list[str]:
    said = [await greet(name) for name in sorted(set(NAMES))]
    await sleep(days * 86_400)
    return said


@workflow
async def greets_in_any_order() -> None:
    for name in set(NAMES):
        await greet(name)


def changed(function: Any, name: str) -> Any:
    return workflow(name=name)(function)


async def greets_others(days: int) -> list[str]:
    return [await greet(name) for name in ("anna", "zoe")]


async def ends_otherwise(days: int) -> list[str]:
    said = [await greet(name) for name in NAMES]
    await sleep(days * 86_400)
    return said[1:]


def test_a_run_that_has_ended_replays_under_other_seeds_without_a_body(holdfast_sync: MakeSync) -> None:
    run = holdfast_sync(greets_in_order).start(greets_in_order, 0)
    run.result()
    CALLED.clear()
    assert_replays(run, greets_in_order)
    assert_replays(run, sys.modules[__name__], hash_seeds=[7])
    assert CALLED == []


def test_a_run_that_waits_replays_inside_a_running_loop() -> None:
    async def main(clock: Clock) -> None:
        async with clock.app(greets_in_order) as app:
            run = await app.start(greets_in_order, 30)
            await run_until_idle(app)
            assert_replays(run, greets_in_order, hash_seeds=(3,))
            with pytest.raises(AssertionError, match="blocked at entry 2"):
                assert_replays(run, changed(greets_others, "greets_in_order"))

    play(main)


def test_changed_code_fails_with_both_sides_of_the_first_difference(holdfast_sync: MakeSync) -> None:
    run = holdfast_sync(greets_in_order).start(greets_in_order, 0, id="greeting")
    run.result()
    with pytest.raises(AssertionError) as caught:
        assert_replays(run, changed(greets_others, "greets_in_order"))
    lines = str(caught.value).splitlines()
    assert lines[0] == "run 'greeting' of workflow 'greets_in_order' does not replay: blocked at entry 2"
    assert lines[1] == '  recorded:  step greet({"name":"bert"})'
    assert lines[2] == '  requested: step greet({"name":"zoe"})'
    assert lines[3].startswith("hint: ")


def test_an_ended_run_must_end_as_it_did(holdfast_sync: MakeSync) -> None:
    run = holdfast_sync(greets_in_order).start(greets_in_order, 0)
    run.result()
    with pytest.raises(AssertionError, match="ends otherwise"):
        assert_replays(run, changed(ends_otherwise, "greets_in_order"))


def test_order_that_depends_on_the_hash_seed_is_found_in_another_process(holdfast_sync: MakeSync) -> None:
    run = holdfast_sync(greets_in_any_order).start(greets_in_any_order)
    run.result()
    assert_replays(run, greets_in_any_order, hash_seeds=())
    with pytest.raises(
        AssertionError, match=r"under PYTHONHASHSEED=\d, though not in this process, .*at entry \d"
    ) as caught:
        assert_replays(run, greets_in_any_order)
    assert str(caught.value).count("hint: ") == 1
    assert "sort it" in str(caught.value)


def test_an_exported_file_is_the_run(holdfast_sync: MakeSync, tmp_path: Path) -> None:
    file = tmp_path / "run.jsonl"
    run = holdfast_sync(greets_in_order).start(greets_in_order, 0)
    run.result()
    export_run(run, file)
    assert_replays(file, greets_in_order, hash_seeds=())
    assert_replays(str(file), greets_in_order, hash_seeds=(0,))
    file.write_text(file.read_text(encoding="utf-8").replace("carl", "charles"), encoding="utf-8")
    with pytest.raises(AssertionError, match='"charles"'):
        assert_replays(file, greets_in_order)
    with pytest.raises(AssertionError, match="the code given has greets_in_any_order"):
        assert_replays(file, greets_in_any_order)


def test_modules_that_cannot_be_imported_by_name_are_loaded_from_their_files(
    holdfast_sync: MakeSync, tmp_path: Path
) -> None:
    source = "from holdfast import workflow\nprint('noise')\n@workflow\nasync def nothing() -> None: ...\n"
    (tmp_path / "odd name.py").write_text(source, encoding="utf-8")
    module = ModuleType("package.that.is.not")
    module.__file__ = str(tmp_path / "odd name.py")
    sys.modules[module.__name__] = module
    try:
        exec(source, vars(module))
        run = holdfast_sync(module).start(module.nothing)
        run.result()
        assert_replays(run, module, hash_seeds=(1,))
    finally:
        del sys.modules[module.__name__]


def test_a_child_that_cannot_import_the_code_says_why(holdfast_sync: MakeSync) -> None:
    @workflow
    async def local() -> None: ...

    run = holdfast_sync(local).start(local)
    run.result()
    assert_replays(run, local, hash_seeds=())
    with pytest.raises(UsageError, match="top level"):
        assert_replays(run, local)


def test_wrong_arguments_are_refused(holdfast_sync: MakeSync, tmp_path: Path) -> None:
    wrong: Any
    client = holdfast_sync(greets_in_order)
    run = client.get("nobody")
    with pytest.raises(RunNotFound):
        assert_replays(run, greets_in_order)
    for wrong in (None, 1, [], client):
        with pytest.raises(UsageError, match="takes a run"):
            assert_replays(wrong, greets_in_order)
        with pytest.raises(UsageError, match="takes a run"):
            export_run(wrong, tmp_path / "x")
    for wrong in (1, "12", [True], [-1], [2**32], [None]):
        with pytest.raises(UsageError, match="hash_seeds"):
            assert_replays(run, greets_in_order, hash_seeds=wrong)
    with pytest.raises(UsageError, match="needs the code"):
        assert_replays(run)
    with pytest.raises(UsageError, match="export"):
        assert_replays(tmp_path / "none.jsonl", greets_in_order)
    (tmp_path / "bad.jsonl").write_text("{}\n", encoding="utf-8")
    with pytest.raises(UsageError, match="line 1"):
        assert_replays(tmp_path / "bad.jsonl", greets_in_order)


def test_closed_apps_and_memory_are_refused() -> None:
    async def main() -> None:
        app = Holdfast("sqlite://")
        app.include(greets_in_any_order)
        with pytest.raises(NotOpen):
            assert_replays(app.get("x"), greets_in_any_order)
        async with app:
            with pytest.raises(UsageError, match="in memory"):
                assert_replays(app.get("x"), greets_in_any_order)

    asyncio.run(main())

"""`holdfast check`: verdicts of unfinished runs under new code. Old code makes the runs, new code is checked."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.cli.test_worker import ready

from holdfast import WorkerOptions
from holdfast._model.stored import StoredRun
from holdfast._runtime.replay import Standing, Verdict
from holdfast._store.readonly import ReadOnlyDatabase
from holdfast.cli.check.stored import numbers, pages
from holdfast.cli.check.tally import GROUPS_MAX, Tally
from holdfast.cli.loading import load_app

Cli = Callable[..., Any]
Process = Callable[..., "subprocess.Popen[str]"]

OLD = """
import asyncio
from holdfast import Holdfast, patched, sleep, step

app = Holdfast("sqlite:///orders.db")

@step
async def charge(order: str, cents: int) -> str:
    return f"payment-{order}"

@step
async def ship(order: str) -> str:
    await asyncio.Event().wait()

@app.workflow
async def checkout(order: str, cents: int) -> str:
    payment = await charge(order, cents)
    await ship(order)
    return payment

@app.workflow
async def careful(order: str) -> None:
    if patched("ship-first"):
        await ship(order)
    await charge(order, 1)

@app.workflow
def plain(order: str) -> None:
    charge(order, 7)
    ship(order)

@app.workflow
async def reminder() -> None:
    await sleep(86_400)
"""


def begin(*starts: tuple[str, dict[str, Any], str], entries: int) -> None:
    """Start runs under the old code, until all of them together have so many entries; then the process stops."""
    Path("old.py").write_text(OLD)
    app = load_app("old:app")
    app._worker_options = WorkerOptions(stop_timeout=0.05)

    async def live() -> None:
        async with app:
            runs = [await app.start(name, id=run_id, **arguments) for name, arguments, run_id in starts]
            while sum([len(await run.history()) for run in runs]) < entries:
                await asyncio.sleep(0)

    asyncio.run(asyncio.wait_for(live(), 30))


def new(name: str, *changes: tuple[str, str]) -> str:
    """A module with the old code, changed; its name for the command line."""
    text = OLD
    for before, after in changes:
        assert before in text
        text = text.replace(before, after)
    Path(f"{name}.py").write_text(text)
    importlib.invalidate_caches()
    return f"{name}:app"


def one(answer: Any) -> dict[str, Any]:
    """The only verdict."""
    (verdict,) = answer.json["verdicts"]
    return dict(verdict)


def begin_order() -> None:
    begin(("checkout", {"order": "a", "cents": 5}, "order-1"), entries=1)


def listing() -> dict[str, tuple[int, int, int]]:
    """What lies in the folder: sizes, inodes and times of change."""
    return {
        path.name: (path.stat().st_size, path.stat().st_ino, path.stat().st_mtime_ns)
        for path in Path().iterdir()
        if path.name.startswith("orders.db")
    }


def test_same_code_goes_on_and_nothing_is_written(cli: Cli) -> None:
    begin(
        ("checkout", {"order": "a", "cents": 5}, "order-1"),
        ("plain", {"order": "a"}, "plain-1"),
        ("reminder", {}, "reminder-1"),
        ("careful", {"order": "b"}, "careful-1"),
        entries=3,
    )
    before = listing()
    answer = cli("check", new("same"), "-o", "json")
    assert (answer.code, answer.err) == (0, "")
    verdicts = {verdict["workflow"]: verdict for verdict in answer.json["verdicts"]}
    assert {name: verdict["verdict"] for name, verdict in verdicts.items()} == dict.fromkeys(
        ("careful", "checkout", "plain", "reminder"), "goes on"
    )
    assert verdicts["checkout"]["waits_for"] == ['step ship({"order":"a"}) (entry 2)']
    assert verdicts["plain"]["waits_for"] == ['step ship({"order":"a"}) (entry 2)']
    assert verdicts["reminder"]["waits_for"][0].startswith("timer due ")
    assert answer.json["runs"] == 4
    assert listing() == before


def test_other_order_of_steps_is_blocked_with_both_sides(cli: Cli) -> None:
    begin_order()
    target = new("swapped", ("payment = await", "await ship(order)\n    payment = await"))
    answer = cli("check", target, "-o", "json")
    assert answer.code == 1
    verdict = one(answer)
    assert (verdict["verdict"], verdict["entry"], verdict["harmed"]) == ("blocked", 1, True)
    assert verdict["recorded"] == 'step charge({"order":"a","cents":5})'
    assert verdict["requested"] == 'step ship({"order":"a"})'
    told = cli("check", target)
    for line in ("blocked at entry 1", 'recorded:  step charge({"order":"a"', "requested: step ship", "order-1"):
        assert line in told.out


def test_guarded_change_goes_on(cli: Cli) -> None:
    begin_order()
    guarded = "if patched('x'):\n        await ship(order)\n    payment = await"
    assert cli("check", new("guarded", ("payment = await", guarded))).code == 0


def test_removed_patch_is_named(cli: Cli) -> None:
    begin(("careful", {"order": "a"}, "careful-1"), entries=1)
    verdict = one(cli("check", new("unpatched", ('if patched("ship-first"):', "if True:")), "-o", "json"))
    assert (verdict["verdict"], verdict["entry"]) == ("patch removed", 1)
    assert verdict["recorded"] == "patch ship-first()"
    assert "put it back" in verdict["hint"]


def test_unknown_workflow_waits_and_counts_only_when_strict(cli: Cli) -> None:
    begin_order()
    target = new("renamed", ("async def checkout", "async def buy"))
    answer = cli("check", target, "-o", "json")
    assert (answer.code, one(answer)["verdict"]) == (0, "unknown")
    assert cli("check", target, "--strict").code == 1


def test_input_that_no_longer_fits(cli: Cli) -> None:
    begin_order()
    target = new(
        "parameter", ("async def checkout(order: str, cents: int)", "async def checkout(order: int, cents: int)")
    )
    answer = cli("check", target, "-o", "json")
    assert (answer.code, one(answer)["verdict"]) == (1, "input not decodable")
    assert "order" in one(answer)["problem"]


def test_result_that_no_longer_fits(cli: Cli) -> None:
    begin_order()
    verdict = one(
        cli(
            "check",
            new("result", ("cents: int) -> str:\n    return f", "cents: int) -> int:\n    return f")),
            "-o",
            "json",
        )
    )
    assert (verdict["verdict"], verdict["entry"]) == ("result not decodable", 1)
    assert verdict["recorded"].startswith("step charge")


def test_code_that_raises_is_named_with_its_place(cli: Cli) -> None:
    begin_order()
    target = new("raising", ("await ship(order)\n    return payment", "raise KeyError('no such order')"))
    answer = cli("check", target)
    assert answer.code == 1
    assert "raises" in answer.out
    assert "KeyError: 'no such order' at raising.py:" in answer.out


def test_code_that_raises_in_the_middle_of_a_history_says_what_and_where(cli: Cli) -> None:
    orders = [("checkout", {"order": name, "cents": 5}, f"order-{name}") for name in "ab"]
    begin(*orders, entries=2)
    target = new("raising_early", ("    payment = await", "    raise KeyError(order)\n    payment = await"))
    verdict = one(cli("check", target, "-o", "json"))
    assert (verdict["verdict"], verdict["entry"], verdict["runs"]) == ("blocked", 1, 2)
    assert verdict["requested"] == "nothing: the workflow has failed with KeyError: 'a'"
    assert "its code fails at raising_early.py:17 in checkout" in cli("check", target).out.splitlines()[4]


def test_failure_of_a_step_is_no_fault_of_the_code(cli: Cli) -> None:
    begin_order()
    connection = sqlite3.connect("orders.db", isolation_level=None)
    error = json.dumps({"type": "builtins:ValueError", "message": "no", "args": ["no"]})
    connection.execute("update holdfast_history set state = 'failed', output = null, error = ? where seq = 1", (error,))
    connection.close()
    answer = cli("check", new("failing"), "-o", "json")
    assert (answer.code, one(answer)["verdict"], one(answer)["ends"]) == (0, "goes on", "failed")
    told = cli("check", "failing:app").out
    for line in ("! goes on, and fails at once", "ValueError: no", "order-1", "1 would fail at once"):
        assert line in told
    assert cli("check", "failing:app", "--strict").code == 1


def test_runs_that_would_end_are_told_from_those_that_wait(cli: Cli) -> None:
    begin_order()
    cli("start", "checkout", "order=b", "cents=5", "--id", "order-2")
    target = new("ending", ("    await ship(order)\n    return payment", "    return payment"))
    verdicts = cli("check", target, "-o", "json").json["verdicts"]
    assert [(each["ids"], each["ends"], each["problem"]) for each in verdicts] == [
        (["order-1"], "succeeded", None),
        (["order-2"], None, None),
    ]
    assert "✓ goes on, and ends as succeeded\n" in cli("check", target).out


@pytest.mark.parametrize("loop", ["while True: pass", "import time; time.sleep(1000)"])
def test_code_that_does_not_end_is_a_verdict(cli: Cli, loop: str) -> None:
    begin(("checkout", {"order": "a", "cents": 5}, "order-1"), ("plain", {"order": "a"}, "plain-1"), entries=2)
    target = new(f"endless{len(loop)}", ("await ship(order)\n    return", f"{loop}\n    return"))
    answer = cli("check", target, "--seconds", "100ms", "-o", "json")
    assert answer.code == 1
    assert [verdict["verdict"] for verdict in answer.json["verdicts"]] == ["does not end", "goes on"]
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_workflow_of_which_no_run_ends_is_given_up_and_others_are_not(cli: Cli) -> None:
    orders = [("checkout", {"order": "a", "cents": 5}, f"order-{n}") for n in range(9)]
    begin(*orders, ("plain", {"order": "a"}, "plain-1"), entries=10)
    target = new("hopeless", ("await ship(order)\n    return", "while True: pass\n    return"))
    answer = cli("check", target, "--seconds", "20ms", "-o", "json")
    assert answer.code == 1
    found = [(each["verdict"], each["runs"], each["harmed"]) for each in answer.json["verdicts"]]
    assert found == [("not tried", 4, False), ("does not end", 5, True), ("goes on", 1, False)]
    assert "5 runs of this workflow do not end" in cli("check", target, "--seconds", "20ms").out


def test_sync_workflow_that_does_not_end(cli: Cli) -> None:
    begin(("plain", {"order": "a"}, "plain-1"), entries=1)
    answer = cli(
        "check", new("endless", ("7)\n    ship(order)", "7)\n    while True: pass")), "--seconds", "100ms", "-o", "json"
    )
    assert (answer.code, one(answer)["verdict"]) == (1, "does not end")


def test_code_that_swallows_every_attempt_to_end_it_ends_the_command(cli: Cli, process: Process) -> None:
    begin_order()
    loop = "import time\n    while True:\n        try: time.sleep(1000)\n        except BaseException: pass\n    return"
    target = new("swallowing", ("await ship(order)\n    return", loop))
    command = process("check", target, "--seconds", "200ms")
    _, err = command.communicate(timeout=60)
    assert command.returncode == 1
    assert "run order-1 of workflow checkout does not end" in err
    assert "swallowing.py" in err


def test_what_workflows_print_stays_out_of_the_answer(cli: Cli) -> None:
    begin_order()
    target = new("printing", ("payment = await", "print('hello')\n    payment = await"))
    answer = cli("check", target, "-o", "json")
    assert "hello" not in answer.out + answer.err
    assert one(answer)["verdict"] == "goes on"


def test_blocked_run_that_would_go_on_is_said(cli: Cli) -> None:
    begin_order()
    connection = sqlite3.connect("orders.db", isolation_level=None)
    connection.execute("update holdfast_runs set state = 'blocked', reason = 'nondeterminism'")
    connection.close()
    assert "(1 of them blocked now)" in cli("check", new("mended")).out


def test_filters_and_ended_runs(cli: Cli) -> None:
    orders = [("checkout", {"order": "a", "cents": 5}, f"order-{n}") for n in range(5)]
    begin(*orders, ("reminder", {}, "reminder-1"), entries=6)
    cli("cancel", "order-4", "--yes")
    connection = sqlite3.connect("orders.db", isolation_level=None)
    connection.execute("update holdfast_runs set state = 'cancelled' where id = 'order-4'")
    connection.close()
    target = new("filtered")
    assert cli("check", target, "-o", "json").json["runs"] == 5
    assert cli("check", target, "--workflow", "checkout", "-o", "json").json["runs"] == 4
    assert cli("check", target, "--limit", "2", "-o", "json").json["runs"] == 2
    assert cli("check", target, "--workflow", "checkout", "--limit", "1", "-o", "json").json["runs"] == 1


@pytest.mark.parametrize("more", [(), ("--source-only",)])
def test_a_slip_in_the_name_of_a_workflow_is_no_clean_answer(cli: Cli, more: tuple[str, ...]) -> None:
    begin_order()
    answer = cli("check", new("misnamed"), "--workflow", "chekout", *more)
    assert answer.code == 2
    told = "nothing was checked: neither the app nor an unfinished run has a workflow 'chekout'"
    assert answer.err == f"error: {told} (hint: did you mean 'checkout'?)\n"
    assert cli("check", "misnamed:app", "--workflow", "checkout", *more).err == ""


def test_a_database_without_unfinished_runs_is_named_since_it_may_be_the_wrong_one(cli: Cli, shop: Path) -> None:
    assert cli("migrate").code == 0
    assert cli("check", new("at_rest")).out.startswith(f"0 unfinished runs in {shop / 'orders.db'}, none would be")


def test_works_while_a_worker_works(cli: Cli, process: Process, shop: Path) -> None:
    pipe = shop / "begun"
    os.mkfifo(pipe)
    cli("start", "lasting", "--id", "lasting-1")
    worker = process("worker", "shop:app", "-o", "jsonl", "--stop-timeout", "1ms", BEGUN=str(pipe))
    ready(worker)
    assert pipe.read_text() == "begun"
    before = set(os.listdir(shop))
    answer = cli("check", "shop:app", "-o", "json")
    assert (answer.code, one(answer)["waits_for"]) == (0, ["step long_step({}) (entry 2)"])
    assert set(os.listdir(shop)) == before
    worker.terminate()
    assert worker.wait(30) == 0


def test_database_that_is_missing_foreign_or_newer(cli: Cli) -> None:
    target = new("some")
    answer = cli("check", target, "-o", "json")
    assert (answer.code, answer.error["code"]) == (1, "no-database")
    foreign = sqlite3.connect("foreign.db")
    foreign.execute("create table things (a)")
    foreign.commit()
    foreign.close()
    answer = cli("check", target, "--db", "sqlite:///foreign.db", "-o", "json")
    assert (answer.code, answer.error["code"]) == (1, "store-corrupt")
    begin_order()
    connection = sqlite3.connect("orders.db", isolation_level=None)
    connection.execute("insert into holdfast_migrations values (9999, 'future', 'x', 1)")
    connection.close()
    assert cli("check", new("older")).code == 8
    assert cli("check", target, "--db", "sqlite://").code == 2


def test_database_of_an_older_release_is_read_as_it_is(cli: Cli) -> None:
    begin_order()
    connection = sqlite3.connect("orders.db", isolation_level=None)
    connection.execute("delete from holdfast_migrations where number > 1")
    connection.close()
    answer = cli("check", new("later"), "-o", "json")
    assert (answer.code, one(answer)["verdict"]) == (0, "goes on")
    connection = sqlite3.connect("orders.db")
    assert connection.execute("select max(number) from holdfast_migrations").fetchone()[0] == 1
    connection.close()


def test_reader_of_a_closed_database_notices_who_opens_it(shop: Path, cli: Cli) -> None:
    begin_order()
    with ReadOnlyDatabase(shop / "orders.db") as database:
        assert len(numbers(database)) == 1
        assert not (shop / "orders.db-wal").exists()
        cli("start", "reminder", "--id", "later", "--delay", "1h")  # opens, writes, closes
        assert len(numbers(database)) == 2
        writer = sqlite3.connect("orders.db", isolation_level=None)  # and one that stays
        writer.execute("update holdfast_runs set state = 'cancelled' where id = 'later'")
        assert len(numbers(database)) == 1
        writer.close()


def test_log_that_cannot_be_read_in_its_folder_is_said(shop: Path, cli: Cli) -> None:
    begin_order()
    writer = sqlite3.connect("orders.db", isolation_level=None)
    writer.execute("update holdfast_runs set priority = 1")
    Path("copy.db-shm").symlink_to("nowhere/copy.db-shm")  # the index of the log, which cannot be made in such a folder
    shutil.copy("orders.db", "copy.db")
    shutil.copy("orders.db-wal", "copy.db-wal")
    writer.close()
    answer = cli("check", new("sealed"), "--db", "sqlite:///copy.db", "-o", "json")
    assert (answer.code, answer.error["code"]) == (9, "store-unavailable")
    assert "copy.db-wal" in answer.error["message"]
    assert "holdfast backup" in answer.error["hint"]


def test_pages_are_bounded_by_entries_and_miss_nobody(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begin(*[("checkout", {"order": "a", "cents": 5}, f"order-{n}") for n in range(7)], entries=7)
    monkeypatch.setattr("holdfast.cli.check.stored.PAGE_ENTRIES", 2)
    with ReadOnlyDatabase(shop / "orders.db") as database:
        found = list(pages(database, numbers(database), workflow=None))
    assert [len(page) for page in found] == [2, 2, 2, 1]
    assert [run.row.id for page in found for run in page if run] == [f"order-{n}" for n in range(7)]


def test_groups_are_bounded_and_every_run_is_counted(shop: Path) -> None:
    begin_order()
    with ReadOnlyDatabase(shop / "orders.db") as database:
        ((run,),) = pages(database, numbers(database), workflow=None)
    assert isinstance(run, StoredRun)
    tally = Tally()
    for entry in range(3 * GROUPS_MAX):
        tally.add(run, Standing(verdict=Verdict.BLOCKED, entry=entry, recorded="step a()", requested="step b()"))
    assert len(list(tally.groups())) == GROUPS_MAX + 1
    assert tally.faults == 3 * GROUPS_MAX


def test_table_stands_in_the_terminals_width(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "70")
    begin(("checkout", {"order": "a" * 200, "cents": 5}, "order-1"), entries=1)
    answer = cli("check", new("narrow", ("payment = await", "await ship(order)\n    payment = await")))
    assert max(map(len, answer.out.splitlines())) <= 100  # the last line says it all
    assert max(len(line) for line in answer.out.splitlines()[:-1]) <= 70


def test_replay_of_an_exported_run(cli: Cli) -> None:
    begin_order()
    Path("run.jsonl").write_text(cli("export", "order-1").out)
    answer = cli("replay", "run.jsonl", new("again"))
    assert answer.code == 0
    assert 'after 1 entry it waits for step ship({"order":"a"}) (entry 2)' in answer.out
    answer = cli("replay", "run.jsonl", new("changed", ("cents)\n", "cents + 1)\n")), "-o", "json")
    assert answer.code == 1
    assert answer.json[0]["requested"] == 'step charge({"order":"a","cents":6})'


def test_ended_run_must_end_as_it_did(worked_off: Cli) -> None:
    Path("run.jsonl").write_text(worked_off("export", "order-17", "declined-1").out)
    assert worked_off("replay", "run.jsonl", "shop:app").code == 0
    text = Path("shop.py").read_text()
    Path("other.py").write_text(text.replace('{"payment": payment}', '{"payment": "other"}'))
    importlib.invalidate_caches()
    answer = worked_off("replay", "run.jsonl", "other:app", "-o", "jsonl")
    assert answer.code == 1
    assert [line["verdict"] for line in answer.lines] == ["ends otherwise", "goes on"]
    Path("longer.py").write_text(
        text.replace('return {"payment": payment}', 'await pack("z")\n    return {"payment": ""}')
    )
    importlib.invalidate_caches()
    assert "waits" not in worked_off("replay", "run.jsonl", "longer:app").out.splitlines()[0]
    assert "step pack" in worked_off("replay", "run.jsonl", "longer:app").out

"""What `holdfast check` says is what happens: every change is checked, and then made, on runs in every state.

One database is filled by a process that is killed. Each change is checked on a copy of it, and then a worker with the
changed code opens that copy: the verdict of each run must be what becomes of it.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from holdfast import Holdfast, RunInfo, RunState, WorkerOptions
from holdfast._runtime.liverun import LiveRun
from holdfast._runtime.replay import _waits
from holdfast.cli.loading import load_app

Cli = Callable[..., Any]

OLD: Final = """
import asyncio, sys
from dataclasses import dataclass
from enum import Enum
import msgspec
from holdfast import Holdfast, Retry, current, now, patched, sleep, step, uuid4, workflow

app = Holdfast("sqlite:///orders.db")
HANGING = False  # once the new code is tried, no step ends

class Tier(Enum):
    GOLD = "gold"
    IRON = "iron"

@dataclass
class Order:
    id: str
    items: list[str]
    tier: Tier = Tier.IRON
    note: str | None = None

class Bill(msgspec.Struct):
    order: str
    cents: int

async def hang():
    if HANGING:
        await asyncio.Event().wait()

@step
async def reserve(item: str) -> str:
    await hang()
    return f"reserved {item}"

@step
async def invoice(order: Order, cents: int) -> Bill:
    await hang()
    return Bill(order.id, cents)

@step(retry=Retry(attempts=8, first_delay=3600))
async def charge(order: str) -> str:
    await hang()
    raise ConnectionError("the provider is down")

@step
async def decline() -> None:
    await hang()
    raise ValueError("declined")

@step
async def ship(order: str) -> str:
    await asyncio.Event().wait()

def total(order: Order) -> int:
    return len(order.items) * 100

@app.workflow
async def checkout(order: Order) -> str:
    bill = await invoice(order, total(order))
    await sleep(3 * 86_400)
    return bill.order

@app.workflow
async def fan(order: Order) -> list[str]:
    got = await asyncio.gather(*(reserve(item) for item in order.items))
    await ship(order.id)
    return got

@app.workflow
async def racing(name: str) -> None:
    tasks = [asyncio.create_task(reserve(f"{name}{n}")) for n in range(2)]
    async with asyncio.timeout(7 * 86_400):
        await asyncio.wait(tasks)
        await ship(name)

@app.workflow
def plain(name: str, tier: Tier) -> str:
    reserve(name)
    ship(name)
    return tier.value

@app.workflow
async def paying(name: str) -> str:
    return await charge(name)

@app.workflow
async def guarded(name: str) -> None:
    if patched("reserve-first"):
        await reserve(str(uuid4()))
    await ship(name)

@app.workflow
async def forgiving(name: str) -> None:
    try:
        await decline()
    except ValueError:
        await ship(name)
"""

FILL: Final = """
import asyncio, old
from old import Order, Tier, app

def starts():
    for state in ("killed", "paused", "mended"):
        order = Order(state, ["a", "b"], Tier.GOLD)
        for flow, arguments in (
            (old.checkout, (order,)), (old.fan, (order,)), (old.racing, (state,)), (old.plain, (state, Tier.GOLD)),
            (old.paying, (state,)), (old.guarded, (state,)), (old.forgiving, (state,)),
        ):
            yield flow, arguments, f"{flow.name}-{state}"

async def main():
    async with app:
        runs = [await app.start(flow, *arguments, id=run_id) for flow, arguments, run_id in starts()]
        begun = {"checkout": 1, "fan": 2, "racing": 2, "plain": 1, "paying": 1, "guarded": 2, "forgiving": 1}
        for run in runs:
            while len(await run.history()) < begun[run.id.partition("-")[0]]:
                await asyncio.sleep(0.001)
        print("there", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""

CHANGES: Final[dict[str, tuple[tuple[str, str], ...]]] = {
    "nothing": (),
    "step renamed": (("async def reserve", "async def book"), (" reserve(", " book("), ("(reserve(", "(book(")),
    "step renamed, name kept": (
        ("@step\nasync def reserve", "@step(name='reserve')\nasync def book"),
        (" reserve(", " book("),
        ("(reserve(", "(book("),
    ),
    "steps swapped": (("    reserve(name)\n    ship(name)", "    ship(name)\n    reserve(name)"),),
    "step before": (("    bill = await", "    await reserve('z')\n    bill = await"),),
    "step between": (("    await ship(order.id)", "    await reserve('z')\n    await ship(order.id)"),),
    "step after": (("    return bill.order", "    return await ship(bill.order)"),),
    "step removed": (("        await reserve(str(uuid4()))\n", "        pass\n"),),
    "other argument": (("* 100", "* 200"),),
    "gathered in other order": (("for item in order.items", "for item in reversed(order.items)"),),
    "gather taken apart": (
        ("await asyncio.gather(*(reserve(item) for item in order.items))", "[await reserve(i) for i in order.items]"),
    ),
    "gather added": (
        ("bill = await invoice", "bill, _ = await asyncio.gather(invoice"),
        ("total(order))\n", "total(order)), reserve('q'))\n"),
    ),
    "one more task": (("range(2)", "range(3)"),),
    "first task wins": (("asyncio.wait(tasks)", "asyncio.wait(tasks, return_when='FIRST_COMPLETED')"),),
    "sleep longer": (("3 * 86_400", "30 * 86_400"),),
    "sleep removed": (("    await sleep(3 * 86_400)\n", ""),),
    "sleep becomes a step": (("await sleep(3 * 86_400)", "await ship('z')"),),
    "timeout longer": (("7 * 86_400", "70 * 86_400"),),
    "timeout removed": (("async with asyncio.timeout(7 * 86_400):", "if True:"),),
    "default parameter of a step": (("reserve(item: str)", "reserve(item: str, n: int = 1)"),),
    "parameter of a step renamed": (("reserve(item: str) -> str:", "reserve(part: str) -> str:\n    item = part"),),
    "default parameter of a workflow": (("racing(name: str)", "racing(name: str, n: int = 1)"),),
    "required parameter of a workflow": (("racing(name: str)", "racing(name: str, n: int)"),),
    "parameter of a workflow removed": (("name: str, tier: Tier)", "name: str)"), ("tier.value", "''")),
    "type of a parameter": (("guarded(name: str)", "guarded(name: int)"),),
    "type of a step's result": (("reserve(item: str) -> str", "reserve(item: str) -> int"),),
    "type of a field of a result": (("    cents: int", "    cents: str"),),
    "required field": (("    tier: Tier =", "    region: str\n    tier: Tier ="),),
    "default field": (("    note: str | None = None", "    note: str | None = None\n    region: str = 'eu'"),),
    "field removed": (("    note: str | None = None\n", ""),),
    "value of an enum": (('GOLD = "gold"', 'GOLD = "aurum"'),),
    "annotation that cannot be stored": (("ship(order: str) -> str", "ship(order: str) -> type(sys)"),),
    "workflow removed": (("@app.workflow\ndef plain", "def plain"),),
    "workflow renamed": (("async def fan", "async def spread"),),
    "workflow renamed, name kept": (("@app.workflow\nasync def fan", "@app.workflow(name='fan')\nasync def spread"),),
    "retry options": (("attempts=8, first_delay=3600", "attempts=1"),),
    "time limit of a step": (("@step\nasync def ship", "@step(timeout=60)\nasync def ship"),),
    "patch removed": (('if patched("reserve-first"):', "if True:"),),
    "patch and new branch removed": (
        ('    if patched("reserve-first"):\n        await reserve(str(uuid4()))\n', ""),
    ),
    "patch added": (("    bill = await", "    if patched('z'):\n        await reserve('z')\n    bill = await"),),
    "other patch": (("reserve-first", "reserve-before"),),
    "raises at the end": (
        ("        await ship(name)\n\n@app.workflow\ndef", "        raise KeyError('z')\n\n@app.workflow\ndef"),
    ),
    "raises at the start": (("    bill = await", "    undefined\n    bill = await"),),
    "exits": (("    bill = await", "    sys.exit(0)\n    bill = await"),),
    "recurses": (("    return len(order.items)", "    return total(order)"),),
    "failure no longer caught": (("except ValueError", "except KeyError"),),
    "ends at once": (("    bill = await", "    return 'z'\n    bill = await"),),
    "ends where it stands": (("    await ship(order.id)\n", ""),),
    "result that cannot be stored": (("    await ship(order.id)\n    return got", "    return object()"),),
    "def becomes async def": (
        ("@app.workflow\ndef plain", "@app.workflow\nasync def plain"),
        ("    reserve(name)\n    ship(name)\n", "    await reserve(name)\n    await ship(name)\n"),
    ),
    "async def becomes def": (
        ("async def guarded", "def guarded"),
        ("        await reserve(str(uuid4()))\n    await ship(name)", "        reserve(str(uuid4()))\n    ship(name)"),
    ),
    "forgotten await": (("        await reserve(str(uuid4()))", "        reserve(str(uuid4()))"),),
    "random drawn before": (("        await reserve(str(uuid4()))", "        uuid4(); await reserve(str(uuid4()))"),),
    "socket": (("    await ship(order.id)", "    await asyncio.open_connection('127.0.0.1', 1)"),),
    "thread": (("    await ship(order.id)", "    await asyncio.to_thread(len, '')"),),
    "child": (("    await ship(order.id)", "    await guarded(order.id)"),),
    "continued as new": (
        ("    await ship(order.id)", "    from holdfast import continue_as_new\n    continue_as_new(order)"),
    ),
}  # fmt: skip

ENDS_OTHERWISE: Final = {"continued as new"}
"""What the run does next is done at once, and what it is then is not what was checked."""


@dataclass(frozen=True)
class Became:
    """What a worker made of a run."""

    info: RunInfo
    waits: list[str] | None


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a database with runs in every state that is not an end."""
    folder = tmp_path_factory.mktemp("filled")
    (folder / "old.py").write_text(OLD)
    (folder / "fill.py").write_text(FILL)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    child = subprocess.Popen([sys.executable, "fill.py"], cwd=folder, stdout=subprocess.PIPE, env=environment)
    assert child.stdout is not None
    try:
        assert child.stdout.readline() == b"there\n"
    finally:
        child.kill()
        child.communicate()
    connection = sqlite3.connect(folder / "orders.db", isolation_level=None)
    columns = "workflow, input, seed, created_at"
    for state, due_at in (("ready", 0), ("scheduled", 2**60)):
        connection.execute(
            f"insert into holdfast_runs (id, state, due_at, {columns}) "
            f"select workflow || '-{state}', '{state}', ?, {columns} from holdfast_runs where id like '%-killed'",
            (due_at,),
        )
    connection.execute("update holdfast_runs set state = 'paused', worker = null where id like '%-paused'")
    connection.execute("update holdfast_runs set state = 'blocked', reason = 'nondeterminism' where id like '%-mended'")
    connection.close()
    return folder


@pytest.fixture
def copied(filled: Path, shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The current folder, with a copy of that database; every run is named in an answer."""
    for path in filled.glob("orders.db*"):
        shutil.copy(path, shop)
    monkeypatch.setattr("holdfast.cli.check.tally.EXAMPLES_MAX", 5)


@pytest.mark.parametrize("change", CHANGES)
def test_verdict_is_what_happens(copied: None, cli: Cli, change: str) -> None:
    target = changed(f"new_{[*CHANGES].index(change)}", change)
    answer = cli("check", target, "-o", "json")
    verdicts = {run_id: group for group in answer.json["verdicts"] for run_id in group["ids"]}
    assert answer.code == int(any(group["harmed"] for group in verdicts.values()))
    app = load_app(target)
    assert len(verdicts) == answer.json["runs"] == 35
    wake(app)
    became = asyncio.run(asyncio.wait_for(worked(app, verdicts), 30))
    assert became.keys() == verdicts.keys()
    for run_id, group in verdicts.items():
        if change not in ENDS_OTHERWISE or group["verdict"] != "goes on":
            assert_became(group, became[run_id], is_example=run_id == group["ids"][0])


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        ("step renamed", "blocked"),
        ("patch and new branch removed", "patch removed"),
        ("type of a parameter", "input not decodable"),
        ("type of a field of a result", "result not decodable"),
        ("raises at the end", "raises"),
        ("workflow removed", "unknown"),
    ],
)
def test_what_is_compared_is_not_always_that_runs_go_on(copied: None, cli: Cli, change: str, verdict: str) -> None:
    answer = cli("check", changed(f"again_{[*CHANGES].index(change)}", change), "-o", "json")
    assert {group["verdict"] for group in answer.json["verdicts"]} == {"goes on", verdict}


def changed(name: str, change: str) -> str:
    """A module with the old code, changed; its name for the command line."""
    text = OLD
    for before, after in CHANGES[change]:
        assert before in text
        text = text.replace(before, after)
    Path(f"{name}.py").write_text(text)
    importlib.invalidate_caches()
    return f"{name}:app"


def wake(app: Holdfast) -> None:
    """Let a worker take every run, whatever it waits for; and let no step of the new code end."""
    connection = sqlite3.connect("orders.db", isolation_level=None)
    connection.execute("update holdfast_runs set due_at = 0 where state in ('scheduled', 'waiting')")
    connection.execute("update holdfast_runs set state = 'ready', due_at = 0 where state = 'paused'")
    connection.close()
    module = sys.modules[next(iter(app._known.values())).function.__module__]
    module.HANGING = True  # type: ignore[attr-defined]
    app._worker_options = WorkerOptions(stop_timeout=0.0)


async def worked(app: Holdfast, verdicts: dict[str, Any]) -> dict[str, Became]:
    """Work with the new code until every run that it knows has been replayed."""
    async with app:
        worker = app._engine.worker
        assert worker is not None
        while True:
            infos = {info.id: info async for info in app.iterate()}
            live = {run.row.id: run for run in worker.executor.live.values()}
            if all(is_settled(info, live.get(info.id), app) for info in infos.values()):
                return {run_id: Became(info, waits_of(live.get(run_id))) for run_id, info in infos.items()}
            await asyncio.sleep(0)


def is_settled(info: RunInfo, live: LiveRun | None, app: Holdfast) -> bool:
    if info.workflow not in app.workflows or info.state in (RunState.FAILED, RunState.SUCCEEDED):
        return True
    if info.state is RunState.BLOCKED:
        return info.error is not None  # those of the database have none: nobody has tried them yet
    return live is not None and not live.replaying and not live.undurable and not live.gone


def waits_of(run: LiveRun | None) -> list[str] | None:
    return None if run is None or run.gone else [*_waits(run.activation)]


def assert_became(group: dict[str, Any], became: Became, *, is_example: bool) -> None:
    """That a verdict has come true."""
    info, error = became.info, became.info.error
    match group["verdict"]:
        case "goes on" if group["ends"] is not None:
            assert info.state == group["ends"]
        case "goes on":
            assert info.state is RunState.RUNNING
            assert became.waits is not None
            if is_example:
                assert [without_instant(wait) for wait in became.waits] == [
                    without_instant(wait) for wait in group["waits_for"]
                ]
        case "blocked" | "patch removed":
            assert (info.state, info.reason) == (RunState.BLOCKED, "nondeterminism")
            assert error is not None
            if is_example:
                assert f"entry {group['entry']}" in error.message
                assert group["recorded"] in error.message
                assert group["requested"] in error.message
                assert error.hint == group["hint"]
        case "input not decodable" | "result not decodable":
            assert info.state is RunState.BLOCKED
            assert error is not None
            assert error.message.startswith(group["problem"])
        case "raises":
            assert info.state is RunState.FAILED
            assert error is not None
            if is_example:
                assert f"{error.type.rpartition(':')[2]}: {error.message}" == group["problem"]
        case "unknown":
            assert info.state in (RunState.READY, RunState.BLOCKED)
        case verdict:
            raise AssertionError(verdict)


def without_instant(wait: str) -> str:
    return wait if not wait.startswith("timer") else "timer"

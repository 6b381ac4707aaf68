"""Databases of ours that were damaged: bits that flipped, ends that are missing, rows that somebody has edited.

A right answer or an error that says so; never a fault of ours, a hang, or a write over the damage by a command that
only looks. Which bytes flip comes from a seed, which is in the message of a failure. What SQLite itself cannot notice,
a flipped letter in a text, is read as it stands.
"""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import sqlite3
from collections.abc import Generator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from tests.fuzz.commandline import Answer, call, check, fresh, inside
from tests.fuzz.hostile import EXAMPLES

from holdfast import Holdfast, HoldfastError
from holdfast.cli.loading import load_app
from holdfast.errors import StoreCorrupt, StoreError, WaitTimeout

pytestmark = pytest.mark.crash

SEEDS = max(10, EXAMPLES // 4)
LOOKS = (
    ("ls",), ("ls", "-o", "json"), ("ls", "customer:anna"), ("count", "--exact"), ("show", "done"), ("show",
    "failed-1"), ("stats",),
    ("workers", "--all"), ("export", "done", "asleep"), ("doctor",), ("check", "shop:app"), ("wait", "done",
    "--timeout", "0"),
    ("backup", "made.db", "--force"), ("prune", "--dry-run"), ("migrate", "--dry-run"),
)  # fmt: skip
STEERS = (("pause", "asleep"), ("resume", "asleep"), ("cancel", "later"), ("retry", "failed-1"), ("start", "checkout"),
          ("fork", "done", "--at", "1"), ("prune", "--older-than", "0", "--yes"), ("migrate",))  # fmt: skip
PATIENCE_SECONDS = 20.0
SUFFIXES = ("", "-wal")


@pytest.fixture(scope="module")
def shop(shop_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`orders.db` closed cleanly, and `live.db` with a log, as a killed process leaves it."""
    folder = fresh(shop_folder, tmp_path_factory.mktemp("template") / "shop")
    with inside(folder):
        app = Holdfast("sqlite:///orders.db")
        shutil.copy("orders.db", "closed.db")
        with app.sync() as client:
            for n in range(30):
                client.start("checkout", order=f"A-{n}", id=f"late-{n}", delay=86400.0, attributes={"n": n})
            client.get("paused-1").cancel()
            for suffix in SUFFIXES:
                shutil.copy(f"orders.db{suffix}", f"live.db{suffix}")
        shutil.move("closed.db", "orders.db")
    return folder


@pytest.fixture
def here(shop: Path, tmp_path: Path) -> Generator[Path]:
    """An empty folder."""
    with inside(tmp_path):
        yield tmp_path


def lay(shop: Path, kind: str) -> None:
    """A new copy of one of the two databases."""
    for path in Path().iterdir():
        if path.name != "shop.py" and path.is_file():
            path.unlink()
    for suffix in SUFFIXES:
        if (shop / f"{kind}.db{suffix}").exists():
            shutil.copy(shop / f"{kind}.db{suffix}", f"orders.db{suffix}")


def damage(chance: random.Random) -> str:
    """Spoil one of the files, and say how."""
    path = chance.choice([path for path in (Path("orders.db"), Path("orders.db-wal")) if path.exists()])
    data = bytearray(path.read_bytes())
    how = chance.choice(["flip", "flip", "flip", "flips", "zeros", "page", "cut", "swap", "header"])
    at = chance.randrange(len(data))
    match how:
        case "flip" | "header":
            at = chance.randrange(100) if how == "header" else at
            data[at] ^= 1 << chance.randrange(8)
        case "flips":
            for _ in range(chance.randrange(2, 200)):
                data[chance.randrange(len(data))] = chance.randrange(256)
        case "zeros":
            data[at : at + chance.randrange(1, 5000)] = bytes(min(chance.randrange(1, 5000), len(data) - at))
        case "page":
            at = at // 4096 * 4096
            data[at : at + 4096] = chance.randbytes(4096)
        case "cut":
            del data[at:]
        case "swap":
            one, other = (chance.randrange(len(data) // 4096) * 4096 for _ in range(2))
            data[one : one + 4096], data[other : other + 4096] = data[other : other + 4096], data[one : one + 4096]
    path.write_bytes(data)
    return f"{how} at {at} of {path}"


@pytest.mark.parametrize("kind", ["orders", "live"])
def test_damage_gets_a_right_answer_or_an_error_and_no_write(kind: str, shop: Path, here: Path) -> None:
    for seed in range(SEEDS):
        chance = random.Random(f"{kind} {seed}")
        lay(shop, kind)
        how = f"seed {seed}: {damage(chance)}"
        logged = Path("orders.db-wal").exists()
        before = Path("orders.db").read_bytes()
        looks = LOOKS if EXAMPLES else chance.sample(LOOKS, 5)
        for args in looks:
            told(how, args)
        if not logged:  # else whoever opens it folds the log in, as far as it is whole
            assert Path("orders.db").read_bytes() == before, how
        for args in chance.sample(STEERS, 2):
            told(how, args)


def told(how: str, args: tuple[str, ...]) -> Answer:
    try:
        return check(call(*args), output="json" if "json" in args else None)
    except Exception as error:
        raise AssertionError(f"{how}: {args}: {type(error).__name__}: {error}") from error


@pytest.mark.parametrize("kind", ["orders", "live"])
def test_a_worker_on_a_damaged_database_works_or_says_what_is_wrong(kind: str, shop: Path, here: Path) -> None:
    for seed in range(SEEDS // 3):
        chance = random.Random(f"worker on {kind} {seed}")
        lay(shop, kind)
        how = f"seed {seed}: {damage(chance)}"
        with suppress(StoreError):
            asyncio.run(worked(how))


async def worked(how: str) -> None:
    """Open, start a run, and get its result: or be told why not."""
    app = load_app("shop:app")
    fresh = Holdfast("sqlite:///orders.db")
    fresh.include(*app._known.values())
    try:
        async with asyncio.timeout(PATIENCE_SECONDS), fresh:
            with suppress(HoldfastError):
                run = await fresh.start("checkout", "A-1")
                with suppress(WaitTimeout):
                    assert "payment" in await run.result(timeout=PATIENCE_SECONDS / 4), how
    except TimeoutError as error:
        raise AssertionError(f"it hangs: {how}") from error
    except StoreError:
        raise
    except Exception as error:
        raise AssertionError(f"{how}: {type(error).__name__}: {error}") from error


# Rows that somebody has edited.

RUNS = {
    "input is no JSON": "input = '{'",
    "input is no object": "input = '[1]'",
    "input has other names": """input = '{"colour": 1}'""",
    "input of another type": """input = '{"order": 7}'""",
    "input is deep": "input = replace(hex(zeroblob(100000)), '00', '[')",
    "input is not UTF-8": "input = cast(x'22ff22' as text)",
    "attributes are no JSON": "attributes = 'x'",
    "attributes are a list": "attributes = '[]'",
    "error is no object": "error = '7'",
    "workflow is empty": "workflow = ''",
    "an instant beyond the calendar": "created_at = 9223372036854775807",
    "an instant before it": "started_at = -9223372036854775808",
    "priority beyond bounds": "priority = 9223372036854775807",
    "crashes below nothing": "crashes = -5",
    "seed": "seed = -1",
    "a state that is none": "state = 'perhaps'",
}
ENTRIES = {
    "a history of something else": {"name": "'other'"},
    "a history without outcome": {"output": "null"},
    "a history with a gap": {"seq": "9", "after": "7", "ordinal": "5"},
    "an outcome that is no JSON": {"output": "'{'"},
    "an outcome that is not UTF-8": {"output": "cast(x'22ff22' as text)"},
    "an outcome of another type": {"output": "'[7]'"},
    "an error that is none": {"state": "'failed'", "error": "'[]'"},
    "an error of a class that is none": {"state": "'failed'", "error": """'{"type": "os:system", "state": 7}'"""},
    "an instant in the history": {"finished_at": "9223372036854775807"},
    "a kind that is none": {"kind": "'dance'"},
    "an entry's state that is none": {"state": "'perhaps'"},
}
WORKERS = {
    "a worker's workflows": "workflows = '{'",
    "a worker's lease": "lease_until = 9223372036854775807, state = 'live'",
}
ENTRY = {"seq": "1", "after": "0", "ordinal": "1", "kind": "'step'", "name": "'charge'", "state": "'succeeded'",
         "output": "'\"x\"'", "error": "null", "attempts": "1", "finished_at": "1"}  # fmt: skip


def entry(changes: dict[str, str]) -> str:
    """The statement that gives the run a history of one entry."""
    columns = ENTRY | changes
    values = f"select number, {', '.join(columns.values())} from holdfast_runs where id = 'ready-2'"
    return f"insert into holdfast_history (run, {', '.join(columns)}) {values}"


EDITS = {
    **{name: f"update holdfast_runs set {change} where id = 'ready-2'" for name, change in RUNS.items()},
    **{name: entry(changes) for name, changes in ENTRIES.items()},
    **{name: f"update holdfast_workers set {change}" for name, change in WORKERS.items()},
}


@pytest.mark.parametrize("edit", EDITS)
def test_a_row_that_was_edited_stops_at_most_its_own_run(edit: str, shop: Path, here: Path) -> None:
    lay(shop, "orders")
    assert call("start", "checkout", "order=A-2", "--id", "ready-2").code == 0
    assert call("start", "checkout", "order=A-3", "--id", "ready-3").code == 0
    with closing(sqlite3.connect("orders.db", isolation_level=None)) as database:
        database.execute("pragma ignore_check_constraints = on")
        database.execute(EDITS[edit])
    look_around()
    state = asyncio.run(others_go_on())
    if state is not None:
        assert state not in {"ready", "running"} or edit == "workflow is empty", state
    look_around()
    for args in (
        ("cancel", "ready-2"),
        ("retry", "ready-2"),
        ("export", "ready-2"),
        ("prune", "--older-than", "0", "--yes"),
    ):
        told(edit, args)


def look_around() -> None:
    """Every look is answered; where the row cannot be read, by its name, and the others can be looked at."""
    for args in (
        ("show", "ready-2"),
        ("check", "shop:app"),
        ("doctor",),
        ("stats",),
        ("workers", "--all"),
        ("export", "ready-2"),
    ):
        told("", args)
    answer = told("", ("ls", "-o", "json"))
    if answer.code:
        assert json.loads(answer.err)["error"]["code"] == "store-corrupt", answer.told()
        if "ready-2" in answer.err:
            assert told("", ("ls", "--", "-id:ready-2")).code == 0
    assert told("", ("show", "done")).code == 0


async def others_go_on() -> str | None:
    """A worker on the database: `ready-3` succeeds. What became of `ready-2`, if that can be read."""
    app = Holdfast("sqlite:///orders.db")
    app.include(*load_app("shop:app")._known.values())
    async with asyncio.timeout(PATIENCE_SECONDS), app:
        assert "A-3" in await app.get("ready-3").result()
        state: Any = None
        end = asyncio.get_running_loop().time() + 2.0
        while asyncio.get_running_loop().time() < end:
            try:
                state = (await app.get("ready-2").describe()).state
            except StoreCorrupt:
                return None
            if state not in {"ready", "running"}:
                break
            await asyncio.sleep(0.02)
        return str(state)

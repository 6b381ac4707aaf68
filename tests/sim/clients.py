"""The clients of a simulation: what they ask of the processes, and what they make of the answers.

A client calls through a process that is up. When that goes away in the middle, it knows nothing and asks again through
another one; so every call must mean the same when it comes twice.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final, Protocol

from tests.sim import load
from tests.sim.life import Gone, Host, Life
from tests.sim.load import Order
from tests.sim.row import ENDED
from tests.sim.virtual import DAY_SECONDS

from holdfast import Run, Start
from holdfast._model.lifecycle import RunState
from holdfast._model.records import CancelRequested, PauseRequested, Record, ResumeRequested, RetryRequested
from holdfast.errors import (
    HoldfastError,
    RunCancelled,
    RunConflict,
    RunNotFound,
    RunTimeout,
    StoreError,
    UsageError,
    WaitTimeout,
)

TRIES_MAX: Final = 5
FORKED: Final = "'"
"""Ends the ids of forks. Nobody starts them: they may begin in a later generation of the run, with its input."""
MANY: Final = 8
"""Runs that a client starts at once."""


class Served(Host, Protocol):
    """The simulation, as its clients see it."""

    orders: dict[str, Order]

    def pick(self, chance: random.Random) -> Life | None:
        """A process that is up."""
        ...


class Clients:
    """Those of one seed."""

    def __init__(self, simulation: Served) -> None:
        self._simulation = simulation
        self._ledger = simulation.ledger
        self._orders = simulation.orders
        self._ids = list(simulation.orders)
        self._chance = random.Random(f"{simulation.seed} end")

    async def client(self, place: int) -> None:
        """Some calls, by chance."""
        chance = random.Random(f"{self._simulation.seed} client {place}")
        steer = [self._cancel, self._pause, self._resume, self._resume, self._retry, self._retry, self._fork]
        starts = [self._start] * 5 + [self._run] * 2 + [self._start_many, self._restart, self._insist]
        calls = starts + [self._wait] * 3 + steer + [self._prune]
        for _ in range(self._simulation.setting.calls):
            await asyncio.sleep(chance.choice((0.0, 0.0, 0.05, 0.2, 0.6)))
            call = chance.choice(calls)
            run_id = self._steerable(chance) if call in steer else chance.choice(list(self._orders))
            vanishes = chance.random() < 0.06
            if not vanishes:
                await self._attempt(chance, call, run_id)
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(chance.choice((0.0, 0.001, 0.01))):
                    await self._attempt(chance, call, run_id)

    def _steerable(self, chance: random.Random) -> str:
        """Rather a run that is under way: that is where requests meet what workers say."""
        under_way = [row.id for row in self._ledger.rows.values() if row.state == "running"]
        return chance.choice(under_way if under_way and chance.random() < 0.7 else list(self._orders))

    async def resume(self, run_id: str) -> None:
        """Somebody looks after it."""
        await self._attempt(self._chance, self._resume, run_id)

    async def look_at_everything(self) -> None:
        """When all has ended: every result, every listing, and nothing is left half pruned."""
        for run_id in sorted(self._ledger.started):
            await self._attempt(self._chance, self._result, run_id, 30.0)
        for state in ENDED:
            await self._attempt(self._chance, self._listing, state, {"state": state})
        for kind in "ab":
            await self._attempt(self._chance, self._listing, kind, {"attributes": {"kind": kind}})
        await self._attempt(self._chance, self._prune, "run-0", DAY_SECONDS * 1000)

    async def _attempt(
        self, chance: random.Random, call: Callable[..., Awaitable[None]], run_id: str, *args: Any
    ) -> None:
        """A call, and again through another process when the one it went through is gone."""
        for _ in range(TRIES_MAX):
            life = self._simulation.pick(chance)
            if life is None:
                await asyncio.sleep(0.5)
                continue
            name = call.__name__.strip("_")
            self._ledger.say(f"client {name} {run_id} through {life.name}")
            try:
                await call(life, run_id, *args)
            except (WaitTimeout, RunNotFound):
                return
            except (Gone, StoreError) as error:
                self._ledger.say(f"client {name} {run_id} knows nothing: {type(error).__name__}")
                await asyncio.sleep(0.1)
                continue
            except UsageError as error:
                self._ledger.say(f"client {name} {run_id}: {type(error).__name__}")
            return

    # Starts.

    async def _start(self, life: Life, run_id: str, on_conflict: str = "return", seconds: float = 0.0) -> None:
        order = self._orders[run_id.rstrip(FORKED)]
        code, options = order.code(life.release), {**order.options, "id": order.id, "on_conflict": on_conflict}
        run: Run[Any] | None = None
        try:
            run = await life.call("start", life.client.start(code, order.program, [], **options))
        except RunConflict:
            self._ledger.check(on_conflict != "return", f"{run_id} was started again as before, and refused")
            if on_conflict == "restart":
                return
        self._ledger.start_acknowledged(order.id)
        if run is not None and seconds:
            await self._result(life, order.id, seconds, run)

    async def _run(self, life: Life, run_id: str) -> None:
        await self._start(life, run_id, seconds=2.0)

    async def _restart(self, life: Life, run_id: str) -> None:
        self._ledger.reopening(run_id)
        await self._start(life, run_id, "restart")

    async def _insist(self, life: Life, run_id: str) -> None:
        await self._start(life, run_id, "raise")

    async def _start_many(self, life: Life, run_id: str) -> None:
        place = self._ids.index(run_id.rstrip(FORKED))
        some = self._ids[place : place + MANY]
        orders = [self._orders[each] for each in some]
        starts = [Start(order.code(life.release), order.program, [], id=order.id, **order.options) for order in orders]
        await life.call("start_many", life.client.start_many(starts))
        for each in some:
            self._ledger.start_acknowledged(each)

    async def _fork(self, life: Life, run_id: str) -> None:
        """At some entry. Asked again after nobody knows what, the id is taken: then the first has done it."""
        if run_id.endswith(FORKED):
            return
        run, fork = life.client.get(run_id), run_id + FORKED
        places = [entry.seq for entry in await life.call("history", run.history()) if entry.seq > 0]
        place = places[len(places) // 2] if places else 1
        self._orders[fork] = replace(self._orders[run_id], id=fork)
        with suppress(RunConflict):
            await life.call("fork", run.fork(place, id=fork))
        self._ledger.start_acknowledged(fork)

    # Answers.

    async def _wait(self, life: Life, run_id: str) -> None:
        await self._result(life, run_id, 2.0)

    async def _result(self, life: Life, run_id: str, seconds: float, run: Run[Any] | None = None) -> None:
        before = self._ledger.reopenings(run_id)
        try:
            value = await life.call("result", (run or life.client.get(run_id)).result(seconds))
        except RunCancelled:
            end = ("cancelled", "")
        except (load.Boom, OSError, RunTimeout) as error:
            if isinstance(error, HoldfastError) and not isinstance(error, RunTimeout):
                raise
            end = ("failed", type(error).__name__)
        else:
            self._ledger.check(load.fits(self._orders[run_id].program, value), f"{run_id} gave {value}")
            end = ("succeeded", repr(value))
        if self._ledger.reopenings(run_id) == before:
            self._ledger.told(run_id, *end)

    async def _listing(self, life: Life, _name: str, conditions: dict[str, Any]) -> None:
        found = await life.call("list", life.client.list(limit=1000, **conditions))
        asked, orders = conditions.get("attributes", {}), self._orders
        rows = [row for row in self._ledger.read_rows().values() if row.state == conditions.get("state", row.state)]
        expected = {row.id for row in rows if asked.items() <= orders[row.id].options["attributes"].items()}
        self._ledger.check({run.id for run in found} == expected, f"{conditions} finds {found}, not {expected}")

    # Steering.

    async def _cancel(self, life: Life, run_id: str) -> None:
        self._ledger.known_cancels.add(run_id)
        await self._ask(life, run_id, CancelRequested, life.client.get(run_id).cancel())

    async def _pause(self, life: Life, run_id: str) -> None:
        await self._ask(life, run_id, PauseRequested, life.client.get(run_id).pause())

    async def _resume(self, life: Life, run_id: str) -> None:
        self._ledger.reopening(run_id)
        await self._ask(life, run_id, ResumeRequested, life.client.get(run_id).resume())

    async def _retry(self, life: Life, run_id: str) -> None:
        self._ledger.reopening(run_id)
        await self._ask(life, run_id, RetryRequested, life.client.get(run_id).retry())

    async def _ask(self, life: Life, run_id: str, kind: type[Record], work: Awaitable[RunState]) -> None:
        before = self._ledger.asked[kind, run_id]
        await life.call(kind.__name__, work)
        self._ledger.check(self._ledger.asked[kind, run_id] > before, f"{kind.__name__} of {run_id} is lost")

    async def _prune(self, life: Life, run_id: str, seconds: float = 0.0) -> None:
        await life.call("prune", life.client.prune(older_than=seconds, limit=3))

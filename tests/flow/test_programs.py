"""Generated racy programs die at random records and replay to one outcome, in this process and under other hash seeds.

Each program is made from a seed: nested gathers, groups, races, queues, timeouts and primitives over steps with varied
delays (many of them equal, so that outcomes collide). It runs on a real database, dies several times at random batches,
and ends. Its history then has one meaning: every replay must reach the recorded result, the same trace in the same
order. The last part happens in child processes too, with other values of `PYTHONHASHSEED`.

``HOLDFAST_PROGRAMS=2000`` makes the run long; ``HOLDFAST_SEED=17`` repeats one program.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from holdfast import sleep, step, workflow
from holdfast._flow.activation import Activation
from holdfast._model.records import EntryRecorded, RunRow
from holdfast.testing.crash import CrashOptions, Experiment
from holdfast.testing.dying import Moment
from holdfast.testing.life import BATCHED, PARKED, SINGLE, Death

if TYPE_CHECKING:  # a child process that replays has nothing of the tests
    from tests.crash.figures import Add, Progress

PROGRAMS = int(os.environ.get("HOLDFAST_PROGRAMS", "60"))
ONE_SEED = os.environ.get("HOLDFAST_SEED")
REPLAYS = 3
DEPTH_MAX = 3
_ROW = "number, id, workflow, input, seed, generation, crashes, request, created_at, started_at, deadline_at"


Failed = LookupError  # a class that child processes find under the same name


@step
async def work(label: str, ms: int) -> str:
    await asyncio.sleep(ms / 1000)
    return label


@step
def quick(label: str) -> str:
    return label


@step
async def fail(label: str, ms: int) -> str:
    await asyncio.sleep(ms / 1000)
    raise Failed(label)


# The generator: a program is nested lists, so that it can be printed and stored.


def program_of(seed: int) -> list[Any]:
    chance = random.Random(seed)
    return ["sequence", [_node(chance, 0) for _ in range(chance.randint(1, 3))]]


def _node(chance: random.Random, depth: int) -> list[Any]:
    leaves = ["work", "work", "work", "quick", "fail", "nap"]
    inner = ["sequence", "gather", "group", "race", "timeout", "wait_for", "queue"]
    inner += ["as_completed", "done_set", "semaphore", "condition", "shield", "cancel"]
    kind = chance.choice(leaves if depth >= DEPTH_MAX or chance.random() < 0.3 else inner)
    label, ms = f"{chance.randrange(1000)}", chance.choice([0, 1, 1, 5, 5, 20, 100])
    if kind in leaves:
        return [kind, label, ms]
    return [kind, [_node(chance, depth + 1) for _ in range(chance.randint(1, 4))], chance.choice([1, 5, 10, 50])]


class Interpreter:
    """Executes a program in a workflow; the order in which things happen is its trace."""

    def __init__(self) -> None:
        self.trace: list[str] = []

    async def run(self, node: list[Any]) -> None:
        try:
            await getattr(self, f"_{node[0]}")(*node[1:])
        except Failed as error:
            self.trace.append(f"{node[0]} failed: {error}")
        except TimeoutError:
            self.trace.append(f"{node[0]} late")
        except BaseExceptionGroup as group:
            self.trace.append(f"{node[0]} failed: {len(group.exceptions)}")

    async def strictly(self, node: list[Any]) -> None:
        """Like `run`, with failures going on to the parent."""
        try:
            await getattr(self, f"_{node[0]}")(*node[1:])
        except asyncio.CancelledError:
            self.trace.append(f"{node[0]} cancelled")
            raise

    async def _work(self, label: str, ms: int) -> None:
        self.trace.append(await work(label, ms))

    async def _quick(self, label: str, _ms: int) -> None:
        self.trace.append(await quick(label))  # type: ignore[misc]

    async def _fail(self, label: str, ms: int) -> None:
        await fail(label, ms)

    async def _nap(self, _label: str, ms: int) -> None:
        await sleep(ms / 1000)
        self.trace.append("nap")

    async def _sequence(self, nodes: list[Any], _ms: int = 0) -> None:
        for node in nodes:
            await self.run(node)

    async def _gather(self, nodes: list[Any], ms: int) -> None:
        results = await asyncio.gather(*map(self.strictly, nodes), return_exceptions=ms > 5)
        self.trace += [repr(result) for result in results]

    async def _group(self, nodes: list[Any], _ms: int) -> None:
        async with asyncio.TaskGroup() as group:
            for node in nodes:
                group.create_task(self.strictly(node))

    async def _race(self, nodes: list[Any], _ms: int) -> None:
        tasks = [asyncio.create_task(self.strictly(node), name=str(i)) for i, node in enumerate(nodes)]
        done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        self._note(done)
        for task in pending:
            task.cancel()
        self._note((await asyncio.wait(pending))[0] if pending else set())

    async def _timeout(self, nodes: list[Any], ms: int) -> None:
        async with asyncio.timeout(ms / 1000):
            await asyncio.gather(*map(self.strictly, nodes))

    async def _wait_for(self, nodes: list[Any], ms: int) -> None:
        for node in nodes:
            await asyncio.wait_for(self.strictly(node), ms / 1000)

    async def _queue(self, nodes: list[Any], ms: int) -> None:
        queue: asyncio.Queue[tuple[int, list[Any]]] = asyncio.Queue(maxsize=2)

        async def worker(name: int) -> None:
            while True:
                number, node = await queue.get()
                self.trace.append(f"{name}<{number}")
                await self.run(node)
                queue.task_done()

        workers = [asyncio.create_task(worker(name)) for name in range(1 + ms % 3)]
        for number, node in enumerate(nodes + nodes[:1]):
            await queue.put((number, node))
        await queue.join()
        for task in workers:
            task.cancel()
        await asyncio.gather(*workers, return_exceptions=True)

    async def _as_completed(self, nodes: list[Any], _ms: int) -> None:
        for future in asyncio.as_completed([self.run(node) for node in nodes]):
            await future
            self.trace.append("completed")

    async def _done_set(self, nodes: list[Any], ms: int) -> None:
        tasks = {asyncio.create_task(self.strictly(node), name=str(i)) for i, node in enumerate(nodes)}
        done, pending = await asyncio.wait(tasks, timeout=ms / 1000)
        self._note(done)
        self._note((await asyncio.wait(pending))[0] if pending else set())

    async def _semaphore(self, nodes: list[Any], ms: int) -> None:
        semaphore, lock = asyncio.Semaphore(2), asyncio.Lock()

        async def member(node: list[Any]) -> None:
            async with semaphore:
                await self.run(node)
            async with lock:
                self.trace.append(await work("locked", ms % 3))

        await asyncio.gather(*map(member, nodes))

    async def _condition(self, nodes: list[Any], _ms: int) -> None:
        condition, done = asyncio.Condition(), 0

        async def member(node: list[Any]) -> None:
            nonlocal done
            await self.run(node)
            async with condition:
                done += 1
                condition.notify_all()

        tasks = [asyncio.create_task(member(node)) for node in nodes]
        async with condition:
            await condition.wait_for(lambda: done * 2 >= len(nodes))
        self.trace.append(f"half: {done}")
        await asyncio.gather(*tasks)

    async def _shield(self, nodes: list[Any], ms: int) -> None:
        task = asyncio.create_task(self._sequence(nodes))
        try:
            async with asyncio.timeout(ms / 1000):
                await asyncio.shield(task)
        finally:
            await task

    async def _cancel(self, nodes: list[Any], ms: int) -> None:
        async def cleaning() -> None:
            try:
                await self._sequence(nodes)
            finally:
                self.trace.append(await work("clean", 1))

        task = asyncio.create_task(cleaning())
        await work("before", ms)
        self.trace.append(f"cancel: {task.cancel()}")
        await asyncio.gather(task, return_exceptions=True)

    def _note(self, tasks: set[asyncio.Task[None]]) -> None:
        """In the order in which the set gives them."""
        for task in tasks:
            error = None if task.cancelled() else task.exception()
            self.trace.append(f"{task.get_name()}: {task.cancelled()} {error!r}")


@workflow
async def racy(seed: int) -> list[str]:
    interpreter = Interpreter()
    await interpreter.run(program_of(seed))
    return interpreter.trace


# The experiment.


def live_and_die(seed: int, folder: Path) -> dict[str, Any]:
    """Execute program `seed`, dying on the way; returns what the file then holds."""
    chance = random.Random(f"deaths {seed}")
    deaths = [Death(chance.randint(1, 12), chance.choice(list(Moment))) for _ in range(chance.randint(1, 4))]
    # Virtual days, which cost nothing: a run with which three lives have died in a row waits for the engine's periods.
    options = CrashOptions(seed=seed, seconds_max=60 * 86_400.0)
    experiment = Experiment(racy, (seed,), {}, options, folder, deque(maxlen=40))
    experiment.trial(chance.choice([SINGLE, BATCHED, PARKED]), deaths)
    connection = sqlite3.connect(folder / f"{experiment.files}.db")
    try:
        row = connection.execute(f"select {_ROW}, output from holdfast_runs").fetchone()
        columns = ", ".join(EntryRecorded._fields)
        entries = connection.execute(f"select {columns} from holdfast_history order by random()").fetchall()
    finally:
        connection.close()
    return {"seed": seed, "row": row[:-1], "output": row[-1], "entries": entries}


def replayed(facts: dict[str, Any]) -> str | None:
    """The result of replaying a complete history."""
    activation = Activation(
        RunRow(*facts["row"], has_history=True), racy, [EntryRecorded(*entry) for entry in facts["entries"]]
    )
    activation.begin()
    for _ in activation.replay(chunk=1):
        pass
    assert activation.divergence is None, activation.divergence
    assert activation.conclusion is not None, f"seed {facts['seed']}: the replay has not ended"
    output = activation.conclusion.output
    activation.close()
    return output


def replayed_in_child(path: Path, *, hash_seed: int) -> list[str | None]:
    """The results of replaying all histories in a file, in a process with another hash seed."""
    environment = {**os.environ, "PYTHONHASHSEED": str(hash_seed)}
    command = [sys.executable, __file__, str(path)]
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    results: list[str | None] = json.loads(answer.stdout)
    return results


@pytest.mark.generated
def test_racy_programs_that_died_replay_to_one_outcome(figures: Add, progress: Progress) -> None:
    first = int(ONE_SEED) if ONE_SEED is not None else 0
    seeds = range(first, first + 1) if ONE_SEED is not None else range(PROGRAMS)
    facts: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in seeds:
            here = Path(folder, str(seed))
            here.mkdir()
            fact = live_and_die(seed, here)
            for _ in range(REPLAYS):
                assert replayed(fact) == fact["output"], f"seed {seed}: {program_of(seed)}"
            facts.append(fact)
            progress(f"racy programs: {len(facts):,} of {len(seeds):,}")
        path = Path(folder, "facts.json")
        path.write_text(json.dumps(facts), encoding="utf-8")
        for hash_seed in (0, 4711):
            for fact, output in zip(facts, replayed_in_child(path, hash_seed=hash_seed), strict=True):
                seed = fact["seed"]
                assert output == fact["output"], f"seed {seed}, hash seed {hash_seed}: {program_of(seed)}"
    replays = REPLAYS + 2
    trials = f"{len(seeds):,} programs, {replays * len(seeds):,} replays"
    entries = replays * sum(len(fact["entries"]) for fact in facts)
    figures("programs", trials=trials, facts=entries, lost=0, repeated=0, seed=f"{seeds[0]}–{seeds[-1]}")


if __name__ == "__main__":
    print(json.dumps([replayed(fact) for fact in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))]))

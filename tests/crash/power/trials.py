"""Cuts the power at many moments of one recording, and looks at what is left."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.crash.power import judge, victim
from tests.crash.power.disk import Disk
from tests.crash.power.judge import Told, Verdict
from tests.crash.power.recording import Change, Kind

OPENING_CHANGES = 150
"""Changes in which the database is made and migrated."""
RECOVERY_SECONDS_MAX = 30.0
EXAMPLES_MAX = 5
ENDED = {"succeeded", "cancelled"}


@dataclass
class Tally:
    """What many cuts came to. A trial counts once for each way in which it is wrong."""

    trials: int = 0
    facts: int = 0
    lost: int = 0
    damaged: int = 0
    changed: int = 0
    recoveries: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, told: Told, verdict: Verdict, where: str) -> None:
        self.trials += 1
        self.facts += told.facts
        self.lost += bool(verdict.lost)
        self.damaged += bool(verdict.damaged)
        self.changed += bool(verdict.changed)
        if not verdict.ok and len(self.examples) < EXAMPLES_MAX:
            self.examples.append(f"{where}: {(verdict.damaged + verdict.changed + verdict.lost)[:3]}")

    @property
    def ok(self) -> bool:
        return self.facts > 0 and not (self.lost or self.damaged or self.changed)


class Player:
    """Plays a recording onto a disk, forward only."""

    def __init__(self, changes: list[Change]) -> None:
        self.disk, self.told = Disk(), Told()
        self._changes = changes
        self._at = 0

    def until(self, cut: int) -> None:
        """Up to the change before this one."""
        while self._at < cut:
            change = self._changes[self._at]
            self.disk.play(change)
            if change.kind is Kind.MARK:
                self.told.hear(change.data.decode())
            self._at += 1


def cut_often(changes: list[Change], folder: Path, tally: Tally, *, cuts: int, recoveries: int, seed: int) -> None:
    """Cut at random moments, in their order; recover some of the disks by a real worker.

    Raises:
        AssertionError: the worker could not, or repeated a step that was recorded.
    """
    dice, player, ever = random.Random(seed), Player(changes), {}
    moments = sorted(dice.randrange(len(changes) + 1) for _ in range(cuts))
    early = sum(cut < OPENING_CHANGES for cut in moments)
    recovered = {0, *dice.sample(range(cuts), min(recoveries, cuts)), *(range(early)[: recoveries // 3])}
    for number, cut in enumerate(moments):
        player.until(cut)
        where = f"cut {cut}, dice {seed}/{number}"
        survivors = player.disk.survivors(random.Random(f"{seed}/{number}"))
        database = judge.lay_out(survivors, folder)
        verdict = judge.judge(judge.read(database), player.told, ever=ever)
        tally.add(player.told, verdict, where)
        if recoveries and not (verdict.damaged or verdict.changed) and number in recovered:
            try:
                recover(judge.lay_out(survivors, folder), Told() if verdict.lost else player.told)
            except Exception as error:
                raise AssertionError(f"recovery after {where}: {error!r}") from error
            tally.recoveries += 1


def recover(database: Path, told: Told) -> None:
    """Open what is left with a real worker, let every run come to its end, and look that it repeated nothing."""
    before = judge.read(copy_of(database))
    with _listening() as marks:
        asyncio.run(asyncio.wait_for(_to_the_end(database), RECOVERY_SECONDS_MAX))
    after = judge.read(database)
    verdict = judge.judge(after, told, ever=dict(before.outcomes))
    assert verdict.ok, str(verdict)[:2000]
    open_runs = {run: row.state for run, row in after.runs.items() if row.state not in ENDED}
    assert not open_runs, open_runs
    recorded = before.outcomes.keys() | told.outcomes.keys()
    again = [place for mark in marks if mark[0] == "E" and (place := judge.place_of(mark[2:])) in recorded]
    assert not again, f"executed again although recorded: {again}"


async def _to_the_end(database: Path) -> None:
    app = victim.app_at(database)
    async with app:
        assert await app.run(victim.in_a_row, 1, "", id="afterwards")
        while await app.count() > await app.count(state=["succeeded", "cancelled", "failed", "blocked"]):
            await asyncio.sleep(0.01)


def copy_of(database: Path) -> Path:
    """Looking recovers the files, too; the worker shall find them as the cut left them."""
    folder = database.parent.with_name(database.parent.name + "-looked-at")
    files = {file.name.removeprefix(database.name): file.read_bytes() for file in database.parent.iterdir()}
    return judge.lay_out({ending: content for ending, content in files.items() if ending in ENDINGS}, folder)


ENDINGS = {"", "-wal", "-journal"}


@contextmanager
def _listening() -> Iterator[list[str]]:
    marks: list[str] = []
    victim.tell.append(marks.append)
    try:
        yield marks
    finally:
        victim.tell.clear()

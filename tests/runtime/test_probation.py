from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from tests.runtime.kit import Gate, journal_of, opened, park, play

from holdfast import patched, sleep, step, workflow
from holdfast._runtime import executor, probation


def test_a_suspect_with_a_long_history_is_not_cleared_by_its_replay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its replay comes in pieces; what it then records without an outcome, such as a patch, is no progress."""
    monkeypatch.setattr(executor, "REPLAY_CHUNK", 2)
    monkeypatch.setattr(probation, "SETTLE_SECONDS", 0.0)
    is_new = [False]

    async def main() -> None:
        path = tmp_path / "a.db"
        gate = Gate()

        @step
        async def one() -> int:
            return 1

        @step
        async def wait() -> None:
            await gate()

        @workflow
        async def flow() -> int:
            done = sum([await one() for _ in range(5)])
            await sleep(0.001 if is_new[0] else 3600)
            if patched("wait first"):
                await wait()
            return done

        async with opened(flow, at=path) as app:
            run = await app.start(flow, id="r")
            while (await run.describe()).state != "waiting":
                await park(app)
        is_new[0] = True
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("update holdfast_history set state = 'succeeded', ordinal = 6 where kind = 'timer'")
        connection.execute("update holdfast_runs set state = 'ready', due_at = null, crashes = 3")
        async with opened(flow, at=path) as app:
            await gate.came.wait()
            await journal_of(app).settle()
            assert connection.execute("select crashes from holdfast_runs").fetchall() == [(3,)]
            gate.open.set()
            assert await app.get("r").result() == 5
        connection.close()

    play(main())

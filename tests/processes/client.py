"""A process that is worker and client: starts runs, awaits all their results, then does as its standard input says."""

from __future__ import annotations

import asyncio
import logging
import sys

from tests.processes.shop import app, held, row

from holdfast import Run, Start


async def main(runs: int) -> None:
    async with app:
        started: list[Run[int]] = await app.start_many([Start(held, n, id=f"held-{n}") for n in range(runs)])
        waiting = asyncio.gather(*(run.result() for run in started))
        print("started", flush=True)
        print("results", sum(await waiting), flush=True)
        while await asyncio.to_thread(sys.stdin.readline):
            await asyncio.gather(*(app.run(row, n, 2, id=f"after-{n}") for n in range(20)))
            worker = app._engine.worker
            print("after", worker.id if worker else "-", flush=True)


logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(name)s %(message)s")
asyncio.run(main(int(sys.argv[1])))

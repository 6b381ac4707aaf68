"""A client that starts runs, of `held` or of `row` with so many steps, and waits for them."""

from __future__ import annotations

import asyncio
import sys

from tests.processes.shop import app, held, row

from holdfast import Start


async def main(kind: str, runs: int) -> None:
    async with app.client() as client:
        make = held if kind == "held" else row
        more = () if kind == "held" else (int(kind),)  # the length of a row
        starts = [Start(make, n, *more, id=f"{make.name}-{n}") for n in range(runs)]
        started = await client.start_many(starts)
        print("started", flush=True)
        await asyncio.gather(*(run.result() for run in started))
        print("ended", flush=True)


asyncio.run(main(sys.argv[1], int(sys.argv[2])))

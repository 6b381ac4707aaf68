"""A worker whose runs sleep, as a process of its own: ``python -m tests.processes.sleepers DATABASE OPTION=VALUE...``.

It says `ready`, executes until its input ends, and says `bye`.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from holdfast import ExecutorOptions, Holdfast, WorkerOptions, sleep, step, workflow


@step
async def note(path: str, line: str) -> None:
    with Path(path).open("a", encoding="utf-8") as log:
        log.write(line + "\n")


@workflow
async def nap(path: str, name: str, seconds: float) -> str:
    """Note the way into and out of a sleep."""
    await note(path, f"asleep {name}")
    try:
        await sleep(seconds)
    finally:
        await note(path, f"awake {name}")
    return name


def app_at(database: str, **execution: float) -> Holdfast:
    app = Holdfast(f"sqlite:///{database}", worker=WorkerOptions(execution=ExecutorOptions(**execution)))  # type: ignore[arg-type]
    app.include(nap)
    return app


async def serve(app: Holdfast) -> None:
    async with app:
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.read)
    print("bye", flush=True)


if __name__ == "__main__":
    _, place, *words = sys.argv
    options = dict(word.split("=") for word in words)
    asyncio.run(serve(app_at(place, **{name: json.loads(value) for name, value in options.items()})))

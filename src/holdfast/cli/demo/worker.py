"""The demo's worker process: ``python -m holdfast.cli.demo.worker DATABASE LOG``.

It executes whatever the database has for it until its standard input ends, which is how its parent dismisses it and how
it notices that the parent is gone. It knows nothing of having been killed before: opening the app is all there is to
recovery.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
from pathlib import Path
from typing import Final

from holdfast.cli.demo.app import make_app

LEAVE_SECONDS: Final = 10.0
"""How long an orderly leave may take before the process ends anyway; recovery makes that harmless."""


async def work(database: Path) -> None:
    """Be a worker until standard input ends."""
    loop = asyncio.get_running_loop()
    dismissed = asyncio.Event()
    threading.Thread(target=_await_dismissal, args=(loop, dismissed), daemon=True).start()
    async with make_app(database):
        await dismissed.wait()


def _await_dismissal(loop: asyncio.AbstractEventLoop, dismissed: asyncio.Event) -> None:
    while os.read(0, 1024):
        pass
    deadline = threading.Timer(LEAVE_SECONDS, os._exit, (1,))
    deadline.daemon = True
    deadline.start()
    loop.call_soon_threadsafe(dismissed.set)


def main() -> None:
    """Log to a file: retries of flaky services are no news for the terminal."""
    logging.basicConfig(
        filename=sys.argv[2],
        level=logging.INFO,
        format="%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s",
        encoding="utf-8",
    )
    asyncio.run(work(Path(sys.argv[1])))


if __name__ == "__main__":
    main()

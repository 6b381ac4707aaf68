"""`--watch`: look again and again, and show what is there.

On a terminal the view takes the whole screen and gives it back at the end; elsewhere every change is written out once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from rich.console import RenderableType
from rich.live import Live

from holdfast.cli.settings import Settings

T = TypeVar("T")
REFRESH_SECONDS: Final = 0.5


async def watch(
    settings: Settings,
    *,
    look: Callable[[], Awaitable[T]],
    draw: Callable[[T], RenderableType],
    write: Callable[[T], object],
    ended: Callable[[T], bool] = lambda _: False,
) -> None:
    """Show until `ended`, or until Ctrl-C.

    Args:
        look: reads what is there now.
        draw: makes the view for a terminal.
        write: writes it out, for programs and files, and at the end.
        ended: whether nothing more will change.
    """
    try:
        if settings.out.is_terminal and not settings.is_json:
            write(await _watch_on_screen(settings, look, draw, ended))
        else:
            await _watch_changes(look, write, ended)
    except asyncio.CancelledError:  # asyncio's way of Ctrl-C
        return


async def _watch_on_screen(
    settings: Settings,
    look: Callable[[], Awaitable[T]],
    draw: Callable[[T], RenderableType],
    ended: Callable[[T], bool],
) -> T:
    seen = await look()
    with Live(draw(seen), console=settings.out, screen=True, auto_refresh=False, vertical_overflow="crop") as live:
        while not ended(seen):
            await asyncio.sleep(REFRESH_SECONDS)
            seen = await look()
            live.update(draw(seen), refresh=True)
    return seen


async def _watch_changes(
    look: Callable[[], Awaitable[T]], write: Callable[[T], object], ended: Callable[[T], bool]
) -> None:
    written: T | None = None
    while True:
        seen = await look()
        if seen != written:
            write(seen)
            written = seen
        if ended(seen):
            return
        await asyncio.sleep(REFRESH_SECONDS)

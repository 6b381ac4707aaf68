"""Where the user's own code stands: the line that opened something, or that waits for something."""

from __future__ import annotations

import asyncio
import linecache
import sysconfig
import traceback
from collections.abc import Coroutine
from pathlib import Path
from types import FrameType
from typing import Any, Final

import holdfast

_LIBRARIES: Final = (
    str(Path(holdfast.__file__).parent),
    str(Path(asyncio.__file__).parent.parent),
    *(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")),
)


def calling() -> str:
    """The innermost line on the stack that is neither ours nor a library's."""
    for frame in reversed(traceback.extract_stack()[:-1]):
        if not frame.filename.startswith(_LIBRARIES):
            return _shown(frame.filename, frame.lineno or 0, frame.name)
    return "an unknown place"


def waiting(coroutine: Coroutine[Any, Any, Any]) -> str:
    """The innermost such line at which a suspended coroutine waits."""
    place, awaited = "an unknown place", coroutine
    while True:
        frame = _attribute(awaited, "cr_frame", "gi_frame", "ag_frame")
        if not isinstance(frame, FrameType):
            return place
        if not frame.f_code.co_filename.startswith(_LIBRARIES):
            place = _shown(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name)
        awaited = _attribute(awaited, "cr_await", "gi_yieldfrom", "ag_await")


def _attribute(awaited: Any, *names: str) -> Any:
    return next((found for name in names if (found := getattr(awaited, name, None)) is not None), None)


def _shown(file: str, line: int, name: str) -> str:
    return f"{file}:{line}, in {name}: {linecache.getline(file, line).strip()}"

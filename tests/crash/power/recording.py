"""Records one life of the victim: compiles the recorder, runs the program with it, reads the log."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[3]
SOURCE = Path(__file__).with_name("recorder.c")
ENDED_BY_CUT = 77
SECONDS_MAX = 120.0
_HEADER = struct.Struct("=IIQI")


class Kind(IntEnum):
    """What happened; the same numbers as in the recorder."""

    CREATED = 1
    WRITTEN = 2
    CUT = 3
    SYNCED = 4
    UNLINKED = 5
    FOLDER_SYNCED = 6
    MARK = 7


class Change(NamedTuple):
    """One line of the log. `data` is what was written, the name's ending, or the mark."""

    kind: Kind
    file: int
    offset: int
    data: bytes


def why_not() -> str:
    """Why power cuts cannot be tried here, or nothing."""
    if sys.platform != "linux":
        return f"the recorder is preloaded in the way of Linux, and this is {sys.platform}"
    return "" if compiler() else "there is no C compiler (cc, gcc or clang) to build the recorder with"


def compiler() -> str | None:
    return next((found for name in ("cc", "gcc", "clang") if (found := shutil.which(name))), None)


def build(source: Path, folder: Path) -> Path:
    """Compile a library to preload."""
    library = folder / f"{source.stem}.so"
    command = [
        str(compiler()),
        "-O2",
        "-Wall",
        "-shared",
        "-fPIC",
        "-o",
        str(library),
        str(source),
        "-ldl",
        "-lpthread",
    ]
    subprocess.run(command, check=True)
    return library


def record(
    recorder: Path,
    folder: Path,
    *,
    seed: int,
    runs: int,
    synchronous: str = "full",
    checkpoint_pages: int = 40,
    end_at: int = 0,
) -> list[Change]:
    """Let the victim live in a new folder, to its end or to a power cut before the change with this number."""
    folder.mkdir()
    folder = folder.resolve()
    log = folder / "recording"
    environment = {
        **os.environ,
        "LD_PRELOAD": str(recorder),
        "POWER_DATABASE": str(folder / "power.db"),
        "POWER_MARKS": str(folder / "marks"),
        "POWER_LOG": str(log),
        "POWER_END": str(end_at),
    }
    arguments = [str(folder), str(seed), str(runs), synchronous, str(checkpoint_pages)]
    process = subprocess.run(
        [sys.executable, "-m", "tests.crash.power.victim", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    if process.returncode not in ({0, ENDED_BY_CUT} if end_at else {0}):
        raise RuntimeError(f"the victim ended with {process.returncode}:\n{process.stdout}{process.stderr}")
    return list(read(log.read_bytes()))


def read(log: bytes) -> Iterator[Change]:
    at = 0
    while at < len(log):
        kind, file, offset, length = _HEADER.unpack_from(log, at)
        at += _HEADER.size
        if kind in {Kind.WRITTEN, Kind.CREATED, Kind.UNLINKED, Kind.MARK}:
            data = log[at : at + length]
            at += length
        else:
            data = b""
        yield Change(Kind(kind), file, offset, data)

"""What may be on a disk after the power went: rebuilt from a recording, many times, each time otherwise.

    recording:   write  write  sync  write  MARK  write | sync  write  MARK ...
                 └──── certain ────┘ └── perhaps ──┘    cut here

Why this is a faithful model. A file system promises about a file only what a sync of *that file* returned: the bytes
written before it, and the length. Of the rest it says nothing. Caches write back when they like, in any order, in
pieces; the order between files is free, too. So at a cut

- what was written to a file before its last sync is there;
- of each later write any subset of its sectors (512 bytes) or pages (4,096) may be there. Older and newer writes to the
  same place compete, so any of them may be what is left;
- a file's length may have grown without the bytes: then zeros are there, or rubbish, as if from files deleted long ago;
- a truncation since the last sync has happened or not, whatever came after it;
- a name that was made or removed since the last sync of the *folder* is there or not. This is harsher than common file
  systems, which make a name durable with the first sync of the file.

Purely independent coins would be a weak adversary: with thousands of pieces every state is a similar mixture. So the
coins are biased for each file anew. A first part was written back completely (`settled`), of the others each is kept
with a chance that may also be 0 or 1. Nothing kept, everything kept, all of one file and nothing of another, one
missing piece, a torn last write: all are common.

The cut is between two changes of the recorded order. That is enough: a cut within a call is a call of which any pieces
may be there. A process that dies (without the power) is the case in which everything is kept.

With `synchronous=off` nothing is ever synced. Systems write back by themselves after some seconds, so of very many
pending changes of a file the older half becomes certain, and the names with it; with FULL that never happens.

What is not modelled: a disk that acknowledges a flush which it has not done, or damages sectors next to the one that it
writes when the power goes (SQLite relies on "powersafe overwrite", as nearly all disks give it); bits that rot; a
sector of which a part is old and a part new. A write of part of a sector is torn at the sector's edges only. The
`-shm` file is never there; after a crash SQLite builds it anew, which is also what it does after a restart.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Final

from tests.crash.power.recording import Change, Kind

SECTOR_BYTES: Final = 512
PAGE_BYTES: Final = 4096
CHANCES: Final = (0.0, 0.0, 0.1, 0.5, 0.9, 0.99, 1.0, 1.0)
GROWS_WITHOUT_BYTES: Final = 0.3
PENDING_MAX: Final = 600
"""Changes of one file that were never synced; then the system has written the older half back by itself."""


class File:
    """One file, whatever its names: what is certain, and what was done since."""

    def __init__(self) -> None:
        self.durable = bytearray()
        self.pending: list[Change] = []

    def sync(self) -> None:
        for change in self.pending:
            _do(self.durable, change)
        self.pending.clear()

    def write_back(self) -> None:
        """What a system does after some seconds if nobody asks."""
        older, self.pending = self.pending[: PENDING_MAX // 2], self.pending[PENDING_MAX // 2 :]
        for change in older:
            _do(self.durable, change)

    def survivor(self, dice: random.Random) -> bytes:
        """One of the contents that it may have after a power cut."""
        content = bytearray(self.durable)
        pieces = [piece for change in self.pending for piece in _torn(change, dice.choice((SECTOR_BYTES, PAGE_BYTES)))]
        settled = dice.choice((0, 0, len(pieces), dice.randint(0, len(pieces))))
        chance, rubbish = dice.choice(CHANCES), dice.random() < 0.5
        for number, piece in enumerate(pieces):
            if number < settled or dice.random() < chance:
                _do(content, piece, hole=dice if rubbish else None)
            elif piece.kind is Kind.WRITTEN and dice.random() < GROWS_WITHOUT_BYTES * chance:
                _grow(content, piece.offset + len(piece.data), dice if rubbish else None)
        return bytes(content)


class Disk:
    """The folder of the database while the recording is played. `survivors` may be asked at any moment."""

    def __init__(self) -> None:
        self._files: dict[int, File] = {}
        self._names: dict[str, int | None] = {}
        self._pending: list[tuple[str, int | None]] = []

    def play(self, change: Change) -> None:
        match change.kind:
            case Kind.CREATED:
                self._files[change.file] = File()
                self._pending.append((change.data.decode(), change.file))
            case Kind.UNLINKED:
                self._pending.append((change.data.decode(), None))
            case Kind.FOLDER_SYNCED:
                self._names.update(self._pending)
                self._pending.clear()
            case Kind.SYNCED:
                self._files[change.file].sync()
            case Kind.WRITTEN | Kind.CUT:
                self._write(self._files[change.file], change)
            case Kind.MARK:
                pass

    def _write(self, file: File, change: Change) -> None:
        file.pending.append(change)
        if len(file.pending) > PENDING_MAX:
            file.write_back()
            self._names.update(self._pending)
            self._pending.clear()

    def survivors(self, dice: random.Random) -> dict[str, bytes]:
        """The files that are there after a power cut at this moment, by the ending of their names."""
        names = dict(self._names)
        settled = dice.choice((0, len(self._pending), dice.randint(0, len(self._pending))))
        for place, (ending, file) in enumerate(self._pending):
            if place < settled or dice.random() < 0.5:
                names[ending] = file
        return {ending: self._files[file].survivor(dice) for ending, file in sorted(names.items()) if file is not None}


def _torn(change: Change, grain: int) -> Iterator[Change]:
    """The pieces of a write that arrive as a whole or not at all."""
    if change.kind is Kind.CUT:
        yield change
        return
    at, end = change.offset, change.offset + len(change.data)
    while at < end:
        until = min((at // grain + 1) * grain, end)
        yield change._replace(offset=at, data=change.data[at - change.offset : until - change.offset])
        at = until


def _do(content: bytearray, change: Change, *, hole: random.Random | None = None) -> None:
    if change.kind is Kind.CUT:
        del content[change.offset :]
        _grow(content, change.offset, hole)
    else:
        _grow(content, change.offset, hole)
        content[change.offset : change.offset + len(change.data)] = change.data


def _grow(content: bytearray, size: int, rubbish: random.Random | None) -> None:
    missing = size - len(content)
    if missing > 0:
        content += bytes(missing) if rubbish is None else rubbish.randbytes(missing)

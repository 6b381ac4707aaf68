"""Rows that SQLite has put together as one JSON array, as bytes, and what is done when a text in them is damaged.

SQLite does not look whether a text is UTF-8; a bit that flipped on the disk may have made one that is not. Then that
text alone must be unreadable, and not all runs of a claim: each wrong byte is read as a NUL, which stands in no JSON.
So whoever decodes the payload finds out, and that run is blocked.
"""

from __future__ import annotations

import re
from typing import Final, TypeVar

import msgspec

from holdfast.errors import StoreCorrupt

T = TypeVar("T")

_WRONG: Final = re.compile("[\udc80-\udcff]")


def decode_rows(decoder: msgspec.json.Decoder[T], raw: bytes | str) -> T:
    """The rows.

    Raises:
        StoreCorrupt: a column holds what none of ours can hold.
    """
    try:
        return decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        text = raw if isinstance(raw, str) else _WRONG.sub(r"\\u0000", raw.decode("utf-8", "surrogateescape"))
    try:
        return decoder.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise StoreCorrupt(
            f"a row cannot be read: {error}", hint="run `holdfast doctor`, keep a copy of all files, restore a backup"
        ) from error

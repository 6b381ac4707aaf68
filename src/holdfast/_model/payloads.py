"""The bounds of payloads: whatever users' values become in a row.

One bound of size holds for arguments of workflows, results of steps and workflows, and attributes; failures are
abridged to fit it. It counts the characters of the JSON text, since asking a text for its length costs nothing on the
hot path; in UTF-8 a character is one byte, for most of the world's scripts up to three, never more than four. Rows are
read whole: a history of large payloads makes every replay slow, and a listing of them fills memory.

Depth is bounded by what readers can stand. Decoding recurses on the stack of whoever reads, so a text that could only
just be written would break each listing that finds it, and the replay of its run, wherever those start a little deeper.
Few texts have enough brackets to be looked at, and that costs no more than decoding them. The bound is counted, as how
deep a decoder goes differs between Pythons: what 3.13 wrote must not break a reader of 3.11. A first count takes
brackets in strings for brackets; where those hide levels, the decoder still has the last word.
"""

from __future__ import annotations

import re
from itertools import accumulate
from typing import Final

import msgspec

from holdfast.errors import NotEncodable, PayloadTooLarge

PAYLOAD_CHARS_MAX: Final = 1_048_576
"""The bound unless `JournalOptions` says otherwise: 1 MiB of ASCII."""
LEVELS_UNCHECKED: Final = 100
"""A text with no more opening brackets than this is not nested too deeply."""
LEVELS_MAX: Final = 250
"""How deep a payload may be nested."""
LEVELS_SPARE: Final = 500
"""How much deeper the stack of a reader may be than ours is when we write."""
_STEP: Final = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
_NO_BRACKETS: Final = bytes(set(range(256)) - set(_STEP))
_STRING: Final = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"')


def check_payload(text: str, what: str, *, chars_max: int) -> None:
    """A payload fits its bounds.

    Args:
        text: the payload as JSON.
        what: what the user calls it, such as ``result of step 'charge'``.
        chars_max: the bound of its size.

    Raises:
        PayloadTooLarge: it has more characters.
        NotEncodable: it is nested more than `LEVELS_MAX` levels deep.
    """
    if len(text) <= 2 * LEVELS_UNCHECKED:
        return
    if len(text) > chars_max:
        raise PayloadTooLarge(
            f"{what}: {len(text):,} characters of JSON, more than the {chars_max:,} of one payload",
            chars=len(text),
            chars_max=chars_max,
            hint="store large values elsewhere and pass a reference, "
            "or raise the bound: Holdfast(..., journal=JournalOptions(payload_max=...))",
        )
    if text.count("[") + text.count("{") > LEVELS_UNCHECKED:
        _check_levels(text, what)


def _check_levels(text: str, what: str) -> None:
    if _levels(text) > LEVELS_MAX and _levels(_STRING.sub("", text)) > LEVELS_MAX:
        raise _nested(what)
    try:
        msgspec.json.decode("[" * LEVELS_SPARE + text + "]" * LEVELS_SPARE, type=msgspec.Raw)
    except RecursionError as error:
        raise _nested(what) from error


def _levels(text: str) -> int:
    brackets = text.encode().translate(None, _NO_BRACKETS)
    return max(accumulate(map(_STEP.__getitem__, brackets)), default=0)


def _nested(what: str) -> NotEncodable:
    return NotEncodable(
        f"{what} cannot be stored: it is nested too deeply",
        path=what,
        hint=f"keep values flatter than {LEVELS_MAX} levels, or store them elsewhere and pass a reference",
    )

"""The bounds of payloads: whatever users' values become in a row.

One bound of size holds for arguments of workflows, results of steps and workflows, and attributes; failures are
abridged to fit it. It counts the characters of the JSON text, since asking a text for its length costs nothing on the
hot path; in UTF-8 a character is one byte, for most of the world's scripts up to three, never more than four. Rows are
read whole: a history of large payloads makes every replay slow, and a listing of them fills memory.

Depth is bounded by what readers can stand. Decoding recurses on the stack of whoever reads, so a text that could only
just be written would break each listing that finds it, and the replay of its run, wherever those start a little deeper.
Few texts have enough brackets to be looked at; skipping through one costs a thirtieth of decoding it.
"""

from __future__ import annotations

from typing import Final

import msgspec

from holdfast.errors import NotEncodable, PayloadTooLarge

PAYLOAD_CHARS_MAX: Final = 1_048_576
"""The bound unless `JournalOptions` says otherwise: 1 MiB of ASCII."""
LEVELS_UNCHECKED: Final = 100
"""A text with no more opening brackets than this is not nested too deeply."""
LEVELS_SPARE: Final = 500
"""How much deeper the stack of a reader may be than ours is when we write."""


def check_payload(text: str, what: str, *, chars_max: int) -> None:
    """A payload fits its bounds.

    Args:
        text: the payload as JSON.
        what: what the user calls it, such as ``result of step 'charge'``.
        chars_max: the bound of its size.

    Raises:
        PayloadTooLarge: it has more characters.
        NotEncodable: it is nested too deeply, some hundreds of levels.
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
    try:
        msgspec.json.decode("[" * LEVELS_SPARE + text + "]" * LEVELS_SPARE, type=msgspec.Raw)
    except RecursionError as error:
        raise NotEncodable(
            f"{what} cannot be stored: it is nested too deeply",
            path=what,
            hint="keep nested values flatter than some hundred levels, or store them elsewhere and pass a reference",
        ) from error

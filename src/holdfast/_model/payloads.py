"""The bound of payloads: whatever users' values become in a row.

One bound holds for arguments of workflows, results of steps and workflows, and attributes; failures are abridged to
fit it. It counts the characters of the JSON text, since asking a text for its length costs nothing on the hot path; in
UTF-8 a character is one byte, for most of the world's scripts up to three, never more than four. Rows are read whole: a
history of large payloads makes every replay slow, and a listing of them fills memory.
"""

from __future__ import annotations

from typing import Final

from holdfast.errors import PayloadTooLarge

PAYLOAD_CHARS_MAX: Final = 1_048_576
"""The bound unless `JournalOptions` says otherwise: 1 MiB of ASCII."""


def check_payload(text: str, what: str, *, chars_max: int) -> None:
    """A payload fits its bound.

    Args:
        text: the payload as JSON.
        what: what the user calls it, such as ``result of step 'charge'``.
        chars_max: the bound.

    Raises:
        PayloadTooLarge: it does not.
    """
    if len(text) > chars_max:
        raise PayloadTooLarge(
            f"{what}: {len(text):,} characters of JSON, more than the {chars_max:,} of one payload",
            chars=len(text),
            chars_max=chars_max,
            hint="store large values elsewhere and pass a reference, "
            "or raise the bound: Holdfast(..., journal=JournalOptions(payload_max=...))",
        )

"""Text from outside on its way to a terminal: what would steer it becomes visible, or harmless.

Names, attributes and errors are what somebody has put into the database, and a terminal obeys escape sequences wherever
they come from. On screen a control character becomes the sign for it (`␛`), and what turns the direction of writing
becomes a replacement character. In JSON both are escaped, which changes no value.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

_STEERING: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
"""Line ends and tabs are left: they are layout, and `one_line` is for where they are not."""
_IN_JSON: Final = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_LINE_ENDS: Final = str.maketrans("\n\t", "␊␉")


def harmless(text: str) -> str:
    """The text without what steers a terminal; as many characters as before."""
    return _STEERING.sub(_shown, text)


def one_line(text: str) -> str:
    """The same for a name or a cell of a table: nothing in it begins a line of its own."""
    return harmless(text.translate(_LINE_ENDS))


def json_text(value: Any) -> str:
    """A value as JSON on one line, whatever texts are in it."""
    try:
        encoded = msgspec.json.encode(value).decode()
    except UnicodeEncodeError:  # lone surrogates: an argument or a file name that is not UTF-8
        encoded = msgspec.json.encode(_encodable(msgspec.to_builtins(value))).decode()
    return harmless_json(encoded)


def harmless_json(text: str) -> str:
    """JSON that means the same, with everything escaped that steers a terminal."""
    return _IN_JSON.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _shown(match: re.Match[str]) -> str:
    code = ord(match[0])
    return "␡" if code == 0x7F else chr(0x2400 + code) if code < 0x20 else "\ufffd"


def _encodable(value: Any) -> Any:
    """With `\\udcff` spelled out where a text holds half a character."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_encodable(key): _encodable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_encodable(item) for item in value]
    return value

"""Exceptions as JSON text, and back as exceptions.

A workflow that says ``except CardDeclined`` must catch the same class with the same arguments and message in
replay as live, so an exception is stored with what is needed to make it again: its class by name, its
arguments, its attributes. It is rebuilt without calling the class's own ``__init__`` (whose parameters
need not be `args`): an instance is allocated by the built-in base, then given its attributes. Only when
class, arguments and message all agree is it handed out; otherwise the caller's fallback class carries
type name, message and traceback as text.

Writing never fails, whatever the exception holds. Everything is bounded: text, nesting, numbers of parts.
What is not plain data (an open response, a lock) is left out: without its arguments an exception is not
rebuilt, without an attribute it is.

Reading imports the module that the text names, so it trusts the database as far as the code that wrote
it. Exceptions that mean something to the interpreter, such as SystemExit, are never rebuilt.
"""

# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false, reportUnknownMemberType=false
# (of the arguments of an exception nothing is known)

from __future__ import annotations

import builtins
import datetime
import decimal
import importlib
import traceback
import types
import uuid
from asyncio import CancelledError
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from holdfast._model.payloads import PAYLOAD_CHARS_MAX
from holdfast.errors import RunFailed, StepFailed

TEXT_CHARS_MAX = 16_384
CAUSE_CHARS_MAX = 1_000
IN_SHORT_CHARS_MAX = 200
CAUSES_MAX = 50
NOTES_MAX = 50
LINKS_MAX = 10
PARTS_MAX = 1_000
LEVELS_MAX = 16
PLAIN_CHARS_MAX = 65_536

_OURS = str(Path(__file__).resolve().parents[1])
_ATTRIBUTES_APART = frozenset({"__notes__", "holdfast_traceback", "holdfast_causes"})

# StopIteration cannot pass through a coroutine or a future; CancelledError would cancel who awaits it, though nobody
# asked for that; the others would end the process or the coroutine.
_THEN: Final = "\nThen:\n\n"
"""Between the tracebacks of an error that was raised again elsewhere."""
_NEVER_REBUILT = (KeyboardInterrupt, SystemExit, GeneratorExit, StopIteration, CancelledError)


def encode_failure(error: BaseException, *, chars_max: int = PAYLOAD_CHARS_MAX) -> str:
    """An exception as JSON text.

    The keys are ``type`` (``module:QualifiedName``), ``message``, ``args`` (absent when they are not plain data),
    and unless empty ``state`` (attributes), ``traceback``, ``causes`` (``type: message`` of the members of a group,
    then of each cause, outermost first) and ``notes``. Never raises for a fault of the exception.

    Args:
        error: the exception.
        chars_max: characters of the text, at least 4,096. What is longer is abridged: first the exception loses its
            arguments and attributes, so that it is told and not rebuilt; then all but parts of message and traceback.
    """
    try:
        described = _describe(error, _Budget())
    except Exception as fault:  # a hostile class; its name is all that can be had
        reason = f"(the exception could not be described: {type(fault).__name__})"
        described = {"type": _type_name(type(error)), "message": reason}
    text = msgspec.json.encode(described).decode()
    return text if len(text) <= chars_max else _abridged(described, chars_max)


def _abridged(described: dict[str, Any], chars_max: int) -> str:
    """A description in fewer characters. One of the text may be six of JSON: there are two texts and a name in it."""
    told = {key: value for key, value in described.items() if key not in ("args", "state")}
    text = msgspec.json.encode(told).decode()
    if len(text) <= chars_max:
        return text
    each = chars_max // 24
    short = {key: _cut(told[key], each) for key in ("message", "traceback") if key in told}
    return msgspec.json.encode({"type": told["type"][:each], **short}).decode()


def decode_failure(text: str, *, fallback: type[StepFailed | RunFailed]) -> BaseException:
    """The exception that `encode_failure` wrote, of the same class where that can be had.

    A rebuilt exception has the attributes ``holdfast_traceback`` and ``holdfast_causes`` with what was
    recorded of them, where its class allows attributes.

    Args:
        text: what `encode_failure` returned.
        fallback: the class that carries the text of what cannot be rebuilt here.
    """
    try:
        record = msgspec.json.decode(text, type=dict[str, Any])
    except (ValueError, RecursionError):
        record = {"type": "", "message": f"the recorded failure cannot be read: {text[:CAUSE_CHARS_MAX]}"}
    rebuilt = _rebuild(record)
    if rebuilt is not None:
        return rebuilt
    causes = tuple(map(str, record.get("causes", ())))
    failure = fallback(
        str(record.get("message", "")),
        type_name=str(record.get("type", "")),
        traceback_text=str(record.get("traceback", "")),
        causes=causes,
    )
    for note in record.get("notes", ()):
        failure.add_note(str(note))
    return failure


# --- writing


def told(text: str) -> str:
    """A stored failure on one line: class, message, and where it was raised."""
    record = msgspec.json.decode(text)
    name, message = record["type"].rpartition(":")[2], " ".join(record.get("message", "").split())
    place = raised_at(record.get("traceback", ""))
    return f"{name}{f': {message}' if message else ''}{f' (at {place})' if place else ''}"


def traceback_of(text: str) -> str:
    """The traceback of a stored failure, or an empty text."""
    return str(msgspec.json.decode(text).get("traceback", "")).rstrip()


def raised_at(traceback_text: str) -> str:
    """Where a traceback ends, such as ``shop.py:19 in charge``; empty when it is not known."""
    first = traceback_text.partition(_THEN)[0]  # the step's own part comes first
    frames = [line.strip() for line in first.splitlines() if line.startswith('  File "')]
    if not frames:
        return ""
    path, _, rest = frames[-1].removeprefix('File "').partition('", line ')
    line, _, where = rest.partition(", in ")
    return f"{path.rpartition('/')[2]}:{line} in {where}"


def in_short(text: str) -> str:
    """A stored failure as part of a sentence: class and message on one line, which is bounded."""
    record = msgspec.json.decode(text)
    name = str(record["type"]).rpartition(":")[2]
    line = " ".join(f"{name}: {record.get('message', '')}".split()).removesuffix(":")
    return line if len(line) <= IN_SHORT_CHARS_MAX else f"{line[: IN_SHORT_CHARS_MAX - 1]}…"


class _Unplain(Exception):
    """A value that is not plain data, or too much of it."""


class _Budget:
    """Bounds how much of an exception is written, over all its arguments, attributes and members."""

    def __init__(self) -> None:
        self._parts = PARTS_MAX
        self._chars = PLAIN_CHARS_MAX

    def spend(self, value: object, level: int) -> None:
        self._parts -= 1
        self._chars -= len(value) if isinstance(value, str | bytes) else 0
        if self._parts < 0 or self._chars < 0 or level > LEVELS_MAX:
            raise _Unplain


def _describe(error: BaseException, budget: _Budget, level: int = 0) -> dict[str, Any]:
    described: dict[str, Any] = {"type": _type_name(type(error)), "message": _message(error)}
    args = _pack_args(error, budget, level)
    if args is not None:
        described["args"] = args
    more = {
        "state": dict(_pack_state(error, budget, level)),
        "traceback": _traceback_text(error) if level == 0 else "",
        "causes": _causes(error),
        "notes": [_cut(_text_of(note), CAUSE_CHARS_MAX) for note in _notes(error)],
    }
    return described | {key: value for key, value in more.items() if value}


def _pack_args(error: BaseException, budget: _Budget, level: int) -> list[Any] | None:
    """None when there is an argument that is not plain data: then the exception cannot be rebuilt."""
    try:
        return [_pack(value, budget, level + 1) for value in error.args]
    except Exception:  # foreign code; without it the exception is only told, not rebuilt
        return None


def _pack_state(error: BaseException, budget: _Budget, level: int) -> Iterator[tuple[str, Any]]:
    for name, value in _attributes(error):
        try:
            packed = _pack(value, budget, level + 1)
            msgspec.json.encode(name)
        except Exception:  # foreign code; the next may do
            continue
        yield name, packed


def _attributes(error: BaseException) -> Iterator[tuple[str, Any]]:
    """The instance's dictionary, its slots, and what built-in classes keep beside `args` (OSError.filename, ...)."""
    yield from ((name, value) for name, value in _dictionary_of(error).items() if name not in _ATTRIBUTES_APART)
    for kind in type(error).__mro__:
        if kind in (BaseException, BaseExceptionGroup, object):
            continue
        for name, member in vars(kind).items():
            if isinstance(member, types.MemberDescriptorType):
                value = _member(member, error)
                if value is not None:
                    yield name, value


def _dictionary_of(error: BaseException) -> dict[str, Any]:
    """The real one, whatever the class says about attributes."""
    return dict(object.__getattribute__(error, "__dict__"))


def _member(member: types.MemberDescriptorType, error: BaseException) -> Any:
    try:
        return member.__get__(error, type(error))
    except AttributeError:  # a slot that was never filled
        return None


def _notes(error: BaseException) -> list[Any]:
    notes = _dictionary_of(error).get("__notes__")
    return list(notes)[:NOTES_MAX] if isinstance(notes, list | tuple) else []


def _type_name(kind: type) -> str:
    return _clean(f"{type.__getattribute__(kind, '__module__')}:{type.__getattribute__(kind, '__qualname__')}")


def _message(error: BaseException) -> str:
    return _cut(_text_of(error), TEXT_CHARS_MAX)


def said(error: BaseException, *, as_repr: bool = False) -> str:
    """What an exception says, in at most 1,000 characters; whatever it is, this does not fail."""
    return _cut(_text_of(error, renders=(repr,) if as_repr else (str, repr)), CAUSE_CHARS_MAX)


def _text_of(value: object, *, renders: tuple[Callable[[object], str], ...] = (str, repr)) -> str:
    """`str()` that cannot fail. BaseException, since `__str__` is foreign code and this is already the way out."""
    for render in renders:
        try:
            return _clean(render(value))
        except BaseException:  # see above
            continue
    return f"<unprintable {type(value).__name__}>"


def _clean(text: str) -> str:
    return str.encode(text, "utf-8", "backslashreplace").decode()


def _cut(text: str, chars_max: int) -> str:
    """Head and tail; the end of a traceback matters most."""
    if len(text) <= chars_max:
        return text
    head = chars_max // 4
    tail = chars_max - head - 40
    return f"{text[:head]}\n… {len(text) - head - tail} characters left out …\n{text[-tail:]}"


def _traceback_text(error: BaseException) -> str:
    """The causes first, as Python prints them, without our own frames at the start of each."""
    pieces: list[str] = []
    earlier = _dictionary_of(error).get("holdfast_traceback")
    if isinstance(earlier, str):
        pieces.append(_clean(earlier))
    for link in [*_chain(error)][:LINKS_MAX][::-1]:
        frames = _frames(link)
        if frames:
            closing = f"{_type_name(type(link)).replace(':', '.')}: {_cut(_text_of(link), CAUSE_CHARS_MAX)}"
            pieces.append(f"Traceback (most recent call last):\n{frames}{closing}\n")
    return _cut(_THEN.join(pieces), TEXT_CHARS_MAX)


def _frames(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_OURS):
        trace = trace.tb_next
    return _clean("".join(traceback.format_tb(trace or error.__traceback__)))


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The exception and what led to it, bounded, and ended where it goes in a circle."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen and len(seen) < CAUSES_MAX:
        seen.add(id(link))
        yield link
        link = link.__cause__ if link.__cause__ is not None or link.__suppress_context__ else link.__context__


def _causes(error: BaseException) -> list[str]:
    members = list(_members(error)) if isinstance(error, BaseExceptionGroup) else []
    own = [_one_line(each) for each in [*members, *[*_chain(error)][1:]]]
    earlier = _dictionary_of(error).get("holdfast_causes", ())
    kept = [_clean(each) for each in earlier if isinstance(each, str)] if isinstance(earlier, tuple) else []
    return [*own, *kept][:CAUSES_MAX]


def _members(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    """Every member at any depth, groups before what is in them; bounded."""
    waiting = list(reversed(group.exceptions))
    for _ in range(CAUSES_MAX):
        if not waiting:
            return
        member = waiting.pop()
        yield member
        if isinstance(member, BaseExceptionGroup):
            waiting.extend(reversed(member.exceptions))


def _one_line(error: BaseException) -> str:
    return f"{_type_name(type(error))}: {_cut(_text_of(error), CAUSE_CHARS_MAX)}"


# --- arguments and attributes: JSON, and {"$": kind, "value": ...} for what JSON lacks

_KINDS: dict[type, tuple[str, Callable[[Any], Any]]] = {
    bytes: ("bytes", lambda value: b64encode(value).decode()),
    decimal.Decimal: ("decimal", str),
    uuid.UUID: ("uuid", str),
    datetime.datetime: ("datetime", datetime.datetime.isoformat),
    datetime.date: ("date", datetime.date.isoformat),
    datetime.time: ("time", datetime.time.isoformat),
    datetime.timedelta: ("timedelta", lambda value: [value.days, value.seconds, value.microseconds]),
}
_MAKERS: dict[str, Callable[[Any], Any]] = {
    "bytes": lambda value: b64decode(value, validate=True),
    "decimal": decimal.Decimal,
    "uuid": uuid.UUID,
    "datetime": datetime.datetime.fromisoformat,
    "date": datetime.date.fromisoformat,
    "time": datetime.time.fromisoformat,
    "timedelta": lambda value: datetime.timedelta(*value),
    "float": float,
    "tuple": lambda value: tuple(map(_unpack, value)),
    "set": lambda value: set(map(_unpack, value)),
    "frozenset": lambda value: frozenset(map(_unpack, value)),
    "dict": lambda value: {_unpack(key): _unpack(child) for key, child in value},
    "error": lambda value: _rebuild_member(value),
}
_SEQUENCES: dict[type, str] = {tuple: "tuple", set: "set", frozenset: "frozenset"}


def _pack(value: Any, budget: _Budget, level: int) -> Any:
    budget.spend(value, level)
    kind = type(value)
    if value is None or kind is bool:
        return value
    if kind in (str, int, float):
        return _pack_scalar(value)
    if kind in _KINDS:
        tag, write = _KINDS[kind]
        return {"$": tag, "value": write(value)}
    if kind is list:
        return [_pack(child, budget, level + 1) for child in value]
    if kind in _SEQUENCES:
        return {"$": _SEQUENCES[kind], "value": [_pack(child, budget, level + 1) for child in value]}
    if kind is dict:
        return _pack_dict(value, budget, level)
    if isinstance(value, BaseException):
        return {"$": "error", "value": _describe(value, budget, level + 1)}
    raise _Unplain


def _pack_scalar(value: str | float) -> Any:
    """Text and numbers as they are, once it is sure that they can be written and read."""
    if isinstance(value, float) and value - value != 0.0:
        return {"$": "float", "value": str(value)}
    if msgspec.json.decode(msgspec.json.encode(value)) != value:
        raise _Unplain
    return value


def _pack_dict(value: dict[Any, Any], budget: _Budget, level: int) -> dict[str, Any]:
    if "$" not in value and all(type(key) is str for key in value):
        msgspec.json.encode(list(value))
        return {key: _pack(child, budget, level + 1) for key, child in value.items()}
    pairs = [[_pack(key, budget, level + 1), _pack(child, budget, level + 1)] for key, child in value.items()]
    return {"$": "dict", "value": pairs}


def _unpack(packed: Any) -> Any:
    if isinstance(packed, list):
        return list(map(_unpack, packed))
    if not isinstance(packed, dict):
        return packed
    if "$" in packed:
        return _MAKERS[packed["$"]](packed["value"])
    return {key: _unpack(child) for key, child in packed.items()}


# --- rebuilding


def _rebuild_member(record: dict[str, Any]) -> BaseException:
    """A member of a group (or another exception in `args`) is as important as the whole."""
    rebuilt = _rebuild(record)
    if rebuilt is None:
        raise _Unplain
    return rebuilt


def _rebuild(record: dict[str, Any]) -> BaseException | None:
    """The exception with its class, arguments and message; None when any of them cannot be had."""
    try:
        kind = _find_class(record["type"])
        args = tuple(map(_unpack, record["args"]))
        state = {name: _unpack(value) for name, value in record.get("state", {}).items()}
    except Exception:  # foreign code; without it the exception is only told, not rebuilt
        return None
    if issubclass(kind, _NEVER_REBUILT):
        return None
    for make in (_allocate, _call):
        try:
            rebuilt = make(kind, args, state)
            if type(rebuilt) is kind and rebuilt.args == args and _says_the_same(rebuilt, record):
                _remember(rebuilt, record)
                return rebuilt
        except Exception:  # foreign code; the next may do
            continue
    return None


def _says_the_same(rebuilt: BaseException, record: dict[str, Any]) -> bool:
    """A set prints in an order that depends on the process; the answer here must not, so there order is no matter."""
    message = _message(rebuilt)
    if message == record["message"]:
        return True
    held = msgspec.json.encode([record["args"], record.get("state")])
    return b'set","value":[' in held and sorted(message) == sorted(record["message"])


def _find_class(type_name: str) -> type[BaseException]:
    module, _, qualname = type_name.partition(":")
    found: Any = importlib.import_module(module)
    for part in qualname.split("."):
        found = getattr(found, part)
    if not (isinstance(found, type) and issubclass(found, BaseException)):
        raise TypeError(f"{type_name} is not an exception class")
    return found


def _allocate(kind: type[BaseException], args: tuple[Any, ...], state: dict[str, Any]) -> BaseException:
    """Without the class's own code: by its built-in base (the one that decides the memory layout)."""
    base: Any = kind
    while base.__module__ != builtins.__name__:
        base = base.__base__
    rebuilt: BaseException = base.__new__(kind, *args)
    base.__init__(rebuilt, *args)
    return _restore(rebuilt, kind, state)


def _call(kind: type[BaseException], args: tuple[Any, ...], state: dict[str, Any]) -> BaseException:
    """As `raise kind(*args)` did, for classes of which an allocated instance does not print the same."""
    return _restore(kind(*args), kind, state)


def _restore(rebuilt: BaseException, kind: type[BaseException], state: dict[str, Any]) -> BaseException:
    for name, value in state.items():
        member = getattr(kind, name, None)
        if isinstance(member, types.MemberDescriptorType):
            member.__set__(rebuilt, value)
        else:
            rebuilt.__dict__[name] = value
    return rebuilt


def _remember(rebuilt: BaseException, record: dict[str, Any]) -> None:
    attributes = rebuilt.__dict__
    if record.get("notes"):
        attributes["__notes__"] = list(record["notes"])
    if record.get("traceback"):
        attributes["holdfast_traceback"] = record["traceback"]
    if record.get("causes"):
        attributes["holdfast_causes"] = tuple(record["causes"])

"""The arguments of a call as one JSON object by parameter name, and back.

``charge("order-17", cents=1200)`` is stored as ``{"order_id":"order-17","cents":1200}``: readable, the same
for every way to write the call, and typed again by the function's annotations. Surplus positional
arguments are the array ``"*args"``, surplus keywords the object ``"**kwargs"``, whatever the function calls
them. An argument that the caller left out is left out here too: the default that holds is the one of the
code that runs, and a parameter added with a default does not change the texts of earlier calls.

There are two texts. `encode` is for the inputs of runs: it is stored to be decoded, so it also proves that
it can be. `fingerprint` is for comparing a call with its history: canonical, short and fast.
"""

from __future__ import annotations

import hashlib
import inspect
import typing
from collections.abc import Callable, Iterator
from functools import cached_property
from types import SimpleNamespace
from typing import Any

import msgspec

from holdfast._model.codec import Codec, codec_for
from holdfast._model.faults import refusal
from holdfast._model.writing import encode_canonical, encode_sorted
from holdfast.errors import NotDecodable, NotEncodable, UsageError

FINGERPRINT_CHARS_MAX = 256
FINGERPRINT_CHARS_KEPT = 200

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_STARS: dict[object, str] = {inspect.Parameter.VAR_POSITIONAL: "*args", inspect.Parameter.VAR_KEYWORD: "**kwargs"}
_ABSENT = msgspec.UNSET


class Arguments:
    """How one function is called. Cheap to make: annotations are resolved at the first use."""

    def __init__(self, function: Callable[..., object]) -> None:
        self._function = function

    def encode(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        """The call as text that `decode` accepts.

        Raises:
            NotEncodable: an argument cannot be written, or does not fit its annotation.
            UsageError: the function cannot be called like this, or an annotation of it cannot be used.
        """
        plan = self._plan
        if any(value is _ABSENT for value in (*args, *kwargs.values())):
            raise NotEncodable(
                f"{self._name}: msgspec.UNSET cannot be stored: it stands for no value",
                hint="leave the argument out, or pass None",
            )
        pieces = [
            slot.head + slot.codec.settle(value, where=slot.name)[0]
            for slot, value in zip(plan.slots, self._bind(plan, args, kwargs), strict=False)
            if value is not _ABSENT
        ]
        return "{" + ",".join(pieces) + "}"

    def decode(self, text: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """What to call the function with.

        Raises:
            NotDecodable: the text is not a call of this function as it is now; names function and parameter.
        """
        plan = self._plan
        try:
            raw = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
        except (ValueError, RecursionError) as error:
            raise NotDecodable(f"the stored arguments of {self._name} are not a JSON object") from error
        if plan.fills_every_place(raw):
            return tuple([self._decode_slot(slot, raw[slot.key]) for slot in plan.slots]), {}
        unknown = raw.keys() - {slot.key for slot in plan.slots}
        if unknown:
            raise NotDecodable(
                f"{self._name} has no parameter {min(unknown)!r}, but its stored arguments do",
                path=min(unknown),
                hint="keep the parameter while runs that were started with it are unfinished",
            )
        return _as_call(plan, [self._decode_slot(slot, raw.get(slot.key)) for slot in plan.slots])

    def fingerprint(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        """The call in a form to compare: equal calls have equal fingerprints in every process.

        Sets and dictionary keys are sorted. A long one is its first 200 characters, ``…#`` and 16 hexadecimal
        digits of its BLAKE2b hash. NaN and infinities count as null here: this text is never read back.

        Raises:
            NotEncodable: an argument cannot be written.
            UsageError: the function cannot be called like this.
        """
        plan = self._plan
        if kwargs or len(args) not in plan.simple:
            args = tuple(self._bind(plan, args, kwargs))
        try:
            text = encode_sorted(plan.record(*args)).decode()
        except Exception:  # tried again one by one, and raised from there
            text = self._fingerprint_slowly(plan, args)
        return text if len(text) <= FINGERPRINT_CHARS_MAX else _abridge(text)

    def check(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Raises UsageError, saying what Python's TypeError would, when the function cannot be called like this."""
        self._bind(self._plan, args, kwargs)

    @cached_property
    def _plan(self) -> _Plan:
        return _Plan(self._function)

    @property
    def _name(self) -> str:
        return _name_of(self._function)

    def _bind(self, plan: _Plan, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
        """The value of each slot, `_ABSENT` where none was given; may be shorter than the slots."""
        if not kwargs and len(args) in plan.simple:
            return list(args)
        values = plan.place(args, kwargs)
        if values is not None:
            return values
        try:
            given = plan.signature.bind(*args, **kwargs).arguments
        except TypeError as error:
            raise UsageError(
                f"{self._name}() {error}",
                hint=f"its signature is {self._function.__name__}{plan.signature}",
            ) from error
        return [given.get(slot.name, _ABSENT) for slot in plan.slots]

    def _decode_slot(self, slot: _Slot, raw: msgspec.Raw | None) -> Any:
        if raw is None:
            if slot.required:
                raise NotDecodable(
                    f"the stored arguments of {self._name} have no {slot.key!r}",
                    path=slot.key,
                    hint="give a new parameter a default while runs that were started without it are unfinished",
                )
            return _ABSENT
        try:
            return slot.codec.decode(bytes(raw).decode(), where=slot.name)
        except NotDecodable as error:
            raise NotDecodable(f"{self._name}: {error.message}", path=error.path, hint=error.hint) from error

    def _fingerprint_slowly(self, plan: _Plan, args: tuple[Any, ...]) -> str:
        """For arguments that the sorting encoder refuses: argument by argument, so that an error has its path."""
        pieces: list[str] = []
        for slot, value in zip(plan.slots, args, strict=False):
            if value is _ABSENT:
                continue
            try:
                pieces.append(slot.head + encode_canonical(value).decode())
            except Exception as error:
                raise refusal(value, slot.name, error) from error
        return "{" + ",".join(pieces) + "}"


class _Slot:
    """One parameter.

    Attributes:
        key: its name in the JSON object.
        name: its name in the function.
        head: the key as JSON, with the colon.
    """

    __slots__ = ("codec", "default", "head", "key", "kind", "name", "required")

    def __init__(self, parameter: inspect.Parameter, codec: Codec[Any]) -> None:
        self.name = parameter.name
        self.key = _STARS.get(parameter.kind, parameter.name)
        self.head = f"{msgspec.json.encode(self.key).decode()}:"
        self.kind = parameter.kind
        self.default = parameter.default
        self.required = parameter.default is parameter.empty and self.key == self.name
        self.codec = codec


class _Plan:
    """What is known of a function once its annotations are resolved.

    Attributes:
        simple: the numbers of positional arguments that need no binding: each is its slot's value.
        record: a struct with a field for each slot; encoding it writes the call.
    """

    __slots__ = ("_index", "_keys", "_positional", "_required", "record", "signature", "simple", "slots")

    def __init__(self, function: Callable[..., object]) -> None:
        self.signature = inspect.signature(function)
        parameters = list(self.signature.parameters.values())
        annotations = annotations_of(function)
        self.slots = [_Slot(each, _codec_of(function, each, annotations.get(each.name, Any))) for each in parameters]
        positional = [slot for slot in self.slots if slot.kind in _POSITIONAL]
        required = sum(slot.required for slot in positional)
        only_by_name = any(slot.required for slot in self.slots if slot.kind is inspect.Parameter.KEYWORD_ONLY)
        self.simple = range(0) if only_by_name else range(required, len(positional) + 1)
        self.record = _record_of(self.slots)
        plain = all(slot.kind in _BY_NAME for slot in self.slots)
        self._index = {slot.name: index for index, slot in enumerate(self.slots)} if plain else {}
        self._required = [index for index, slot in enumerate(self.slots) if slot.required]
        self._positional = len(positional)
        self._keys = {slot.key for slot in self.slots}

    def fills_every_place(self, raw: dict[str, msgspec.Raw]) -> bool:
        """Whether each parameter can be given by position and is there: the usual case."""
        return self._positional == len(self.slots) == len(raw) and self._keys == raw.keys()

    def place(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any] | None:
        """What `Signature.bind` does, for a function without stars or slashes; None when that has to decide."""
        if not self._index or len(args) > self._positional:
            return None
        values = [*args, *[_ABSENT] * (len(self.slots) - len(args))]
        for name, value in kwargs.items():
            index = self._index.get(name, -1)
            if index < len(args):
                return None
            values[index] = value
        return None if any(values[index] is _ABSENT for index in self._required) else values


def _record_of(slots: list[_Slot]) -> Callable[..., msgspec.Struct]:
    """Neutral field names, renamed in JSON: a parameter may have any name, and the stars are part of two."""
    names = {f"f{index}": slot.key for index, slot in enumerate(slots)}
    fields: list[tuple[str, Any, Any]] = [(name, Any, _ABSENT) for name in names]
    return msgspec.defstruct("Call", fields, rename=names, gc=False)


def _codec_of(function: Callable[..., object], parameter: inspect.Parameter, annotation: Any) -> Codec[Any]:
    if typing.get_origin(annotation) is typing.Unpack:
        annotation = typing.get_args(annotation)[0]
    elif parameter.kind is inspect.Parameter.VAR_POSITIONAL:
        annotation = tuple[annotation, ...]
    elif parameter.kind is inspect.Parameter.VAR_KEYWORD:
        annotation = dict[str, annotation]
    what = f"parameter {parameter.name!r} of {_name_of(function)}"
    try:
        return codec_for(annotation)
    except NotEncodable as error:
        raise NotEncodable(f"{what}: {error.message}", path=parameter.name, hint=error.hint) from error
    except UsageError as error:
        raise UsageError(f"{what}: {error.message}", hint=error.hint) from error


def _as_call(plan: _Plan, values: list[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments after one that was left out go by keyword, unless that is impossible; then defaults fill the gap."""
    positional: list[Any] = []
    by_name: dict[str, Any] = {}
    slots = list(zip(plan.slots, values, strict=True))
    last = max((index for index, (slot, value) in enumerate(slots) if _needs_place(slot, value)), default=-1)
    for index, (slot, value) in enumerate(slots):
        if slot.kind is inspect.Parameter.VAR_KEYWORD:
            by_name |= {} if value is _ABSENT else value
        elif slot.kind is inspect.Parameter.VAR_POSITIONAL:
            positional += () if value is _ABSENT else value
        elif index <= last:
            positional.append(slot.default if value is _ABSENT else value)
        elif value is not _ABSENT and slot.kind in _POSITIONAL and len(positional) == index:
            positional.append(value)
        elif value is not _ABSENT:
            by_name[slot.name] = value
    return tuple(positional), by_name


def _needs_place(slot: _Slot, value: Any) -> bool:
    if slot.kind is inspect.Parameter.VAR_POSITIONAL:
        return value is not _ABSENT and len(value) > 0
    return slot.kind is inspect.Parameter.POSITIONAL_ONLY and value is not _ABSENT


def _abridge(text: str) -> str:
    digest = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
    return f"{text[:FINGERPRINT_CHARS_KEPT]}…#{digest}"


def annotations_of(function: Callable[..., object]) -> dict[str, Any]:
    """The resolved annotations of a function, the one of its result under ``return``.

    Names are looked up where the function was defined: in its closure, then in its module.

    Raises:
        UsageError: an annotation is text that cannot be resolved; names function and annotation.
    """
    inner = inspect.unwrap(function)
    scope = dict(_closure_of(inner))
    try:
        return typing.get_type_hints(inner, localns=scope, include_extras=True)
    except Exception:  # resolved again one by one, and raised from there
        return {name: _resolve(inner, name, raw, scope) for name, raw in inner.__annotations__.items()}


def _resolve(function: Callable[..., object], name: str, raw: object, scope: dict[str, Any]) -> Any:
    holder: Any = SimpleNamespace(__annotations__={name: raw})
    try:
        return typing.get_type_hints(holder, getattr(function, "__globals__", {}), scope, include_extras=True)[name]
    except Exception as error:
        what = "result" if name == "return" else f"parameter {name!r}"
        raise UsageError(
            f"the annotation {raw!r} of the {what} of {_name_of(function)} cannot be resolved: {error}",
            hint="define or import the type at module level, and not only under TYPE_CHECKING",
        ) from error


def _closure_of(function: Callable[..., object]) -> Iterator[tuple[str, Any]]:
    code = getattr(function, "__code__", None)
    for name, cell in zip(code.co_freevars if code else (), getattr(function, "__closure__", None) or (), strict=False):
        try:
            yield name, cell.cell_contents
        except ValueError:  # a cell that is not filled yet
            continue


def _name_of(function: Callable[..., object]) -> str:
    return f"{function.__module__}.{function.__qualname__}"

"""Values into JSON text: what each class is written as, and which parts a value has.

One encoder serves every annotation, since the value's own type decides how it is written. pydantic is never imported: a
value of a pydantic class means that it is loaded.
"""

# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false, reportUnknownMemberType=false
# (of a user's payload nothing is known)

from __future__ import annotations

import inspect
import sys
import typing
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import lru_cache
from typing import Any, cast

import msgspec

from holdfast._model.bounds import shown

KINDS_CACHED_MAX = 4096
LEVELS_MAX = 1000
REASON_CHARS_MAX = 400
NAME_CHARS_MAX = 300


def _simplify(value: Any) -> Any:
    """msgspec's way to ask for a class that it does not know."""
    if is_model_class(type(value)):
        return msgspec.Raw(value.model_dump_json(**dump_options()).encode())
    return _simplify_scalar(value)


def _simplify_canonical(value: Any) -> Any:
    if is_model_class(type(value)):
        try:
            return msgspec.Raw(encode_sorted(value.model_dump(**dump_options())))
        except Exception:  # a field that only pydantic can write; its sets then keep their order
            return value.model_dump(mode="json", **dump_options())
    return _simplify_scalar(value)


def _simplify_scalar(value: Any) -> Any:
    """Subclasses of scalars (numpy.float64, markupsafe.Markup, ...) are written as what they extend."""
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int.__index__(value)
    if isinstance(value, float):
        return float.__float__(value)
    raise TypeError(f"a {name_of(type(value))} has no form in JSON")


encode_plain: Callable[[Any], bytes] = msgspec.json.Encoder(enc_hook=_simplify).encode
encode_sorted: Callable[[Any], bytes] = msgspec.json.Encoder(enc_hook=_simplify_canonical, order="deterministic").encode


def encode_canonical(value: Any) -> bytes:
    """JSON that is the same for equal values in every process: sets and dictionary keys are sorted.

    It is for comparing, not for reading back. Only a set whose members hold sets themselves keeps an order
    that depends on the process.
    """
    try:
        return encode_sorted(value)
    except TypeError:  # keys that are not text, or members of a set that do not compare: order them by their text
        return encode_sorted(_ordered(value, 0))


def _ordered(value: Any, level: int) -> Any:
    """The value with every set and dictionary replaced by one that `encode_sorted` can write."""
    if level > LEVELS_MAX // 4:
        raise RecursionError("nested too deeply")
    if isinstance(value, dict):
        return {key_text(key): _ordered(child, level + 1) for key, child in value.items()}
    if isinstance(value, set | frozenset):
        texts = sorted(encode_sorted(_ordered(child, level + 1)) for child in value)
        return msgspec.Raw(b"[" + b",".join(texts) + b"]")
    if isinstance(value, list | tuple):
        return [_ordered(child, level + 1) for child in value]
    if has_fields(type(value)):
        return {suffix[1:]: _ordered(child, level + 1) for suffix, child in children(value)}
    return value


def key_text(key: Any) -> str:
    (text,) = msgspec.json.decode(encode_plain({key: None}), type=dict[str, None])
    return text


# --- parts of values


def is_container(value: object) -> bool:
    return isinstance(value, dict | list | tuple | set | frozenset) or has_fields(type(value))


def _kind_has_fields(kind: type) -> bool:
    known = (
        hasattr(kind, "__dataclass_fields__") or hasattr(kind, "__struct_fields__") or hasattr(kind, "__attrs_attrs__")
    )
    return known or is_model_class(kind)


has_fields: Callable[[type], bool] = lru_cache(maxsize=KINDS_CACHED_MAX)(_kind_has_fields)


def children(value: Any) -> Iterator[tuple[str, object]]:
    """The parts of a container, each with what it adds to the path."""
    if isinstance(value, dict):
        return ((f"[{shown(key)}]", child) for key, child in value.items())
    if isinstance(value, tuple) and hasattr(type(value), "_fields"):
        return ((f".{name}", child) for name, child in zip(cast("Any", value)._fields, value, strict=False))
    if isinstance(value, list | tuple):
        return ((f"[{index}]", child) for index, child in enumerate(value))
    if isinstance(value, set | frozenset):
        return (("[...]", child) for child in value)
    return _fields(value)


def _fields(value: Any) -> Iterator[tuple[str, object]]:
    for name in field_names(value):
        with suppress(Exception):  # foreign code: that it cannot be read is for the encoder to say
            yield f".{name}", getattr(value, name)


def field_names(value: Any) -> Iterable[str]:
    kind = type(value)
    if hasattr(kind, "__dataclass_fields__"):
        return cast("dict[str, object]", kind.__dataclass_fields__)
    if isinstance(value, msgspec.Struct):
        return value.__struct_fields__
    if is_model_class(kind):
        return [*vars(value), *(value.model_extra or ())]
    return [attribute.name for attribute in kind.__attrs_attrs__]


# --- pydantic, without importing it


def is_model_class(kind: object) -> bool:
    module = sys.modules.get("pydantic.main")
    return module is not None and isinstance(kind, type) and issubclass(kind, module.BaseModel)


@lru_cache(maxsize=1)
def _by_name() -> bool:
    """Whether this pydantic can write and read by field name whatever the aliases say (2.11 and later)."""
    return "by_name" in inspect.signature(sys.modules["pydantic.main"].BaseModel.model_validate_json).parameters


def validate_options() -> dict[str, bool]:
    return {"by_alias": False, "by_name": True} if _by_name() else {}


def dump_options() -> dict[str, bool]:
    return {"by_alias": not _by_name(), "round_trip": True, "warnings": False}


# --- words


def told(error: Exception) -> str:
    """What an error says; it may be foreign, and say too much or nothing at all."""
    try:
        told = one_line(error) if isinstance(error, ValueError) else str(error)
    except Exception as fault:
        told = f"{name_of(type(error))}, whose text fails: {type(fault).__name__}"
    return told if len(told) <= REASON_CHARS_MAX else f"{told[: REASON_CHARS_MAX - 1]}…"


def one_line(error: ValueError) -> str:
    """The first complaint of a pydantic ValidationError: `price: Input should be ...`."""
    if not hasattr(error, "errors"):
        return str(error)
    first: dict[str, Any] = cast("Any", error).errors(include_url=False, include_context=False)[0]
    return ": ".join(filter(None, (".".join(map(str, first["loc"])), first["msg"])))


def name_of(kind: object) -> str:
    if not isinstance(kind, type) or typing.get_args(kind):
        try:
            return repr(kind) if len(repr(kind)) <= NAME_CHARS_MAX else shown(kind)
        except Exception:  # foreign code
            return shown(kind)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"

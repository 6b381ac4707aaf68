"""Values to JSON text and back, by annotation.

What a step returns, what a workflow takes and what a signal carries is stored as compact JSON that a
person can read with `sqlite3`; the annotation says what it is turned back into. Guaranteed: a text that
`settle` returned can be decoded, and decoding it again, in any process, gives the value that `settle`
returned. So the workflow sees the same value live as in replay. Nothing is pickled, no class is looked
up by a name that came from the database, and what would be lost in silence (NaN, an integer where the
annotation says `str`) is refused with the path of the value before anything is stored.

One encoder serves every annotation, since the value's own type decides how it is written. Decoders are
made once per annotation. Finding out *why* a value was refused is slow, and happens only after the fast
way failed. pydantic is never imported: a value or annotation of a pydantic class means that it is loaded.

Known limits, all of JSON or of ISO 8601: a time zone comes back as its UTC offset in whole minutes, an
instance of a subclass as the annotated class, and without an annotation a tuple as a list.
"""

# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false, reportUnknownMemberType=false
# (of a user's payload nothing is known)

from __future__ import annotations

import inspect
import re
import sys
import typing
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import lru_cache, partial
from typing import Any, Generic, TypeVar, cast

import msgspec

from holdfast.errors import NotDecodable, NotEncodable, UsageError

T = TypeVar("T")

CODECS_CACHED_MAX = 4096
LEVELS_MAX = 1000
PATH_CHARS_MAX = 200

_HINT = "annotate it with a type that JSON can carry, return JSON-able data, or convert it in the step"
_HINT_CLASS = "use a dataclass, a msgspec.Struct or a pydantic model, or convert it in the step"
_UNTYPED: tuple[Any, ...] = (inspect.Parameter.empty, object, typing.NoReturn, typing.Never)
_SCALARS: frozenset[type] = frozenset({str, int, float, bool, type(None)})


class Codec(Generic[T]):
    """Writes and reads the values of one annotation. Get one from `codec_for`; safe to share between threads."""

    __slots__ = ("_decode", "_encode", "_exact", "annotation")

    def __init__(
        self,
        annotation: object,
        *,
        encode: Callable[[T], bytes],
        decode: Callable[[str], T],
        exact: frozenset[type],
    ) -> None:
        self.annotation = annotation
        self._encode = encode
        self._decode = decode
        self._exact = exact

    def encode(self, value: T, *, where: str = "value") -> str:
        """The value as compact JSON text, dictionaries in the order they were filled.

        Args:
            value: what to write. Whether it fits the annotation is for `settle` to find out.
            where: what the caller calls the value; the root of the path in an error.

        Raises:
            NotEncodable: the value or a part of it cannot be written; `path` says which.
        """
        try:
            text = self._encode(value).decode()
            lossy = "null" in text and _has_non_finite(value)
        except Exception as error:
            raise refusal(value, where, error) from error
        if lossy:
            raise refusal(value, where, None)
        return text

    def decode(self, text: str, *, where: str = "value") -> T:
        """The value that a text stands for.

        Raises:
            NotDecodable: the text is not JSON, or does not fit the annotation.
        """
        try:
            return self._decode(text)
        except Exception as error:
            path, reason = self._misfit(text, where, error)
            raise NotDecodable(
                f"{path} does not fit {_name_of(self.annotation)}: {reason}",
                path=path,
                hint="start again with a right value; or, if the code has changed since, widen the annotation",
            ) from error

    def settle(self, value: T, *, where: str = "value") -> tuple[str, T]:
        """The text to store, and the value as every later replay will see it.

        Raises:
            NotEncodable: the value cannot be written, or does not fit its annotation.
        """
        text = self.encode(value, where=where)
        if type(value) in self._exact:
            return text, value
        try:
            return text, self._decode(text)
        except Exception as error:
            path, reason = self._misfit(text, where, error)
            raise NotEncodable(
                f"{path} does not fit its annotation {_name_of(self.annotation)}: {reason}"
                f" (the value is a {_name_of(type(value))})",
                path=path,
                hint="correct the annotation or the value",
            ) from error

    def _misfit(self, text: str, where: str, error: Exception) -> tuple[str, str]:
        """Where in the text it does not fit, and why."""
        if isinstance(error, RecursionError):
            return where, "nested too deeply"
        reason, _, place = str(error).partition(" - at `")
        steps = re.findall(r"\.[^.\[\]`]+|\[[^\]]*\]", place.partition("$")[2].rstrip("`"))
        with suppress(Exception):  # the anonymous path is still true, and the error that counts is the caller's
            steps = self._name_keys(text, steps, str(error))
        return _shorten(where + "".join(steps)), reason or type(error).__name__

    def _name_keys(self, text: str, steps: list[str], failure: str) -> list[str]:
        """msgspec writes ``[...]`` for any key of a dictionary: find which, by leaving only one key at a time."""
        root = node = msgspec.json.decode(text)
        for index, step in enumerate(steps):
            if step != "[...]":
                node = node[step[1:]] if step[0] == "." else node[int(step[1:-1])]
            elif not isinstance(node, dict):
                return steps
            else:
                key = self._failing_key(root, node, failure)
                steps[index] = f"[{key!r}]"
                node = node[key]
        return steps

    def _failing_key(self, root: object, node: dict[str, object], failure: str) -> str:
        """Leaves in `node` only its first key with which `root` still fails in the same way."""
        items = list(node.items())
        for key, child in items:
            node.clear()
            node[key] = child
            try:
                self._decode(msgspec.json.encode(root).decode())
            except Exception as error:  # whatever decoding raised before, it is compared
                if str(error) == failure:
                    return key
        raise LookupError(failure)


def codec_for(annotation: object = Any) -> Codec[Any]:
    """The codec of an annotation; made once and kept.

    Args:
        annotation: a type, or `typing.Any` or `inspect.Parameter.empty` for plain JSON. Not a string:
            resolve those first (`holdfast._model.arguments.annotations_of`).

    Raises:
        NotEncodable: it contains a class that cannot be written as JSON.
        UsageError: it cannot be told from the text which member of a union is meant, or a forward
            reference in it is unknown.
    """
    try:
        return _cached_codec(annotation)
    except TypeError as error:
        if isinstance(error, NotEncodable):
            raise
        return _make_codec(annotation)  # unhashable, such as `Annotated[int, []]`


@lru_cache(maxsize=CODECS_CACHED_MAX)
def _cached_codec(annotation: object) -> Codec[Any]:
    return _make_codec(annotation)


def _make_codec(annotation: object) -> Codec[Any]:
    if annotation in _UNTYPED:
        annotation = Any
    if annotation is Any:
        return Codec(annotation, encode=encode_plain, decode=msgspec.json.decode, exact=_SCALARS)
    try:
        exact = _check_type(annotation)
        decode = _decoder_of(annotation)
    except (TypeError, NameError, RecursionError) as error:
        if isinstance(error, NotEncodable):
            raise
        adapted = _pydantic_codec(annotation)
        if adapted is not None:
            return adapted
        raise UsageError(
            f"the annotation {_name_of(annotation)} cannot be used for stored values: {error}",
            hint="for a union of classes use tagged msgspec structs: `class A(Struct, tag=True)`",
        ) from error
    return Codec(annotation, encode=encode_plain, decode=decode, exact=exact)


def _decoder_of(annotation: object) -> Callable[[str], Any]:
    if _is_model_class(annotation):
        return partial(cast("Any", annotation).model_validate_json, **_validate_options())
    return msgspec.json.Decoder(cast("Any", annotation), dec_hook=_revive).decode


def _check_type(annotation: object) -> frozenset[type]:
    """Refuses classes that msgspec does not know; returns the scalar types that need no second look."""
    from msgspec import inspect as types

    shape = types.type_info(cast("Any", annotation))
    for node in _type_nodes(shape):
        if isinstance(node, types.CustomType) and node.cls is not object and not _is_model_class(node.cls):
            raise NotEncodable(
                f"values of {_name_of(node.cls)} cannot be stored (in the annotation {_name_of(annotation)})",
                hint=_HINT_CLASS,
            )
    plain = [(types.StrType(), str), (types.IntType(), int), (types.FloatType(), float)]
    plain += [(types.BoolType(), bool), (types.NoneType(), type(None))]
    members = shape.types if isinstance(shape, types.UnionType) else (shape,)
    return frozenset(kind for unbounded, kind in plain if unbounded in members)


def _type_nodes(shape: object) -> Iterator[object]:
    """Every part of a type description, each once (types may refer to themselves)."""
    seen: set[int] = set()
    waiting = [shape]
    while waiting:
        node = waiting.pop()
        if isinstance(node, tuple):
            waiting.extend(node)
        elif isinstance(node, msgspec.Struct) and id(node) not in seen:
            seen.add(id(node))
            yield node
            waiting.extend(getattr(node, name) for name in node.__struct_fields__ if not name.startswith("default"))


# --- pydantic, without importing it


def _is_model_class(kind: object) -> bool:
    module = sys.modules.get("pydantic.main")
    return module is not None and isinstance(kind, type) and issubclass(kind, module.BaseModel)


@lru_cache(maxsize=1)
def _by_name() -> bool:
    """Whether this pydantic can write and read by field name whatever the aliases say (2.11 and later)."""
    return "by_name" in inspect.signature(sys.modules["pydantic.main"].BaseModel.model_validate_json).parameters


def _validate_options() -> dict[str, bool]:
    return {"by_alias": False, "by_name": True} if _by_name() else {}


def _dump_options() -> dict[str, bool]:
    return {"by_alias": not _by_name(), "round_trip": True, "warnings": False}


def _pydantic_codec(annotation: object) -> Codec[Any] | None:
    """For what only pydantic can tell apart, such as a union of its models; None when there is no model in it."""
    if not any(_is_model_class(part) for part in _annotation_parts(annotation)):
        return None
    adapter: Any = sys.modules["pydantic"].TypeAdapter(annotation)
    return Codec(
        annotation,
        encode=partial(adapter.dump_json, **_dump_options()),
        decode=partial(adapter.validate_json, **_validate_options()),
        exact=frozenset(),
    )


def _annotation_parts(annotation: object) -> Iterator[object]:
    yield annotation
    for part in typing.get_args(annotation):
        yield from _annotation_parts(part)


def _revive(kind: Any, raw: Any) -> Any:
    """msgspec's way to ask for a class that it does not know; only models and `object` get past `_check_type`."""
    if kind is object:
        return raw
    try:
        return kind.model_validate_json(msgspec.json.encode(raw), **_validate_options())
    except ValueError as error:
        raise ValueError(_one_line(error)) from error


def _one_line(error: ValueError) -> str:
    """The first complaint of a pydantic ValidationError: `price: Input should be ...`."""
    if not hasattr(error, "errors"):
        return str(error)
    first: dict[str, Any] = cast("Any", error).errors(include_url=False, include_context=False)[0]
    return ": ".join(filter(None, (".".join(map(str, first["loc"])), first["msg"])))


# --- writing


def _simplify(value: Any) -> Any:
    """msgspec's way to ask for a class that it does not know."""
    if _is_model_class(type(value)):
        return msgspec.Raw(value.model_dump_json(**_dump_options()).encode())
    return _simplify_scalar(value)


def _simplify_canonical(value: Any) -> Any:
    if _is_model_class(type(value)):
        try:
            return msgspec.Raw(encode_sorted(value.model_dump(**_dump_options())))
        except Exception:  # a field that only pydantic can write; its sets then keep their order
            return value.model_dump(mode="json", **_dump_options())
    return _simplify_scalar(value)


def _simplify_scalar(value: Any) -> Any:
    """Subclasses of scalars (numpy.float64, markupsafe.Markup, ...) are written as what they extend."""
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int.__index__(value)
    if isinstance(value, float):
        return float.__float__(value)
    raise TypeError(f"a {_name_of(type(value))} has no form in JSON")


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
        return {_key_text(key): _ordered(child, level + 1) for key, child in value.items()}
    if isinstance(value, set | frozenset):
        texts = sorted(encode_sorted(_ordered(child, level + 1)) for child in value)
        return msgspec.Raw(b"[" + b",".join(texts) + b"]")
    if isinstance(value, list | tuple):
        return [_ordered(child, level + 1) for child in value]
    if _has_fields(type(value)):
        return {suffix[1:]: _ordered(child, level + 1) for suffix, child in _children(value)}
    return value


def _key_text(key: Any) -> str:
    (text,) = msgspec.json.decode(encode_plain({key: None}), type=dict[str, None])
    return text


# --- why not? (slow, only after a failure)


def refusal(value: object, where: str, error: Exception | None) -> NotEncodable:
    """The error that tells which part of a value cannot be written.

    `error` is what the encoder said; None when it wrote `null` for a float that JSON does not have.
    """
    path, reason = _find_fault(value, where) or (where, _reason(error))
    path = _shorten(path)
    hint = "was an `await` forgotten?" if hasattr(value, "__await__") else _HINT
    return NotEncodable(f"{path} cannot be stored: {reason}", path=path, hint=hint)


def _reason(error: Exception | None) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, UnicodeEncodeError):
        return "its text holds a lone surrogate, which UTF-8 does not have"
    return _one_line(error) if isinstance(error, ValueError) else str(error)


def _find_fault(value: object, where: str) -> tuple[str, str] | None:
    """The first part that cannot be written, depth first and without recursion."""
    waiting: list[Iterator[tuple[str, object]]] = [iter([(where, value)])]
    trail: list[str] = []
    above: list[int] = []
    while waiting:
        step = next(waiting[-1], None)
        if step is None:
            waiting.pop()
            if trail:
                trail.pop()
                above.pop()
            continue
        suffix, part = step
        reason = "it contains itself" if id(part) in above else _fault_of(part, len(waiting))
        if reason is not None:
            return "".join(trail) + suffix, reason
        if _is_container(part):
            trail.append(suffix)
            above.append(id(part))
            waiting.append(_children(part))
    return None


def _fault_of(part: object, level: int) -> str | None:
    """What is wrong with this part, its children left aside."""
    if level > LEVELS_MAX:
        return f"it is nested more than {LEVELS_MAX} levels deep"
    if isinstance(part, float) and part - part != 0.0:
        return f"JSON has no {float.__repr__(part)}"
    try:
        if isinstance(part, dict):
            _key_fault_probe(part)
        elif _is_model_class(type(part)) or not _is_container(part):
            encode_plain(part)
    except Exception as error:  # it is the answer
        return _reason(error)
    return None


def _key_fault_probe(part: dict[Any, Any]) -> None:
    for key in part:
        try:
            encode_plain({key: None})
        except TypeError as error:
            raise TypeError(f"its key {key!r:.100} is a {_name_of(type(key))}, and JSON keys are text") from error


def _has_non_finite(value: Any) -> bool:
    """Whether msgspec wrote `null` for a NaN or an infinity in here."""
    kind = type(value)
    if kind is float:
        return bool(value - value != 0.0)
    if kind in _SCALARS:
        return False
    if isinstance(value, dict):
        return any(map(_has_non_finite, value.values()))
    if isinstance(value, list | tuple | set | frozenset):
        return any(map(_has_non_finite, value))
    if isinstance(value, float):
        return _has_non_finite(float.__float__(value))
    return _has_fields(type(value)) and any(_has_non_finite(getattr(value, name, None)) for name in _field_names(value))


def _is_container(value: object) -> bool:
    return isinstance(value, dict | list | tuple | set | frozenset) or _has_fields(type(value))


def _kind_has_fields(kind: type) -> bool:
    known = (
        hasattr(kind, "__dataclass_fields__") or hasattr(kind, "__struct_fields__") or hasattr(kind, "__attrs_attrs__")
    )
    return known or _is_model_class(kind)


_has_fields: Callable[[type], bool] = lru_cache(maxsize=CODECS_CACHED_MAX)(_kind_has_fields)


def _children(value: Any) -> Iterator[tuple[str, object]]:
    """The parts of a container, each with what it adds to the path."""
    if isinstance(value, dict):
        return ((f"[{key!r:.100}]", child) for key, child in value.items())
    if isinstance(value, tuple) and hasattr(type(value), "_fields"):
        return ((f".{name}", child) for name, child in zip(cast("Any", value)._fields, value, strict=False))
    if isinstance(value, list | tuple):
        return ((f"[{index}]", child) for index, child in enumerate(value))
    if isinstance(value, set | frozenset):
        return (("[...]", child) for child in value)
    return ((f".{name}", getattr(value, name)) for name in _field_names(value) if hasattr(value, name))


def _field_names(value: Any) -> Iterable[str]:
    kind = type(value)
    if hasattr(kind, "__dataclass_fields__"):
        return cast("dict[str, object]", kind.__dataclass_fields__)
    if isinstance(value, msgspec.Struct):
        return value.__struct_fields__
    if _is_model_class(kind):
        return [*vars(value), *(value.model_extra or ())]
    return [attribute.name for attribute in kind.__attrs_attrs__]


def _name_of(kind: object) -> str:
    if not isinstance(kind, type) or typing.get_args(kind):
        return repr(kind)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _shorten(path: str) -> str:
    return path if len(path) <= PATH_CHARS_MAX else f"{path[: PATH_CHARS_MAX - 60]}…{path[-59:]}"

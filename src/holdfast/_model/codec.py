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

Known limits, all of JSON or of ISO 8601: a time zone comes back as its UTC offset (one with seconds is
refused), an instance of a subclass as the annotated class, and without an annotation a tuple as a list and
a key that is a number as text (two keys of one text are refused).
"""

# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false, reportUnknownMemberType=false
# (of a user's payload nothing is known)

from __future__ import annotations

import inspect
import re
import sys
import typing
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import lru_cache, partial
from typing import Any, Generic, TypeVar, cast

import msgspec

from holdfast._model.bounds import shown
from holdfast._model.faults import SCALARS, has_non_finite, has_odd_offset, refusal, refuse_like_keys, shorten
from holdfast._model.writing import (
    dump_options,
    encode_plain,
    is_model_class,
    name_of,
    one_line,
    told,
    validate_options,
)
from holdfast.errors import NotDecodable, NotEncodable, UsageError

T = TypeVar("T")

CODECS_CACHED_MAX = 4096

_HINT_CLASS = "use a dataclass, a msgspec.Struct or a pydantic model, or convert it in the step"
_UNTYPED: tuple[Any, ...] = (inspect.Parameter.empty, object, typing.NoReturn, typing.Never)
_OFFSET = re.compile(r':[0-9]{2}(?:\.[0-9]{1,6})?(?:Z|[+-][0-9]{2}:[0-9]{2})"')
"""The end of an instant with a time zone: mostly there is none, and values need not be looked through."""


class Codec(Generic[T]):
    """Writes and reads the values of one annotation. Get one from `codec_for`; safe to share between threads."""

    __slots__ = ("_decode", "_encode", "_exact", "_loose", "annotation")

    def __init__(
        self,
        annotation: object,
        *,
        encode: Callable[[T], bytes],
        decode: Callable[[str], T],
        exact: frozenset[type],
        loose: bool,
    ) -> None:
        self.annotation = annotation
        self._encode = encode
        self._decode = decode
        self._exact = exact
        self._loose = loose

    def encode(self, value: T, *, where: str = "value") -> str:
        """The value as compact JSON text, dictionaries in the order they were filled.

        Args:
            value: what to write. Whether it fits the annotation is for `settle` to find out.
            where: what the caller calls the value; the root of the path in an error.

        Raises:
            NotEncodable: the value or a part of it cannot be written; `path` says which.
        """
        text = self._written(value, where)
        self._check_kept(text, value, where)
        return text

    def _written(self, value: T, where: str) -> str:
        try:
            return self._encode(value).decode()
        except Exception as error:
            raise refusal(value, where, error) from error

    def _check_kept(self, text: str, value: T, where: str) -> None:
        """Refuse what the encoder wrote as something else without a word."""
        try:
            lossy = ("null" in text and has_non_finite(value)) or (
                type(value) not in SCALARS and _OFFSET.search(text) is not None and has_odd_offset(value)
            )
        except Exception as error:
            raise refusal(value, where, error) from error
        if lossy:
            raise refusal(value, where, None)

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
                f"{path} does not fit {name_of(self.annotation)}: {reason}",
                path=path,
                hint="start again with a right value; or, if the code has changed since, widen the annotation",
            ) from error

    def settle(self, value: T, *, where: str = "value") -> tuple[str, T]:
        """The text to store, and the value as every later replay will see it.

        Raises:
            NotEncodable: the value cannot be written, or does not fit its annotation.
        """
        text = self._written(value, where)
        if type(value) in self._exact:
            if "null" in text:
                self._check_kept(text, value, where)
            return text, value
        try:
            settled = self._decode(text)
            # What is the same has lost nothing. Classes may compare as they like; plain JSON does not.
            if self.annotation is Any and _is_same(settled, value):
                return text, settled
            self._check_kept(text, value, where)
            lost = text.count('":') if self._loose else 0
            lost = lost and lost - self._encode(settled).count(b'":')
        except NotEncodable:
            raise
        except Exception as error:
            self._check_kept(text, value, where)
            path, reason = self._misfit(text, where, error)
            raise NotEncodable(
                f"{path} does not fit its annotation {name_of(self.annotation)}: {reason}"
                f" (the value is a {name_of(type(value))})",
                path=path,
                hint="correct the annotation or the value",
            ) from error
        if lost:
            refuse_like_keys(value, where)
        if type(settled) is float and type(value) is int and settled != value:
            raise NotEncodable(
                f"{where} does not fit its annotation float: no float is exactly {shown(value)}",
                path=where,
                hint="annotate it with int",
            )
        return text, settled

    def _misfit(self, text: str, where: str, error: Exception) -> tuple[str, str]:
        """Where in the text it does not fit, and why."""
        if isinstance(error, RecursionError):
            return where, "nested too deeply"
        reason, _, place = told(error).partition(" - at `")
        steps = re.findall(r"\.[^.\[\]`]+|\[[^\]]*\]", place.partition("$")[2].rstrip("`"))
        with suppress(Exception):  # the anonymous path is still true, and the error that counts is the caller's
            steps = self._name_keys(text, steps, str(error))
        return shorten(where + "".join(steps)), reason or type(error).__name__

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


def _is_same(settled: object, value: object) -> bool:
    try:
        return bool(settled == value)
    except Exception:  # the value's own code: then nothing is known
        return False


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
    except UsageError:
        raise
    except Exception:
        return _make_codec(annotation)  # unhashable, such as `Annotated[int, []]`


@lru_cache(maxsize=CODECS_CACHED_MAX)
def _cached_codec(annotation: object) -> Codec[Any]:
    return _make_codec(annotation)


def _make_codec(annotation: object) -> Codec[Any]:
    if any(annotation is each for each in _UNTYPED):
        annotation = Any
    if annotation is Any:
        return Codec(annotation, encode=encode_plain, decode=msgspec.json.decode, exact=SCALARS, loose=True)
    try:
        exact, loose = _check_type(annotation)
        decode = _decoder_of(annotation)
    except Exception as error:  # mostly of msgspec; an annotation may be any object, with code of its own
        if isinstance(error, NotEncodable):
            raise
        adapted = _pydantic_codec(annotation)
        if adapted is not None:
            return adapted
        raise UsageError(
            f"the annotation {name_of(annotation)} cannot be used for stored values: {told(error)}",
            hint="for a union of classes use tagged msgspec structs: `class A(Struct, tag=True)`",
        ) from error
    return Codec(annotation, encode=encode_plain, decode=decode, exact=exact, loose=loose)


def _decoder_of(annotation: object) -> Callable[[str], Any]:
    if is_model_class(annotation):
        return partial(cast("Any", annotation).model_validate_json, **validate_options())
    return msgspec.json.Decoder(cast("Any", annotation), dec_hook=_revive).decode


def _check_type(annotation: object) -> tuple[frozenset[type], bool]:
    """Refuses classes that msgspec does not know.

    Returns:
        The scalar types that need no second look, and whether dictionaries may have two keys that become one text.
    """
    from msgspec import inspect as types

    shape = types.type_info(cast("Any", annotation))
    loose = False
    for node in _type_nodes(shape):
        loose = loose or isinstance(node, types.AnyType | types.CustomType)
        loose = loose or (isinstance(node, types.DictType) and not isinstance(node.key_type, types.StrType))
        if isinstance(node, types.CustomType) and node.cls is not object and not is_model_class(node.cls):
            raise NotEncodable(
                f"values of {name_of(node.cls)} cannot be stored (in the annotation {name_of(annotation)})",
                hint=_HINT_CLASS,
            )
    plain = [(types.StrType(), str), (types.IntType(), int), (types.FloatType(), float)]
    plain += [(types.BoolType(), bool), (types.NoneType(), type(None))]
    members = shape.types if isinstance(shape, types.UnionType) else (shape,)
    return frozenset(kind for unbounded, kind in plain if unbounded in members), loose


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


def _pydantic_codec(annotation: object) -> Codec[Any] | None:
    """For what only pydantic can tell apart, such as a union of its models; None when there is no model in it."""
    if not any(is_model_class(part) for part in _annotation_parts(annotation)):
        return None
    adapter: Any = sys.modules["pydantic"].TypeAdapter(annotation)
    return Codec(
        annotation,
        encode=partial(adapter.dump_json, **dump_options()),
        decode=partial(adapter.validate_json, **validate_options()),
        exact=frozenset(),
        loose=True,
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
        return kind.model_validate_json(msgspec.json.encode(raw), **validate_options())
    except ValueError as error:
        raise ValueError(one_line(error)) from error

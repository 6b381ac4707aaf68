"""What an expression stands for, as far as that can be seen without running anything.

A module that was imported knows what its names mean, whatever they were imported as. So names are looked up where the
code would find them (locals, closure, globals, built-ins), attributes of modules and classes statically, and the rest
is followed only as far as it is plain: `Path(x) / "y"` is a path, `{a} | b` is a set, a parameter has its annotation's
class. Everything else is None: not known.
"""

from __future__ import annotations

import collections.abc
import inspect
import sys
import typing
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType, UnionType
from typing import Any, Final, ForwardRef, TypeAlias

from holdfast.cli.source import rules

MISSING: Final = object()


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """The very object: a module, a function, a class, a value of the module. Compared by identity."""

    value: Any

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Known) and other.value is self.value

    def __hash__(self) -> int:
        return id(self.value)


@dataclass(frozen=True, slots=True)
class Dotted:
    """Something of a module that is not loaded yet, by its path."""

    path: str


@dataclass(frozen=True, slots=True)
class Instance:
    """Some instance of a class. `element`: what it iterates over; `value`: what `instance[...]` is."""

    kind: type
    element: Meaning = None
    value: Meaning = None


@dataclass(frozen=True, slots=True)
class Method:
    """An attribute of an instance: of one that the module holds (`shared`), or of any."""

    kind: type
    name: str
    shared: bool = False


@dataclass(frozen=True, slots=True)
class SetOf:
    """A set. `ordered`: its elements hash alike in every process, so it iterates in the same order."""

    ordered: bool


Meaning: TypeAlias = "Known | Dotted | Instance | Method | SetOf | None"

_SETS: Final = (set, frozenset, collections.abc.Set, collections.abc.MutableSet)
_SERIES: Final = (list, collections.abc.Sequence, collections.abc.Iterable, collections.abc.Collection)
_MAPPINGS: Final = (dict, collections.abc.Mapping, collections.abc.MutableMapping)
_STAYS_PATH: Final = frozenset({"parent", "joinpath", "with_suffix", "with_name", "with_stem", "absolute"})
_ORDERED_KINDS: Final = (int, float, complex, Decimal, Fraction)
_ORDERED_NAMES: Final = frozenset({"_asyncio.Task", "_asyncio.Future", "asyncio.Task", "asyncio.Future"})


def attribute(base: Meaning, name: str) -> Meaning:
    """What `base.name` stands for."""
    match base:
        case Known(ModuleType() as module):
            found = vars(module).get(name, MISSING)
            return Dotted(f"{module.__name__}.{name}") if found is MISSING else known(found)
        case Known(type() as kind):
            return _of_class(kind, name)
        case Known(value) if not isinstance(value, FunctionType):
            return Method(type(value), name, shared=True)
        case Instance(kind):
            return base if name in _STAYS_PATH and "pathlib.Path" in mro_paths(kind) else Method(kind, name)
        case Dotted(path):
            return Dotted(f"{path}.{name}")
        case _:
            return None


def known(value: Any) -> Meaning:
    """What a value of a module is good for: a set is judged by its elements, a proxy is left alone."""
    if _answers_for_another(type(value)):
        return None
    if isinstance(value, set | frozenset):
        return SetOf(bool(value) and all(isinstance(each, _ORDERED_KINDS) for each in value))
    return Known(value)


def _answers_for_another(kind: type) -> bool:
    """Whether looking at its instances may run code: lazy settings, proxies of a request, mocks."""
    if issubclass(kind, type) or kind.__module__ in ("typing", "typing_extensions"):
        return False
    lookups = (vars(base).get(name) for base in kind.__mro__ for name in ("__getattr__", "__getattribute__"))
    return any(isinstance(lookup, FunctionType) for lookup in lookups)


def generic(kind: object, arguments: Sequence[Meaning]) -> Meaning:
    """What a value with the annotation ``kind[arguments]`` is; the arguments are what their values are."""
    origin: object = typing.get_origin(kind) or kind
    if any(origin is each for each in _SETS):
        return SetOf(bool(arguments) and is_ordered(arguments[0]))
    if not isinstance(origin, type):
        return None
    if any(origin is each for each in _MAPPINGS) and len(arguments) == 2:
        return Instance(origin, *arguments)
    if arguments and (any(origin is each for each in _SERIES) or (origin is tuple and arguments[1:] == [None])):
        return Instance(origin, arguments[0], arguments[0])
    return Instance(origin)


def of_annotation(annotation: object, of_text: Callable[[str], Meaning]) -> Meaning:
    """What a value with this annotation is. An annotation may be text, all of it or parts."""
    if isinstance(annotation, ForwardRef):
        annotation = annotation.__forward_arg__
    if isinstance(annotation, str):
        return of_text(annotation)
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return of_annotation(arguments[0], of_text)
    if origin in (typing.Union, UnionType):
        rest = [each for each in arguments if each is not type(None)]
        return of_annotation(rest[0], of_text) if len(rest) == 1 else None
    return generic(annotation, [of_annotation(each, of_text) for each in arguments])


def path_of(meaning: Meaning) -> str | None:
    """The dotted path under which the rules know it."""
    match meaning:
        case Dotted(path):
            return path
        case Known(value):
            return _path(value)
        case Method(kind, name):
            return next((f"{_path(base)}().{name}" for base in kind.__mro__ if _path(base) in rules.METHODS), None)
        case _:
            return None


def function_of(meaning: Meaning) -> FunctionType | None:
    """The plain function that a call or a look would run, if it is one."""
    match meaning:
        case Known(FunctionType() as function):
            return function
        case Known(MethodType() as method):
            return method.__func__ if isinstance(method.__func__, FunctionType) else None
        case Known(value) if isinstance(getattr(value, "__wrapped__", None), FunctionType):
            wrapped: FunctionType = value.__wrapped__  # `functools.cache` and the like
            return wrapped
        case Method(kind, name):
            return _plain(inspect.getattr_static(kind, name, None))
        case _:
            return None


def is_set(meaning: Meaning) -> bool:
    """Whether it is a class of sets, or typing's name for one."""
    return isinstance(meaning, Known) and isinstance(generic(meaning.value, []), SetOf)


def is_ordered(meaning: Meaning) -> bool:
    """Whether such values hash alike in every process; tasks of a workflow's loop do, by their number."""
    if not isinstance(meaning, Instance):
        return False
    return issubclass(meaning.kind, _ORDERED_KINDS) or any(path in _ORDERED_NAMES for path in mro_paths(meaning.kind))


def is_mapping(meaning: Meaning) -> bool:
    """Whether it is a dict, or something that is used like one."""
    kind = (
        meaning.kind if isinstance(meaning, Instance) else type(meaning.value) if isinstance(meaning, Known) else None
    )
    return kind is not None and issubclass(kind, collections.abc.Mapping)


def mro_paths(kind: type) -> Iterable[str | None]:
    """The paths of a class and of its bases."""
    return (_path(base) for base in kind.__mro__)


def _of_class(kind: type, name: str) -> Meaning:
    for base in kind.__mro__:
        if f"{_path(base)}.{name}" in rules.CALLS:
            return Dotted(f"{_path(base)}.{name}")
    if kind is dict:
        return Dotted(f"builtins.dict.{name}")
    found = _plain(inspect.getattr_static(kind, name, None))
    return None if found is None else Known(found)


def _plain(found: object) -> FunctionType | None:
    if isinstance(found, property):
        found = found.fget
    if isinstance(found, staticmethod | classmethod):
        found = found.__func__
    wrapped = getattr(found, "func", None)  # functools.cached_property
    found = wrapped if isinstance(wrapped, FunctionType) else found
    return found if isinstance(found, FunctionType) else None


def _path(value: Any) -> str | None:
    """The canonical path of a module, class or function, wherever it was imported to."""
    try:
        listed = _listed(len(sys.modules)).get(id(value))
    except TypeError:
        listed = None
    if listed is not None and listed[0] is value:
        return listed[1]
    if isinstance(value, ModuleType):
        return value.__name__
    if isinstance(value, type):
        return f"{value.__module__}.{value.__qualname__}"
    if isinstance(value, BuiltinFunctionType | MethodType) and isinstance(value.__self__, type):
        return f"{_path(value.__self__)}.{value.__name__}"
    if isinstance(value, FunctionType | BuiltinFunctionType):
        return f"{value.__module__}.{value.__qualname__}"
    return None


@lru_cache(maxsize=1)
def _listed(_modules: int) -> dict[int, tuple[Any, str]]:
    """What the rules name and is loaded, by identity: `from random import randint` is a bound method of something."""
    tables: list[Iterable[str]] = [rules.CALLS, rules.CLASSES, rules.WITHOUT_ARGUMENTS, rules.VALUES, rules.METHODS]
    listed: dict[int, tuple[Any, str]] = {}
    for path in (path for table in tables for path in table):
        value = _loaded(path)
        if value is not MISSING:
            listed.setdefault(id(value), (value, path))
    return listed


def _loaded(path: str) -> Any:
    """The object at a path, if its module is loaded."""
    module, _, name = path.rpartition(".")
    if module in sys.modules:
        return vars(sys.modules[module]).get(name, MISSING)
    return MISSING

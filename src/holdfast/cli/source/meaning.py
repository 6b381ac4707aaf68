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
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import cache
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any, Final, TypeAlias

from holdfast.cli.source import rules

MISSING: Final = object()


@dataclass(frozen=True, slots=True)
class Known:
    """The very object: a module, a function, a class, a value of the module."""

    value: Any


@dataclass(frozen=True, slots=True)
class Dotted:
    """Something of a module that is not loaded yet, by its path."""

    path: str


@dataclass(frozen=True, slots=True)
class Instance:
    """Some instance of a class."""

    kind: type


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


Meaning: TypeAlias = Known | Dotted | Instance | Method | SetOf | None

_SETS: Final = (set, frozenset, collections.abc.Set, collections.abc.MutableSet)
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
            return Method(kind, name)
        case Dotted(path):
            return Dotted(f"{path}.{name}")
        case _:
            return None


def known(value: Any) -> Meaning:
    """What a value of a module is good for: a set is judged by its elements."""
    if isinstance(value, set | frozenset):
        return SetOf(all(isinstance(each, _ORDERED_KINDS) for each in value))
    return Known(value)


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
    if not isinstance(meaning, Known):
        return False
    origin = getattr(meaning.value, "__origin__", meaning.value)
    return any(origin is kind for kind in _SETS)


def is_ordered_kind(meaning: Meaning) -> bool:
    """Whether values of this class hash alike in every process; tasks of a workflow's loop do, by their number."""
    if not isinstance(meaning, Known) or not isinstance(meaning.value, type):
        return False
    return issubclass(meaning.value, _ORDERED_KINDS) or any(_path(k) in _ORDERED_NAMES for k in meaning.value.__mro__)


def mro_paths(kind: type) -> Iterable[str | None]:
    """The paths of a class and of its bases."""
    return (_path(base) for base in kind.__mro__)


def _of_class(kind: type, name: str) -> Meaning:
    for base in kind.__mro__:
        if f"{_path(base)}.{name}" in rules.CALLS:
            return Dotted(f"{_path(base)}.{name}")
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
        listed = _listed().get(id(value))
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


@cache
def _listed() -> dict[int, tuple[Any, str]]:
    """What the rules name, by identity: `from random import randint as r` is a bound method of a hidden instance."""
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

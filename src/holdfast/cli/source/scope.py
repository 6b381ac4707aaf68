"""The names of one function: what is bound in it, and what it finds outside."""

from __future__ import annotations

import ast
import builtins
import sys
import typing
from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeAlias

from holdfast.cli.source.meaning import (
    MISSING,
    Dotted,
    Instance,
    Known,
    Meaning,
    SetOf,
    attribute,
    function_of,
    is_ordered_kind,
    is_set,
    known,
    path_of,
)

Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
_DEPTH_MAX: Final = 20
_TASKS: Final = frozenset({"create_task", "ensure_future"})
_SET_METHODS: Final = frozenset({"union", "intersection", "difference", "symmetric_difference", "copy"})


class Scope:
    """Resolves expressions as they stand in a function.

    Args:
        outside: what the function finds outside of itself: its closure, then its module.
        parent: the scope of the function around it, for one that is defined inside another.
    """

    def __init__(self, function: Function, outside: Mapping[str, Any], parent: Scope | None = None) -> None:
        self._outside = outside
        self._parent = parent
        self._bound: dict[str, list[ast.AST | None]] = {}
        self._depth = 0
        for name, value in _bindings(function):
            self._bound.setdefault(name, []).append(value)

    def resolve(self, node: ast.AST | None) -> Meaning:
        """What an expression stands for; none where it cannot be seen."""
        if self._depth >= _DEPTH_MAX:  # such as `x = x or {}`
            return None
        self._depth += 1
        try:
            return self._resolve(node)
        finally:
            self._depth -= 1

    def _resolve(self, node: ast.AST | None) -> Meaning:
        match node:
            case ast.Name(id=name):
                return self._name(name)
            case ast.Attribute(value=value, attr=attr):
                return attribute(self.resolve(value), attr)
            case ast.Call():
                return self._called(node)
            case ast.Set(elts=elements):
                return SetOf(all(self._is_ordered(each) for each in elements))
            case ast.SetComp(elt=element):
                return SetOf(self._is_ordered(element))
            case ast.BinOp(left=left, op=op, right=right):
                return self._combined(self.resolve(left), op, self.resolve(right))
            case ast.IfExp(body=body, orelse=orelse):
                return _either(self.resolve(body), self.resolve(orelse))
            case ast.NamedExpr(value=value):
                return self.resolve(value)
            case _:
                return None

    def annotated(self, node: ast.AST | None) -> Meaning:
        """What a value with this annotation is."""
        match node:
            case ast.Constant(value=str(text)):
                try:
                    return self.annotated(ast.parse(text, mode="eval").body)
                except SyntaxError:
                    return None
            case ast.BinOp(left=left, op=ast.BitOr(), right=ast.Constant(value=None)):
                return self.annotated(left)
            case ast.Subscript(value=value, slice=inner):
                kind = self.resolve(value)
                if isinstance(kind, Known) and (kind.value is typing.Optional or kind.value is typing.Annotated):
                    return self.annotated(inner.elts[0] if isinstance(inner, ast.Tuple) else inner)
                if is_set(kind):
                    return SetOf(is_ordered_kind(self.resolve(inner)))
            case _:
                kind = self.resolve(node)
        if is_set(kind):
            return SetOf(ordered=False)
        return Instance(kind.value) if isinstance(kind, Known) and isinstance(kind.value, type) else None

    # Leaves.

    def _name(self, name: str) -> Meaning:
        if name in self._bound:
            return self._local(name)
        if self._parent is not None:
            return self._parent.resolve(ast.Name(id=name))
        found = self._outside.get(name, MISSING)
        if found is MISSING:
            found = vars(builtins).get(name, MISSING)
        return None if found is MISSING else known(found)

    def _local(self, name: str) -> Meaning:
        """What all of its bindings agree on."""
        meanings = [self._binding(name, node) for node in self._bound[name]]
        return meanings[0] if all(meaning == meanings[0] for meaning in meanings) else None

    def _binding(self, name: str, node: ast.AST | None) -> Meaning:
        match node:
            case ast.arg(annotation=annotation):
                return self.annotated(annotation)
            case ast.AnnAssign(annotation=annotation, value=value):
                meaning = self.resolve(value)
                return self.annotated(annotation) if meaning is None else meaning
            case ast.Import(names=names):
                return _imported(names, name)
            case ast.ImportFrom(module=module, names=names, level=0):
                original = next(alias.name for alias in names if (alias.asname or alias.name) == name)
                return attribute(_module(module or ""), original)
            case ast.expr():
                return self.resolve(node)
            case _:
                return None

    def _called(self, node: ast.Call) -> Meaning:
        function = self.resolve(node.func)
        if is_set(function):
            return SetOf(bool(node.args) and self._has_ordered_elements(node.args[0]))
        if isinstance(node.func, ast.Attribute) and node.func.attr in _SET_METHODS:
            base = self.resolve(node.func.value)
            return base if isinstance(base, SetOf) else None
        if isinstance(function, Known) and isinstance(function.value, type):
            return Instance(function.value)
        plain = function_of(function)
        if plain is not None and plain.__annotations__.get("return") is not None:
            return _returned(plain.__annotations__["return"])
        return None

    def _has_ordered_elements(self, node: ast.AST) -> bool:
        match node:
            case ast.List(elts=elements) | ast.Tuple(elts=elements):
                return all(self._is_ordered(each) for each in elements)
            case ast.ListComp(elt=element) | ast.GeneratorExp(elt=element):
                return self._is_ordered(element)
            case ast.Call(func=function):
                return path_of(self.resolve(function)) == "builtins.range"
            case _:
                meaning = self.resolve(node)
                return isinstance(meaning, SetOf) and meaning.ordered

    def _is_ordered(self, node: ast.AST) -> bool:
        """Whether an element hashes alike in every process: numbers, and tasks and step calls of the run's loop."""
        match node:
            case ast.Constant(value=value):
                return isinstance(value, int | float) or value is None
            case ast.Call(func=ast.Attribute(attr=attr)) if attr in _TASKS:
                return True
            case ast.Call(func=function):
                meaning = self.resolve(function)
                return isinstance(meaning, Known) and (
                    type(meaning.value).__name__ in {"Step", "AsyncStep"}
                    or is_ordered_kind(meaning)
                    or path_of(meaning) in {"asyncio.tasks.create_task", "asyncio.tasks.ensure_future"}
                )
            case _:
                meaning = self.resolve(node)
                return isinstance(meaning, Instance) and is_ordered_kind(Known(meaning.kind))

    def _combined(self, left: Meaning, op: ast.operator, right: Meaning) -> Meaning:
        sets = [each for each in (left, right) if isinstance(each, SetOf)]
        if sets and isinstance(op, ast.BitOr | ast.BitAnd | ast.Sub | ast.BitXor):
            return SetOf(all(each.ordered for each in sets))
        if isinstance(op, ast.Div) and isinstance(left, Instance) and left.kind.__module__.startswith("pathlib"):
            return left
        return None


def _bindings(function: Function) -> Iterator[tuple[str, ast.AST | None]]:
    """Every name that the function binds, with what it is bound to where that can tell something."""
    arguments = function.args
    for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
        yield argument.arg, argument
    for rest in (arguments.vararg, arguments.kwarg):
        if rest is not None:
            yield rest.arg, None
    outer: set[str] = set()
    body = function.body if isinstance(function.body, list) else [function.body]
    found = [binding for statement in body for binding in _bound_in(statement, outer)]
    yield from ((name, node) for name, node in found if name not in outer)


def _bound_in(node: ast.AST, outer: set[str]) -> Iterator[tuple[str, ast.AST | None]]:
    match node:
        case ast.Global(names=names) | ast.Nonlocal(names=names):
            outer.update(names)
        case ast.Assign(targets=[ast.Name(id=name)], value=value):
            yield name, value
            yield from _bound_in(value, outer)
            return
        case ast.AnnAssign(target=ast.Name(id=name), value=value):
            yield name, node
            if value is not None:
                yield from _bound_in(value, outer)
            return
        case ast.NamedExpr(target=ast.Name(id=name), value=value):
            yield name, value
            yield from _bound_in(value, outer)
            return
        case ast.AugAssign(value=value):  # a set stays one
            yield from _bound_in(value, outer)
            return
        case ast.Import(names=aliases):
            yield from ((alias.asname or alias.name.partition(".")[0], node) for alias in aliases)
        case ast.ImportFrom(names=aliases):
            yield from ((alias.asname or alias.name, node) for alias in aliases)
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            yield node.name, None
            return
        case ast.Lambda():
            return
        case ast.ExceptHandler(name=str(name)):
            yield name, None
        case ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)) | ast.MatchMapping(rest=str(name)):
            yield name, None
        case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
            yield name, None
    for child in ast.iter_child_nodes(node):
        yield from _bound_in(child, outer)


def _either(one: Meaning, other: Meaning) -> Meaning:
    if isinstance(one, SetOf) and isinstance(other, SetOf):
        return SetOf(one.ordered and other.ordered)
    return one if one == other else None


def _returned(annotation: object) -> Meaning:
    """What a function returns, by its annotation as it was evaluated; text is not looked into."""
    origin = getattr(annotation, "__origin__", annotation)
    if origin in (set, frozenset):
        element = next(iter(getattr(annotation, "__args__", ())), None)
        return SetOf(is_ordered_kind(Known(element)))
    return Instance(origin) if isinstance(origin, type) else None


def _imported(aliases: list[ast.alias], name: str) -> Meaning:
    for alias in aliases:
        if alias.asname == name:
            return _module(alias.name)
        if alias.asname is None and alias.name.partition(".")[0] == name:
            return _module(name)
    return None


def _module(name: str) -> Meaning:
    return Known(sys.modules[name]) if name in sys.modules else Dotted(name)

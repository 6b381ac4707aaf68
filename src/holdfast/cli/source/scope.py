"""The names of one function: what is bound in it, and what it finds outside."""

from __future__ import annotations

import ast
import builtins
import inspect
import sys
import typing
from collections.abc import Callable, Iterator, KeysView, Mapping, ValuesView
from types import FunctionType
from typing import Any, Final, TypeAlias

from holdfast._flow.definitions import Step
from holdfast.cli.source.meaning import (
    MISSING,
    Dotted,
    Instance,
    Known,
    Meaning,
    SetOf,
    attribute,
    function_of,
    generic,
    is_mapping,
    is_ordered,
    is_set,
    known,
    of_annotation,
    path_of,
)

Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
TreeOf: TypeAlias = Callable[[FunctionType], Function | None]
"""The tree of a function; none where its source is not to be had."""
_DEPTH_MAX: Final = 20
_TASKS: Final = frozenset({"create_task", "ensure_future"})
_SET_METHODS: Final = frozenset({"union", "intersection", "difference", "symmetric_difference", "copy"})
_SET_OPERATORS: Final = (ast.BitOr, ast.BitAnd, ast.Sub, ast.BitXor)
_NOTHING: Final = ast.Lambda(
    args=ast.arguments(posonlyargs=[], args=[], kwonlyargs=[], kw_defaults=[], defaults=[]), body=ast.Constant(None)
)


class Others:
    """Other functions, for what they return and what they make of `self`; each is looked into once.

    Args:
        tree_of: finds the tree of one.
    """

    def __init__(self, tree_of: TreeOf) -> None:
        self.tree_of = tree_of
        self._known: dict[object, Meaning] = {}

    def once(self, key: object, look: Callable[[], Meaning]) -> Meaning:
        """What `look` finds; while it looks, which may lead here again, nothing is known."""
        if key not in self._known:
            self._known[key] = None
            self._known[key] = look()
        return self._known[key]


class Scope:
    """Resolves expressions as they stand in a function.

    Args:
        outside: what the function finds outside of itself: its closure, then its module.
        others: functions that are called.
        parent: the scope of the function around it, for one that is defined inside another.
        owner: what the first parameter of a method is.
        depth: how deep the look-ups are that led here.
    """

    def __init__(
        self,
        function: Function,
        outside: Mapping[str, Any],
        others: Others,
        *,
        parent: Scope | None = None,
        owner: Meaning = None,
        depth: int = 0,
    ) -> None:
        self._outside = outside
        self._others = others
        self._parent = parent
        self._owner = owner
        self._first = next(iter([*function.args.posonlyargs, *function.args.args]), None)
        self._bound: dict[str, list[ast.AST | None]] = {}
        self._names: dict[str, Meaning] = {}
        self._depth = depth
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
                return self._attribute(self.resolve(value), attr)
            case ast.Call():
                return self._called(node)
            case ast.Await(value=value):
                return self.resolve(value)
            case ast.Subscript(value=value, slice=ast.Slice()):
                return self.resolve(value)
            case ast.Subscript(value=value):
                base = self.resolve(value)
                return base.value if isinstance(base, Instance) else None
            case ast.Starred(value=value):  # stands for each of its elements, see `_bound_in`
                base = self.resolve(value)
                return base.element if isinstance(base, Instance) else None
            case ast.Dict() | ast.DictComp():
                return Instance(dict)
            case ast.Set(elts=elements):
                return SetOf(all(self._is_ordered(each) for each in elements))
            case ast.SetComp(elt=element):
                return SetOf(self._is_ordered(element))
            case ast.BinOp(left=left, op=op, right=right):
                return self._combined(self.resolve(left), op, self.resolve(right))
            case ast.IfExp(body=body, orelse=orelse):
                return self._either([body, orelse])
            case ast.BoolOp(op=ast.Or(), values=values):
                return self._either(values)
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
                arguments = inner.elts if isinstance(inner, ast.Tuple) else [inner]
                if isinstance(kind, Known) and (kind.value is typing.Optional or kind.value is typing.Annotated):
                    return self.annotated(arguments[0])
                return generic(kind.value, [*map(self.annotated, arguments)]) if isinstance(kind, Known) else None
            case _:
                kind = self.resolve(node)
                return generic(kind.value, []) if isinstance(kind, Known) else None

    def is_global(self, name: str) -> bool:
        """Whether the function binds a name of its module."""
        return name not in self._bound and (self._parent is None or self._parent.is_global(name))

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
        """What all of its bindings agree on; while they are looked at, which may lead here again, nothing is known."""
        if name not in self._names:
            self._names[name] = None
            meanings = {self._binding(name, node) for node in self._bound[name]}
            self._names[name] = meanings.pop() if len(meanings) == 1 else None
        return self._names[name]

    def _binding(self, name: str, node: ast.AST | None) -> Meaning:
        match node:
            case ast.arg(annotation=None) if node is self._first:
                return self._owner
            case ast.arg(annotation=annotation):
                return self.annotated(annotation)
            case ast.AnnAssign(annotation=annotation, value=value):
                meaning, said = self.resolve(value), self.annotated(annotation)
                return said if meaning is None or isinstance(said, SetOf) else meaning
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
        if isinstance(node.func, ast.Attribute):
            base = self.resolve(node.func.value)
            if isinstance(base, SetOf) and node.func.attr in _SET_METHODS:
                return base
            if is_mapping(base) and node.func.attr in ("keys", "values"):
                return _view(base, node.func.attr)
        if path_of(function) == "builtins.super" and not node.args:
            return self._super()
        match function:
            case Known(type() as kind):
                return Instance(kind)
            case Known(Step() as step):
                return self._annotated_return(step.function)
            case Instance():  # of a path's method
                return function
            case _:
                plain = function_of(function)
                return None if plain is None else self._returned(plain)

    def _super(self) -> Meaning:
        match self._owner if self._parent is None else None:
            case Instance(kind) | Known(type() as kind) if len(kind.__mro__) > 1:
                return Instance(kind.__mro__[1])
            case _:
                return None

    def _returned(self, function: FunctionType) -> Meaning:
        """What a function returns: as its annotation says, or where all of its `return` agree."""
        if "return" in function.__annotations__:
            return self._annotated_return(function)
        return self._others.once(function, lambda: self._agreed_return(function))

    def _agreed_return(self, function: FunctionType) -> Meaning:
        tree = self._others.tree_of(function)
        if tree is None:
            return None
        scope = Scope(tree, function.__globals__, self._others, depth=self._depth)
        returned = {scope.resolve(value) for value in _returns(tree)}
        return returned.pop() if len(returned) == 1 else None

    def _annotated_return(self, function: Any) -> Meaning:
        annotation = getattr(function, "__annotations__", {}).get("return")
        return None if annotation is None else self._said(annotation, getattr(function, "__globals__", {}))

    def _said(self, annotation: object, outside: Mapping[str, Any]) -> Meaning:
        """What a value is whose annotation stands in another module."""
        there = Scope(_NOTHING, outside, self._others, depth=self._depth)
        return of_annotation(annotation, lambda text: there.annotated(ast.Constant(text)))

    def _attribute(self, base: Meaning, name: str) -> Meaning:
        """What `base.name` stands for; a field of an instance is what its class says of it."""
        match base:
            case Instance(kind):
                meaning = self._field(kind, name)
            case Known(value) if not isinstance(value, FunctionType | type) and not inspect.ismodule(value):
                meaning = self._field(type(value), name)
            case _:
                meaning = None
        return attribute(base, name) if meaning is None else meaning

    def _field(self, kind: type, name: str) -> Meaning:
        static = inspect.getattr_static(kind, name, MISSING)
        if callable(static) or isinstance(static, property | classmethod | staticmethod) or hasattr(static, "func"):
            return None
        for base in kind.__mro__:
            annotation = inspect.get_annotations(base).get(name, MISSING)
            if annotation is not MISSING:
                return self._said(annotation, vars(sys.modules.get(base.__module__, builtins)))
        if static is not MISSING and not inspect.isdatadescriptor(static):
            return known(static)
        return self._others.once((kind, name), lambda: self._assigned(kind, name))

    def _assigned(self, kind: type, name: str) -> Meaning:
        """What `__init__` assigns to a field."""
        function = inspect.getattr_static(kind, "__init__", None)
        tree = self._others.tree_of(function) if isinstance(function, FunctionType) else None
        if tree is None or not isinstance(function, FunctionType) or not tree.args.args:
            return None
        scope = Scope(tree, function.__globals__, self._others, owner=Instance(kind), depth=self._depth)
        me = tree.args.args[0].arg
        found = {scope.resolve(value) for value in _values_of(tree, me, name)}
        return found.pop() if len(found) == 1 else None

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
                    isinstance(meaning.value, Step)
                    or (isinstance(meaning.value, type) and is_ordered(Instance(meaning.value)))
                    or path_of(meaning) in {"asyncio.tasks.create_task", "asyncio.tasks.ensure_future"}
                )
            case _:
                return is_ordered(self.resolve(node))

    def _combined(self, left: Meaning, op: ast.operator, right: Meaning) -> Meaning:
        sets = [each for each in map(_as_set, (left, right)) if each is not None]
        if sets and isinstance(op, _SET_OPERATORS):
            return SetOf(all(each.ordered for each in sets))
        if isinstance(op, ast.Div) and isinstance(left, Instance) and left.kind.__module__.startswith("pathlib"):
            return left
        return None

    def _either(self, nodes: list[ast.expr]) -> Meaning:
        """One of several expressions: what they agree on; an empty literal may be anything, and one set makes a set."""
        meanings = [self.resolve(node) for node in nodes if not _is_empty(node)]
        if meanings and all(isinstance(each, SetOf) for each in meanings):
            return SetOf(all(isinstance(each, SetOf) and each.ordered for each in meanings))
        return meanings[0] if len(set(meanings)) == 1 else None


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
        case ast.For(target=ast.Name(id=name), iter=values) | ast.comprehension(target=ast.Name(id=name), iter=values):
            yield name, ast.Starred(value=values)
            for child in ast.iter_child_nodes(node):
                if child is not node.target:
                    yield from _bound_in(child, outer)
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


def _is_empty(node: ast.expr) -> bool:
    match node:
        case ast.List(elts=[]) | ast.Tuple(elts=[]) | ast.Constant(value=None):
            return True
        case ast.Call(func=ast.Name(id="set" | "frozenset"), args=[]):
            return True
        case _:
            return False


def _view(mapping: Meaning, name: str) -> Meaning:
    """`keys()` or `values()` of a mapping."""
    element, value = (mapping.element, mapping.value) if isinstance(mapping, Instance) else (None, None)
    return Instance(KeysView, element) if name == "keys" else Instance(ValuesView, value)


def _as_set(meaning: Meaning) -> SetOf | None:
    """An operand of ``a & b`` as a set; the keys of a dict become one by it."""
    if isinstance(meaning, Instance) and meaning.kind is KeysView:
        return SetOf(is_ordered(meaning.element))
    return meaning if isinstance(meaning, SetOf) else None


def _returns(function: Function) -> Iterator[ast.expr | None]:
    """What a function returns, without those that are defined in it."""
    if isinstance(function, ast.Lambda):
        yield function.body
        return
    todo: list[ast.AST] = [*function.body]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Return):
            yield node.value
        elif isinstance(node, ast.Yield | ast.YieldFrom):
            yield None
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef):
            todo.extend(ast.iter_child_nodes(node))


def _values_of(function: Function, me: str, name: str) -> Iterator[ast.expr]:
    """What is assigned to ``me.name`` in a function."""
    for node in ast.walk(function):
        match node:
            case ast.Assign(targets=[ast.Attribute(value=ast.Name(id=owner), attr=attr)], value=value):
                if (owner, attr) == (me, name):
                    yield value
            case ast.AnnAssign(target=ast.Attribute(value=ast.Name(id=owner), attr=attr), value=ast.expr() as value):
                if (owner, attr) == (me, name):
                    yield value
            case _:
                pass


def _imported(aliases: list[ast.alias], name: str) -> Meaning:
    for alias in aliases:
        if alias.asname == name:
            return _module(alias.name)
        if alias.asname is None and alias.name.partition(".")[0] == name:
            return _module(name)
    return None


def _module(name: str) -> Meaning:
    return Known(sys.modules[name]) if name in sys.modules else Dotted(name)

"""Reading one function: the places that cannot replay, and the functions that it goes on into."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import FunctionType
from typing import Any, Final

from holdfast._flow.definitions import Step, Workflow
from holdfast.cli.source import rules
from holdfast.cli.source.meaning import Instance, Known, Meaning, Method, SetOf, function_of, mro_paths, path_of
from holdfast.cli.source.rules import Rule
from holdfast.cli.source.scope import Function, Others, Scope

# Callables to which the order of what they are given makes no difference.
_BUILTIN_CALM: Final = ("sorted", "set", "frozenset", "any", "all", "min", "max", "sum", "len", "bool", "isinstance")
_CALM: Final = frozenset(f"builtins.{name}" for name in _BUILTIN_CALM)
_BUILTIN_ORDERS: Final = ("list", "tuple", "enumerate", "iter", "zip", "map", "filter", "dict", "reversed", "next")
_ORDERED_BY: Final = frozenset(
    {
        *(f"builtins.{name}" for name in _BUILTIN_ORDERS),
        "builtins.dict.fromkeys",
        "itertools.chain",
        "itertools.islice",
        "itertools.product",
        "itertools.cycle",
        "collections.deque",
        "asyncio.as_completed",
        "asyncio.tasks.as_completed",
    }
)
_SET_CHANGES: Final = frozenset({"add", "discard", "remove", "update"})
_STEP_NAME: Final = "holdfast._flow.definitions.step"


@dataclass(frozen=True, slots=True)
class Place:
    """A place that cannot replay."""

    rule: Rule
    node: ast.expr


class FunctionReader(ast.NodeVisitor):
    """Visits a function's body.

    Args:
        function: its tree.
        outside: what it finds outside of itself.
        others: functions that it calls.
        owner: what the first parameter of a method is.

    Attributes:
        places: what cannot replay.
        reached: plain functions that it calls, refers to or hands on.
        made: classes of which it makes instances.
    """

    def __init__(
        self, function: Function, outside: Mapping[str, Any], others: Others, *, owner: Meaning = None
    ) -> None:
        self._outside = outside
        self._others = others
        self._scope = Scope(function, outside, others, owner=owner)
        self._calm: set[int] = set()
        self.places: list[Place] = []
        self.reached: list[FunctionType] = []
        self.made: list[type] = []
        for statement in function.body if isinstance(function.body, list) else [function.body]:
            self.visit(statement)

    # What is called and referred to.

    def visit_Call(self, node: ast.Call) -> None:
        meaning = self._scope.resolve(node.func)
        rule = _rule_of_call(meaning, node)
        if rule is None and path_of(meaning) == "builtins.next" and node.args:
            rule = _rule_of_next(self._scope.resolve(node.args[0]))
        if rule is not None:
            self.places.append(Place(rule, node.func))
        else:
            self._go_into(meaning)
            self._go_into_special(meaning, "__call__")
        self._order_of_arguments(meaning, node)
        if isinstance(node.func, ast.Attribute):
            if rule is None:
                self._order_of_method(node.func, node)
            self.visit(node.func.value)
        elif not isinstance(node.func, ast.Name):
            self.visit(node.func)
        for argument in (*node.args, *node.keywords):
            self.visit(argument)

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Load):
            self._look(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if isinstance(node.ctx, ast.Load) and self._look(node):
            return
        self.visit(node.value)

    def _look(self, node: ast.Name | ast.Attribute) -> bool:
        """A name or attribute that is not called here: a value, or a function that is handed on."""
        meaning = self._scope.resolve(node)
        path = path_of(meaning)
        rule = rules.VALUES.get(path or "") or (None if _is_class(meaning) else rules.CALLS.get(path or ""))
        if rule is not None:
            self.places.append(Place(rule, node))
        elif not _is_class(meaning):
            self._go_into(meaning)
        return rule is not None

    def _go_into(self, meaning: Meaning) -> None:
        match meaning:
            case Known(Step() | Workflow()):
                return  # a step may do all that; a child workflow is read by itself
            case Known(type() as kind):
                self.made.append(kind)
            case _:
                function = function_of(meaning)
                if function is not None:
                    self.reached.append(function)

    def _go_into_special(self, meaning: Meaning, *names: str) -> None:
        """Methods of an instance that Python calls by itself."""
        match meaning:
            case Known(value) if not isinstance(value, FunctionType | type | Step | Workflow):
                kind: type = type(value)
            case Instance(kind):
                pass
            case _:
                return
        for name in names:
            self._go_into(Method(kind, name))

    def visit_With(self, node: ast.With) -> None:
        for item in node.items:
            self._go_into_special(self._scope.resolve(item.context_expr), "__enter__", "__exit__")
        self.generic_visit(node)

    def visit_AsyncWith(self, node: ast.AsyncWith) -> None:
        for item in node.items:
            self._go_into_special(self._scope.resolve(item.context_expr), "__aenter__", "__aexit__")
        self.generic_visit(node)

    # Sets.

    def visit_For(self, node: ast.For) -> None:
        if not all(map(_is_calm, node.body)):
            self._iterates(node.iter)
        self.generic_visit(node)

    def visit_ListComp(self, node: ast.ListComp) -> None:
        self._comprehension(node)

    def visit_GeneratorExp(self, node: ast.GeneratorExp) -> None:
        self._comprehension(node)

    def visit_DictComp(self, node: ast.DictComp) -> None:
        self._comprehension(node)

    def visit_Starred(self, node: ast.Starred) -> None:
        if isinstance(node.ctx, ast.Load):
            self._iterates(node.value)
        self.generic_visit(node)

    def visit_Set(self, node: ast.Set) -> None:
        self._calm.update(id(each.value) for each in node.elts if isinstance(each, ast.Starred))
        self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        if any(isinstance(target, ast.Tuple | ast.List) for target in node.targets):
            self._iterates(node.value)
        is_alias = isinstance(node.value, ast.Name | ast.Attribute) and isinstance(node.targets[0], ast.Name)
        if not is_alias or path_of(self._scope.resolve(node.value)) not in rules.CALLS:  # calls of an alias are found
            self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        if isinstance(node.target, ast.Name) and self._scope.is_global(node.target.id):
            self.places.append(Place(rules.STATE, node.target))
        self.generic_visit(node)

    def _comprehension(self, node: ast.ListComp | ast.GeneratorExp | ast.DictComp) -> None:
        if id(node) not in self._calm:
            for generator in node.generators:
                self._iterates(generator.iter)
        self.generic_visit(node)

    def _order_of_arguments(self, meaning: Meaning, node: ast.Call) -> None:
        path = path_of(meaning)
        if path in _CALM:
            self._calm.update(id(argument) for argument in node.args)
            self._calm.update(id(each.value) for each in node.args if isinstance(each, ast.Starred))
        elif path in _ORDERED_BY and id(node) not in self._calm:
            for argument in node.args:
                self._iterates(argument)

    def _order_of_method(self, function: ast.Attribute, node: ast.Call) -> None:
        if function.attr == "pop" and not node.args:
            self._iterates(function.value)
        elif function.attr == "join" and len(node.args) == 1:
            self._iterates(node.args[0])
        elif function.attr in _SET_CHANGES | {"union", "intersection", "difference", "issubset", "issuperset"}:
            self._calm.update(id(argument) for argument in node.args)

    def _iterates(self, node: ast.expr) -> None:
        if id(node) in self._calm:
            return
        meaning = self._scope.resolve(node)
        if isinstance(meaning, SetOf) and not meaning.ordered:
            self.places.append(Place(rules.SETS, node))

    # Functions inside, and what is not executed here.

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._inner(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self._inner(node)

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self._inner(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        """Its methods are reached through instances, which are not followed into a class that only exists here."""

    def _inner(self, node: Function) -> None:
        decorators: Sequence[ast.expr] = () if isinstance(node, ast.Lambda) else node.decorator_list
        if any(self._is_step(decorator) for decorator in decorators):
            return
        for default in (*node.args.defaults, *(each for each in node.args.kw_defaults if each is not None)):
            self.visit(default)
        outer, self._scope = self._scope, Scope(node, self._outside, self._others, parent=self._scope)
        try:
            for statement in node.body if isinstance(node.body, list) else [node.body]:
                self.visit(statement)
        finally:
            self._scope = outer

    def _is_step(self, decorator: ast.expr) -> bool:
        called = decorator.func if isinstance(decorator, ast.Call) else decorator
        return path_of(self._scope.resolve(called)) == _STEP_NAME


def factories(body: Sequence[ast.stmt]) -> Iterator[ast.expr]:
    """What the fields of a class are made with when they are not given: ``field(default_factory=...)``."""
    for statement in body:
        value = statement.value if isinstance(statement, ast.AnnAssign | ast.Assign) else None
        if isinstance(value, ast.Call):
            yield from (keyword.value for keyword in value.keywords if keyword.arg == "default_factory")


def _rule_of_call(meaning: Meaning, node: ast.Call) -> Rule | None:
    if isinstance(meaning, Method):
        return _rule_of_method(meaning)
    path = path_of(meaning) or ""
    bare = not node.args and not node.keywords
    rule = rules.CALLS.get(path) or rules.CLASSES.get(path) or (rules.WITHOUT_ARGUMENTS.get(path) if bare else None)
    if rule is None and path == "time.strftime" and len(node.args) == 1:
        return rules.CLOCK
    if rule is None and meaning is None and isinstance(node.func, ast.Attribute):
        return rules.METHOD_NAMES.get(node.func.attr)
    return rule


def _rule_of_next(meaning: Meaning) -> Rule | None:
    """An iterator that the module holds is moved on by every run, and by every replay."""
    return rules.STATE if isinstance(meaning, Known) and isinstance(meaning.value, Iterator) else None


def _rule_of_method(method: Method) -> Rule | None:
    for path in mro_paths(method.kind):
        if method.shared and path in rules.SHARED:
            return rules.SHARED[path]
        if path in rules.METHODS and method.name in rules.METHODS[path][0]:
            return rules.METHODS[path][1]
    return None


def _is_class(meaning: Meaning) -> bool:
    return isinstance(meaning, Known) and isinstance(meaning.value, type)


def _is_calm(statement: ast.stmt) -> bool:
    """Whether a loop's body comes to the same in any order: it counts, collects into sets, or raises."""
    match statement:
        case ast.Pass() | ast.Continue() | ast.Raise() | ast.Assert() | ast.Return(value=None | ast.Constant()):
            return True
        case ast.AugAssign(target=ast.Name(), op=ast.Add() | ast.BitOr() | ast.BitAnd()):
            return not any(isinstance(each, ast.Await | ast.Call | ast.List) for each in ast.walk(statement))
        case ast.Expr(value=ast.Call(func=ast.Attribute(attr=attr))) if attr in _SET_CHANGES:
            return not any(isinstance(each, ast.Await) for each in ast.walk(statement))
        case ast.If(body=body, orelse=orelse):
            return all(map(_is_calm, [*body, *orelse]))
        case _:
            return False

"""From the workflows of an app to every plain function of theirs that a replay runs."""

from __future__ import annotations

import ast
import inspect
import io
import sys
import tokenize
from collections import deque
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, Final

from holdfast import Workflow
from holdfast.cli.source.findings import Finding
from holdfast.cli.source.function import FunctionReader, Place, factories
from holdfast.cli.source.meaning import Instance, Known, Meaning
from holdfast.cli.source.scope import Function, Others

SILENCED: Final = "holdfast: ok"
_NOT_OURS: Final = frozenset({"site-packages", "dist-packages"})


def read_workflows(workflows: Iterable[Workflow[..., Any]]) -> list[Finding]:
    """What cannot replay in these workflows and in the functions of their packages that they reach.

    Each place is found once, for the first workflow that gets there. Code whose source is not to be had (a REPL, a
    compiled module) is passed over.
    """
    walk = _Walk()
    for workflow in workflows:
        walk.read(workflow)
    return sorted(walk.findings, key=lambda finding: (finding.file, finding.line, finding.column))


class _Walk:
    def __init__(self) -> None:
        self.findings: list[Finding] = []
        self._seen: set[object] = set()
        self._files: dict[str, _File] = {}
        self._others = Others(lambda _function: None)
        self._todo: deque[tuple[FunctionType | type, tuple[str, ...]]] = deque()

    def read(self, workflow: Workflow[..., Any]) -> None:
        function = workflow.function
        if not isinstance(function, FunctionType):
            return
        root = _root_of(function)
        self._others = Others(lambda other: self._tree(other, root))
        self._todo.append((function, ()))
        while self._todo:
            target, via = self._todo.popleft()
            if target in self._seen:
                continue
            self._seen.add(target)
            if isinstance(target, type):
                self._read_class(target, via, root, workflow.name)
            else:
                self._read_function(target, via, root, workflow.name)

    def _read_function(self, function: FunctionType, via: tuple[str, ...], root: Path, workflow: str) -> None:
        wrapped = getattr(function, "__wrapped__", None)
        if isinstance(wrapped, FunctionType):
            self._todo.append((wrapped, via))
        file = self._file(function.__code__.co_filename)
        tree = file.function(function)
        if tree is not None:
            self._read(tree, file, _outside(function), (via, root, workflow), owner=_owner_of(function))

    def _read_class(self, kind: type, via: tuple[str, ...], root: Path, workflow: str) -> None:
        """Making an instance runs its `__init__`, `__post_init__`, and what its fields are made with."""
        for name in ("__new__", "__init__", "__post_init__"):
            function = vars(kind).get(name)
            if isinstance(function, FunctionType) and _is_ours(function.__code__.co_filename, root):
                self._todo.append((function, via))
        module = sys.modules.get(kind.__module__)
        path = getattr(module, "__file__", None)
        if module is None or path is None or not _is_ours(path, root):
            return
        file = self._file(path)
        for factory in file.factories(kind):
            tree = factory if isinstance(factory, ast.Lambda) else _lambda_of(factory)
            self._read(tree, file, vars(module), (via, root, workflow))

    def _read(
        self,
        tree: Function,
        file: _File,
        outside: dict[str, Any],
        context: tuple[tuple[str, ...], Path, str],
        *,
        owner: Meaning = None,
    ) -> None:
        via, root, workflow = context
        reader = FunctionReader(tree, outside, self._others, owner=owner)
        for place in reader.places:
            where = (file.path, place.node.lineno, place.node.col_offset)
            if where not in self._seen and not file.is_silenced(place.node):
                self._seen.add(where)
                self.findings.append(file.finding(place, workflow=workflow, via=via))
        for function in reader.reached:
            if _is_ours(function.__code__.co_filename, root):
                self._todo.append((function, (*via, function.__qualname__)))
        self._todo.extend((kind, (*via, kind.__qualname__)) for kind in reader.made)

    def _tree(self, function: FunctionType, root: Path) -> Function | None:
        path = function.__code__.co_filename
        return self._file(path).function(function) if _is_ours(path, root) else None

    def _file(self, path: str) -> _File:
        if path not in self._files:
            self._files[path] = _File(path)
        return self._files[path]


class _File:
    """A source file with its tree."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.lines, self._tree = _parsed(path)

    @cached_property
    def _functions(self) -> dict[tuple[str, int], list[Function]]:
        found: dict[tuple[str, int], list[Function]] = {}
        for node in ast.walk(self._tree):
            match node:
                case ast.FunctionDef() | ast.AsyncFunctionDef():
                    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
                    found.setdefault((node.name, first), []).append(node)
                case ast.Lambda():
                    found.setdefault(("<lambda>", node.lineno), []).append(node)
        return found

    def function(self, function: FunctionType) -> Function | None:
        """The tree of a function; none where it is not certain which it is."""
        found = self._functions.get((function.__code__.co_name, function.__code__.co_firstlineno), [])
        return found[0] if len(found) == 1 else None

    def factories(self, kind: type) -> Iterator[ast.expr]:
        """What the fields of a class are made with."""
        for node in ast.walk(self._tree):
            if isinstance(node, ast.ClassDef) and node.name == kind.__name__:
                yield from factories(node.body)

    def is_silenced(self, node: ast.expr) -> bool:
        """Whether a line of this place says `# holdfast: ok`."""
        lines = self.lines[node.lineno - 1 : node.end_lineno]
        return any(f"# {SILENCED}" in line for line in lines)

    def finding(self, place: Place, *, workflow: str, via: tuple[str, ...]) -> Finding:
        """A place with its line of source."""
        node = place.node
        text = self.lines[node.lineno - 1].rstrip("\n")
        column = _characters(text, node.col_offset)
        end = _characters(text, node.end_col_offset or 0) if node.end_lineno == node.lineno else len(text)
        return Finding(place.rule, self.path, node.lineno, column + 1, end + 1, text, workflow, via)


def _parsed(path: str) -> tuple[list[str], ast.AST]:
    try:
        with tokenize.open(path) as file:
            text = file.read()
        return io.StringIO(text).readlines(), ast.parse(text)
    except (OSError, SyntaxError, UnicodeDecodeError, ValueError):
        return [], ast.Module(body=[], type_ignores=[])  # no source to be had: nothing is said about it


def _characters(text: str, column: int) -> int:
    """A column of the tree, which counts bytes, in characters."""
    return len(text.encode()[:column].decode(errors="replace"))


def _lambda_of(expression: ast.expr) -> ast.Lambda:
    """An expression that is called without arguments, as a function that mentions it."""
    empty = ast.arguments(posonlyargs=[], args=[], kwonlyargs=[], kw_defaults=[], defaults=[])
    return ast.copy_location(ast.Lambda(args=empty, body=expression), expression)


def _outside(function: FunctionType) -> dict[str, Any]:
    """What the function finds outside of itself: its module's names, and before them its closure's."""
    found = dict(function.__globals__)
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
        try:
            found[name] = cell.cell_contents
        except ValueError:  # not bound yet
            found.pop(name, None)
    return found


def _owner_of(function: FunctionType) -> Meaning:
    """What the first parameter of a method is: an instance of its class, or the class; none for other functions."""
    found: Any = sys.modules.get(function.__module__)
    *path, name = function.__qualname__.split(".")
    for part in path:
        found = inspect.getattr_static(found, part, None)
    if not path or not isinstance(found, type):
        return None
    held = vars(found).get(name)
    if isinstance(held, staticmethod):
        return None
    return Known(found) if isinstance(held, classmethod) else Instance(found)


def _root_of(function: FunctionType) -> Path:
    """The folder of the workflow's package, or of its module where it is in none."""
    module: ModuleType | None = sys.modules.get(function.__module__.partition(".")[0])
    file = getattr(module, "__file__", None) or function.__code__.co_filename
    return Path(file).resolve().parent


def _is_ours(file: str, root: Path) -> bool:
    path = Path(file).resolve()
    return path.is_relative_to(root) and not _NOT_OURS & set(path.relative_to(root).parts)

"""`MOD:APP`: importing the user's module and finding the app in it, with an answer to whatever can be mistyped."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
import traceback
from collections.abc import Iterable
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from types import FunctionType, ModuleType

from holdfast import Holdfast
from holdfast.cli.problems import debugging, place_of
from holdfast.errors import HoldfastError, UsageError


def load_app(target: str, *, prints: bool = False) -> Holdfast:
    """Import `MOD` from the current directory or the path, and take `APP` from it.

    Without `:APP` the module must have exactly one app. What it prints goes to stderr, since stdout is for the answer;
    with `prints` it goes where it would: a worker has no answer, and the module's log handlers keep the stream.

    Raises:
        UsageError: the module cannot be found or imported, or has no such app.
    """
    module_name, colon, attribute = target.partition(":")
    module_name = _as_module(module_name)
    if not module_name or (colon and not attribute):
        raise UsageError(f"{target!r} names no app", hint="MODULE:APP, such as shop:app for `app` in shop.py")
    with nullcontext() if prints else redirect_stdout(sys.stderr):
        module = _import(module_name)
    return _named(module, attribute) if colon else _only(module)


def _as_module(name: str) -> str:
    """Accept a path, since shells complete it."""
    return name.removesuffix(".py").replace("/", ".").lstrip(".") if name.endswith(".py") or "/" in name else name


def _import(name: str) -> ModuleType:
    here = os.getcwd()
    if sys.path[:1] != [here]:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if name == missing or name.startswith(f"{missing}."):
            hint = _did_you_mean(missing, _modules_here()) or f"is there a {missing}.py in {here}?"
            raise UsageError(f"there is no module {missing!r}", hint=hint) from None
        raise _not_importable(name, error) from error
    except (Exception, SystemExit) as error:
        raise _not_importable(name, error) from error


def _not_importable(name: str, error: Exception | SystemExit) -> UsageError:
    if debugging():
        traceback.print_exception(error)
    told, hint = _explained(error)
    return UsageError(f"module {name!r} cannot be imported: {told} at {place_of(error)}", hint=hint)


def _explained(error: Exception | SystemExit) -> tuple[str, str]:
    hint = "" if debugging() else "HOLDFAST_DEBUG=1 shows the traceback"
    match error:
        case HoldfastError():
            return error.message, error.hint or hint
        case SystemExit():
            return f"it ends the process, with {error!r},", 'put what it runs under: if __name__ == "__main__"'
        case SyntaxError():
            return f"{type(error).__name__}: {error.msg}", hint
    return f"{type(error).__name__}: {error}", hint


def _named(module: ModuleType, attribute: str) -> Holdfast:
    found: object = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            hint = _did_you_mean(part, vars(found) if hasattr(found, "__dict__") else ()) or _apps_hint(module)
            raise UsageError(f"module {module.__name__!r} has no {attribute!r}", hint=hint)
        found = getattr(found, part)
    if not isinstance(found, Holdfast):
        hint = f"write app = {attribute}() in a module" if isinstance(found, FunctionType) else _apps_hint(module)
        raise UsageError(f"{module.__name__}:{attribute} is a {type(found).__name__}, not a Holdfast app", hint=hint)
    return found


def _only(module: ModuleType) -> Holdfast:
    apps = _apps(module)
    if len(set(map(id, apps.values()))) != 1:
        what = "several apps" if apps else "no Holdfast app"
        raise UsageError(f"module {module.__name__!r} has {what}", hint=_apps_hint(module))
    return next(iter(apps.values()))


def _apps(module: ModuleType) -> dict[str, Holdfast]:
    return {name: value for name, value in vars(module).items() if isinstance(value, Holdfast)}


def _apps_hint(module: ModuleType) -> str:
    names = [f"{module.__name__}:{name}" for name in _apps(module)]
    return f"say {' or '.join(names)}" if names else 'make one there: app = Holdfast("sqlite:///orders.db")'


def _modules_here() -> list[str]:
    return [path.stem for path in Path().iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()]


def _did_you_mean(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, [name for name in known if not name.startswith("__")], n=1)
    return f"did you mean {near[0]!r}?" if near else ""

"""Replaying in child processes, each under a hash seed of its own.

    parent: request.json + runs.jsonl ─> `main`, under PYTHONHASHSEED=SEED ─> SEED.json: what differs

The children run at the same time. Each imports the modules of the workflows anew: by name where that gives the same
file, else from the file itself, as test modules often cannot be imported by name.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from holdfast._flow.definitions import Workflow
from holdfast._model.bounds import shown
from holdfast._model.exported import read
from holdfast.errors import UsageError

SEED_MAX: Final = 4_294_967_295
SEEDS_MAX: Final = 64
ERROR_CHARS_MAX: Final = 4_000
_CHILD: Final = "import sys; from holdfast.testing.seeds import main; main(sys.argv[1], sys.argv[2])"
_NO_CHILD: Final = "or do without other processes: assert_replays(..., hash_seeds=())"


def check_seeds(seeds: object) -> None:
    """Raise `UsageError` unless these are values of PYTHONHASHSEED."""
    if not isinstance(seeds, list | tuple | range) or len(seeds) > SEEDS_MAX:
        raise UsageError(f"hash_seeds={shown(seeds)} must be at most {SEEDS_MAX} numbers, such as (1, 2)")
    for seed in seeds:
        if type(seed) is not int or not 0 <= seed <= SEED_MAX:
            raise UsageError(f"hash_seeds: {shown(seed)} must be a whole number, 0 to {SEED_MAX}")


def under_seeds(
    lines: Iterable[str], workflows: Sequence[Workflow[..., Any]], seeds: Sequence[int], *, seconds: float
) -> str | None:
    """Replay an export in one child for each seed; the first difference, or none.

    Raises:
        UsageError: a child cannot import a workflow.
    """
    if not seeds:
        return None
    with tempfile.TemporaryDirectory(prefix="holdfast-replay-") as name:
        folder = Path(name)
        (folder / "runs.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        places = [_place_of(workflow) for workflow in workflows]
        (folder / "request.json").write_text(json.dumps({"path": sys.path, "workflows": places}), encoding="utf-8")
        children = [_spawn(folder, seed) for seed in seeds]
        try:
            told = [_answer(folder, seed, child, seconds) for seed, child in zip(seeds, children, strict=True)]
        finally:
            for child in children:
                child.kill()
                child.communicate()
    return next((problem for problem in told if problem is not None), None)


def _place_of(workflow: Workflow[..., Any]) -> dict[str, str]:
    function = workflow.function
    module = sys.modules.get(function.__module__)
    file = getattr(module, "__file__", None)
    if module is None or file is None or not any(value is workflow for value in vars(module).values()):
        raise UsageError(
            f"workflow {workflow.name!r} of {function.__module__}.{function.__qualname__} cannot be imported elsewhere",
            hint=f"define it at the top level of a module; {_NO_CHILD}",
        )
    return {"module": function.__module__, "file": str(Path(file).absolute()), "name": workflow.name}


def _spawn(folder: Path, seed: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _CHILD, str(folder), str(seed)],
        env={**os.environ, "PYTHONHASHSEED": str(seed), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def _answer(folder: Path, seed: int, child: subprocess.Popen[str], seconds: float) -> str | None:
    try:
        _, errors = child.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        return f"under PYTHONHASHSEED={seed} the replay has not ended after {seconds:g} s"
    answer = folder / f"{seed}.json"
    if not answer.exists():
        raise UsageError(
            f"the child process for PYTHONHASHSEED={seed} has failed:\n{errors[-ERROR_CHARS_MAX:].rstrip()}",
            hint=f"the workflow's module must be importable by itself; {_NO_CHILD}",
        )
    told: list[str] = json.loads(answer.read_text(encoding="utf-8"))
    if not told:
        return None
    return (
        f"under PYTHONHASHSEED={seed}, though not in this process, {told[0]}\n"
        "hint: the order of a set of strings differs from process to process: sort it before its order matters"
    )


# In the child.


def main(name: str, seed: str) -> None:
    """Replay the request in the folder of this name, and write what differs."""
    from holdfast.testing.replays import differences

    folder = Path(name)
    request = json.loads((folder / "request.json").read_text(encoding="utf-8"))
    sys.path[:] = request["path"]
    workflows = {place["name"]: _workflow_at(**place) for place in request["workflows"]}
    with (folder / "runs.jsonl").open("rb") as lines:
        runs = read(lines, source="runs.jsonl")
    answer = folder / f"{seed}.part"
    answer.write_text(json.dumps(differences(runs, workflows, hints=False)), encoding="utf-8")
    answer.rename(folder / f"{seed}.json")


def _workflow_at(module: str, file: str, name: str) -> Workflow[..., Any]:
    for value in vars(_module(module, file)).values():
        if isinstance(value, Workflow) and value.name == name:
            return value
    raise UsageError(f"{file} has no workflow {name!r} at its top level when it is imported anew", hint=_NO_CHILD)


def _module(name: str, file: str) -> ModuleType:
    if name == "__main__":
        name = "__mp_main__"
    known = sys.modules.get(name)
    if known is not None and getattr(known, "__file__", None) == file:
        return known
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        spec = None
    if spec is not None and spec.origin is not None and Path(spec.origin).absolute() == Path(file):
        return importlib.import_module(name)
    _import_parents(name, Path(file).parent)
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise UsageError(f"{file} cannot be imported")
    return _executed(spec)


def _import_parents(name: str, folder: Path) -> None:
    """The packages above a module, from their folders: pytest's import mode `importlib` needs no path to them."""
    package = name.rpartition(".")[0]
    if package in sys.modules or package.rpartition(".")[2] != folder.name:
        return
    _import_parents(package, folder.parent)
    init, places = folder / "__init__.py", [str(folder)]
    spec = importlib.util.spec_from_file_location(package, init, submodule_search_locations=places)
    if spec is not None and init.exists():
        _executed(spec)


def _executed(spec: ModuleSpec) -> ModuleType:
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    if spec.loader is not None:
        spec.loader.exec_module(module)
    return module

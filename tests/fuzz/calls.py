"""The calls of a client and of a run, each parameter with the values that are nearly right for it.

`CALLS` is a table: one line for each public method, one strategy for each of its parameters. A test compares it with
the code, so that a new method or parameter cannot be forgotten here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st
from tests.fuzz import things
from tests.fuzz.stage import Stage, flow
from tests.fuzz.things import Thing, given_as, junk

from holdfast import RunState, Start

Values = st.SearchStrategy[Thing]


def near(*strategies: st.SearchStrategy[Any]) -> Values:
    """Values that may be right, and any others."""
    return st.one_of(*strategies).map(given_as) | junk()


IDS = near(st.text(max_size=210), things.texts(), st.sampled_from(["old", "x" * 200, "x" * 201, "a/b", "a'b", 'a"b']))
NAMES = near(things.texts(), st.sampled_from(["flow", "fllow", "FLOW", "x" * 201]))
SECONDS = near(things.integers(), st.floats(), things.timedeltas())
INSTANTS = near(things.datetimes())
WHOLE = near(things.integers())
FLAGS = near(st.booleans())
SCALARS = st.one_of(things.texts(), things.integers(), st.floats(), st.booleans(), st.none())
ATTRIBUTES = near(
    st.dictionaries(
        things.texts(max_size=8),
        st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(things.texts(8), inner)),
        max_size=4,
    )
)
PAYLOADS = near(
    st.recursive(
        SCALARS | things.plain(),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(things.texts(8) | st.integers(), inner, max_size=4)
            | st.tuples(inner)
        ),
        max_leaves=10,
    )
)
STATES = near(
    st.sampled_from([*RunState, *(state.value for state in RunState)]), st.lists(st.sampled_from([*RunState, "x", 7]))
)
WORKFLOWS = near(st.just(flow)) | NAMES
WORDS = """state workflow id created started ended due priority worker reason forked customer name : : : - @ * , .. >
>= < <= " \\ \\" 42 failed ann 2026-03-01 2026-03-01T09:00 9999-12-31 0001-01-01T00:00+14:00 2h 999999999999w 1e308 -0
1e999 99999999999999999999 ' ; % true null"""
TOKENS = [*WORDS.split(), "\x00", "\ud800", " ", " ", "\n", ""]
QUERIES = near(
    st.lists(st.sampled_from(TOKENS), max_size=12).map("".join),
    st.builds(
        "{}:{}{}".format,
        st.sampled_from(["state", "id", "created", "started", "due", "priority", "customer", "@x"]),
        st.sampled_from(["", ">", "<=", ".."]),
        st.sampled_from(TOKENS) | things.texts(),
    ),
)
CURSORS = near(st.builds("{:x}-{:x}-{:x}".format, *[st.integers(0, 2**62)] * 3), st.from_regex("[0-9a-f-]{1,50}"))


@dataclass(frozen=True)
class Call:
    """A public call.

    Attributes:
        name: class and method.
        make: what makes the call, from the stage and the values given.
        values: for each parameter, what to try.
    """

    name: str
    make: Callable[[Stage, dict[str, Any]], Any]
    values: dict[str, Values]


PLACES = {
    "args": ("args", "value", "unexpected keyword", "too many positional"),
    "kwargs": ("kwargs", "value", "unexpected keyword"),
    "path": ("path=", "folder", "exists already", "cannot "),
    "run_id": ("id=", "id "),
    "starts": ("start_many",),
    "states": ("state",),
}
"""What errors name where it is not the parameter."""


OPTIONS: dict[str, Values] = {
    "id": IDS,
    "on_conflict": near(st.sampled_from(["return", "raise", "restart", "Return", ""])),
    "priority": WHOLE,
    "delay": SECONDS,
    "at": INSTANTS,
    "timeout": SECONDS,
    "attributes": ATTRIBUTES,
}
STARTING: dict[str, Values] = {"workflow": WORKFLOWS, "args": PAYLOADS, "kwargs": PAYLOADS, **OPTIONS}
CONDITIONS: dict[str, Values] = {
    "where": QUERIES,
    "state": STATES,
    "workflow": WORKFLOWS,
    "attributes": ATTRIBUTES,
    "id_prefix": near(things.texts()),
    "created_from": INSTANTS,
    "created_before": INSTANTS,
}


def starting(values: dict[str, Any]) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    """Workflow, arguments and keywords of a start."""
    values = dict(values)
    workflow = values.pop("workflow", flow)
    args = (values.pop("args"),) if "args" in values else ()
    named = {"value": values.pop("kwargs")} if "kwargs" in values and not args else {}
    values.pop("kwargs", None)
    return workflow, args, named | values


def start(stage: Stage, values: dict[str, Any]) -> Any:
    workflow, args, named = starting(values)
    return stage.client.start(workflow, *args, **named)


def run(stage: Stage, values: dict[str, Any]) -> Any:
    workflow, args, named = starting(values)
    return stage.client.run(workflow, *args, **named)


def start_many(stage: Stage, values: dict[str, Any]) -> Any:
    return stage.client.start_many(values.get("starts", [Start(flow), Start(flow, 1)]))


def start_object(stage: Stage, values: dict[str, Any]) -> Any:
    workflow, args, named = starting(values)
    return stage.client.start_many([Start(flow), Start(workflow, *args, **named)])


def backup(stage: Stage, values: dict[str, Any]) -> Any:
    """Only below the current folder: a test must not write anywhere else."""
    path = values.get("path")
    if isinstance(path, str) and path.startswith("/"):
        values = values | {"path": f".{str.__str__(path)}"}
    return stage.client.backup(**{"path": f"{stage.path}.copy", **values})


CALLS = [
    Call("Client.start", start, STARTING),
    Call("Client.run", run, {name: values for name, values in STARTING.items() if name not in ("delay", "at")}),
    Call("Client.start_many", start_many, {"starts": near(st.lists(st.sampled_from([None, Start(flow), flow, 7])))}),
    Call("Start", start_object, STARTING),
    Call("Client.get", lambda stage, v: stage.client.get(v.get("run_id", "old")).describe(), {"run_id": IDS}),
    Call("Client.list", lambda stage, v: stage.client.list(**v), CONDITIONS | {"after": CURSORS, "limit": WHOLE}),
    Call("Client.count", lambda stage, v: stage.client.count(**v), CONDITIONS | {"limit": WHOLE}),
    Call("Client.iterate", lambda stage, v: stage.client.iterate(**v), CONDITIONS),
    Call("Client.stats", lambda stage, v: stage.client.stats(**v), {"window": SECONDS}),
    Call(
        "Client.prune",
        lambda stage, v: stage.client.prune(**{"older_than": 3600, **v}),
        {
            "older_than": SECONDS,
            "states": STATES,
            "workflow": WORKFLOWS,
            "limit": WHOLE,
            "dry_run": FLAGS,
            "on_progress": junk(),
        },
    ),
    Call("Client.workers", lambda stage, v: stage.client.workers(**v), {"gone": FLAGS}),
    Call(
        "Client.backup",
        backup,
        {"path": near(things.texts().map("nowhere/{}".format)), "force": FLAGS},
    ),
    Call("Run.result", lambda stage, v: stage.old.result(**v), {"timeout": SECONDS}),
    Call("Run.describe", lambda stage, v: stage.old.describe(), {}),
    Call("Run.history", lambda stage, v: stage.old.history(), {}),
    Call("Run.cancel", lambda stage, v: stage.old.cancel(), {}),
    Call("Run.pause", lambda stage, v: stage.old.pause(), {}),
    Call("Run.resume", lambda stage, v: stage.old.resume(), {}),
    Call("Run.retry", lambda stage, v: stage.old.retry(), {}),
    Call(
        "Run.fork",
        lambda stage, v: stage.old.fork(**{"at": 1, **v}),
        {
            "at": WHOLE,
            "id": IDS,
            "result": PAYLOADS,
            "args": near(st.lists(SCALARS, max_size=3)),
            "kwargs": near(st.dictionaries(things.texts(8) | st.just("value"), SCALARS, max_size=2)),
        },
    ),
]

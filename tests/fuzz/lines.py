"""Command lines at random, from the tree of commands itself: every option and argument has values here, or a reason."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final
from urllib.parse import quote

import click
from hypothesis import strategies as st
from tests.fuzz.hostile import DURATIONS, INSTANTS, JSON, NUMBERS, TEXT

from holdfast.cli.commands import COMMANDS, holdfast

IDS: Final = st.sampled_from(["done", "failed-1", "asleep", "later", "ready-1", "paused-1", "missing"])
ENDED: Final = st.sampled_from(["done", "failed-1", "missing"])
STATES: Final = st.sampled_from(["failed", "succeeded", "failed,ready", "ready", "waiting", ",", "runing"]) | TEXT
FILES: Final = st.sampled_from(
    ["runs.jsonl", "cut.jsonl", "copy.db", "cut.db", "orders.db", "orders.db-wal", "folder", "missing/x", "empty",
     "text",
     "secret", "link", "loop", "/dev/null", "/proc/self/mem", "-", ".", "x" * 300, "x/" * 3000]
) | TEXT.filter(lambda name: not name.startswith("/"))  # fmt: skip
RELATIVE: Final = FILES.filter(lambda name: not name.startswith("/"))
URIS: Final = st.one_of(
    st.sampled_from(
        ["", "sqlite", "sqlite:", "sqlite:/x", "sqlite://", "sqlite:///", "sqlite://///", "sqlite:///:memory:",
         "file:orders.db",
         "sqlite:///orders.db?", "sqlite:///orders.db?synchronous=full&synchronous=normal", "sqlite:///orders.db?mode=ro",
         "sqlite:///orders.db?busy_timeout=1e999", "sqlite:///orders.db?busy_timeout=0.5", "sqlite:///orders.db#x",
         "sqlite:///../b/orders.db", "sqlite:///folder/../orders.db", "sqlite:///%6frders.db", "sqlite:///orders.db%00",
         "sqlite://user:hunter2@host/x", "postgresql://user:hunter2@host/x", "mysql://user:hunter2@host/x",
         "postgres:user:hunter2@host", "user:hunter2@host", "sqlite:////dev/null", "sqlite:////proc/self/mem", "sqlite:////proc/x"]
    ),
    RELATIVE.map(lambda name: f"sqlite:///{quote(name, errors='surrogatepass')}"),
    TEXT.filter(lambda name: not name.lstrip().startswith("/")).map(lambda name: f"sqlite:///{name}"),
    TEXT,
)  # fmt: skip
TARGETS: Final = st.one_of(
    st.sampled_from(
        ["", ":", "shop:", ":app", "shop:nope", "shop:charge", "shop.app", "shop:app.x", "os:path", "json", "..",
         "a.b:c",
         "./shop.py:nope", "text:app", "folder:app", "shop:__class__", "shop:app:app", "broken:app"]
    ),
    TEXT.filter(lambda name: not name.lstrip(".").startswith("/")),
)  # fmt: skip
APPS: Final = st.just("shop:app") | TARGETS
CURSORS: Final = st.sampled_from(["0-0-0", "f" * 15 + "-0-0", "f" * 15 + "-" + "f" * 15 + "-" + "f" * 15, "1-1",
 "--", "g-1-1",
                                  "f" * 16 + "-1-1"]) | TEXT  # fmt: skip
QUERIES: Final = st.one_of(
    st.sampled_from(
        ["state:failed", "-state:failed", "customer:anna", "n:5", "n:>4", "deep.er:x", "created:<1h",
         "created:>9999-12-31",
         "created:0001-01-01", "due:>1d", "id:do*", "state:", "nobody:1", "@nobody:1", 'customer:"', "workflow:*",
         "(a:1)", "created:>99999999999d"]
    ),
    TEXT,
)  # fmt: skip
PAIRS: Final = (
    st.builds("{}={}".format, st.sampled_from(["order", "a", "", "customer", "é", "a.b"]) | TEXT, JSON) | JSON
)

VALUES: Final[dict[str, st.SearchStrategy[str]]] = {
    "db": URIS,
    "run_id": IDS | TEXT,
    "run_ids": IDS | TEXT,
    "new_id": IDS | TEXT,
    "workflow": st.sampled_from(["checkout", "sleeper", "unknown"]) | TEXT,
    "words": PAIRS,
    "query": QUERIES,
    "states": STATES,
    "attributes": st.sampled_from(["customer=anna", "n=5", "deep.er=x"]) | PAIRS,
    "target": APPS,
    "limit": NUMBERS,
    "priority": NUMBERS,
    "at": NUMBERS,
    "number": NUMBERS,
    "lifeline": NUMBERS,
    "target_version": NUMBERS,
    "after": CURSORS,
    "delay": DURATIONS,
    "timeout": DURATIONS,
    "older_than": DURATIONS,
    "window": DURATIONS,
    "seconds": DURATIONS,
    "stop_timeout": DURATIONS,
    "on_conflict": st.sampled_from(["return", "raise", "restart"]) | TEXT,
    "result": JSON,
    "file": FILES,
    # of one command
    "start at": INSTANTS,
    "wait run_id": ENDED | TEXT,
    "worker target": TARGETS,  # an app that is right would be served for ever
    "worker procs": st.sampled_from(["0", "-1", "257", "9" * 20, "x"]),  # what is right starts so many processes
    "demo file": st.sampled_from(["text", "folder", "missing", "secret"]) | TEXT.map(lambda name: f"x{name}"),
    "demo keep": TEXT.filter(lambda name: not name.startswith("/")),
    "demo kills": NUMBERS,
    "demo seed": NUMBERS,
}
"""By the parameter's name, or by command and name."""

LEFT_OUT: Final = {
    "ls watched": "does not end",
    "stats watched": "does not end",
    "workers watched": "does not end",
    "show watched": "does not end for a run that has not ended",
    "start waits": "does not end without a worker",
}
ALWAYS: Final = {"demo": "file"}
"""Without this option the command would do its work, which takes processes and seconds."""
OUTPUTS: Final = (None, None, "json", "jsonl")


def commands() -> Iterator[tuple[str, click.Command]]:
    """All of them, from the group itself."""
    context = click.Context(holdfast)
    for name in COMMANDS:
        command = holdfast.get_command(context, name)
        assert command is not None, name
        yield name, command


def values_of(command: str, parameter: click.Parameter) -> st.SearchStrategy[str] | None:
    """What is drawn for a parameter; none for a flag."""
    found = VALUES.get(f"{command} {parameter.name}", VALUES.get(parameter.name or ""))
    if found is None and not getattr(parameter, "is_flag", False) and not getattr(parameter, "count", False):
        raise LookupError(f"nothing is drawn for {parameter.name} of `holdfast {command}`")
    return found


@st.composite
def lines(draw: st.DrawFn, name: str, command: click.Command) -> tuple[str | None, tuple[str, ...]]:
    """An output format, and a command line that asks for it."""
    output = draw(st.sampled_from(OUTPUTS))
    words = [name, *(["-o", output] if output else [])]
    positional: list[str] = []
    for parameter in command.params:
        if parameter.name in {"output", "help"} or f"{name} {parameter.name}" in LEFT_OUT:
            continue
        values = values_of(name, parameter)
        if isinstance(parameter, click.Argument):
            count = draw(st.sampled_from([1, 1, 1, 2, 0] if parameter.nargs == -1 else [1] * 9 + [0, 2]))
            positional += [draw(values) for _ in range(count)] if values is not None else []
        elif draw(st.integers(0, 3)) == 0 or ALWAYS.get(name) == parameter.name:
            option = draw(st.sampled_from([*parameter.opts, *parameter.secondary_opts]))
            words += [option] if values is None else [option, draw(values)]
    return output, (*words, *draw(st.sampled_from([(), ("--",)])), *positional)

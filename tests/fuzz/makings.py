"""What is made and decorated before any app is open: `MAKINGS`, a table like `CALLS`, and the functions beside them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from hypothesis import strategies as st
from tests.fuzz import things
from tests.fuzz.calls import FLAGS, NAMES, PAYLOADS, SECONDS, STATES, WHOLE, Values, near
from tests.fuzz.stage import echo, flow
from tests.fuzz.things import junk

import holdfast
from holdfast import testing

SPANS = near(things.timedeltas())


@dataclass(frozen=True)
class Making:
    """A public call that needs no open app; `places` is what its errors name."""

    name: str
    make: Callable[[dict[str, Any]], Any]
    values: dict[str, Values]
    places: tuple[str, ...] = ()


def options(kind: type, values: Values, **others: Values) -> Making:
    """A class of options: each field by its name."""
    names = [field.name for field in fields(kind)]
    return Making(kind.__name__, lambda v: kind(**v), dict.fromkeys(names, values) | others, tuple(names))


def faked(values: dict[str, Any]) -> None:
    step = values.pop("step", echo)
    with testing.fake(step, **values):
        pass


def played(values: dict[str, Any]) -> None:
    async def main(_clock: Any) -> None: ...

    testing.play(values.pop("main", main), **values)


def advanced(values: dict[str, Any]) -> None:
    async def main(clock: Any) -> None:
        await clock.advance(**values)

    testing.play(main)


def clocked(values: dict[str, Any]) -> None:
    async def main(clock: Any) -> None:
        sources = (values.pop("sources"),) if "sources" in values else ()
        clock.app(*sources, **values)

    testing.play(main)


def decorated(decorate: Callable[..., Any]) -> Callable[[dict[str, Any]], Any]:
    async def function() -> None: ...

    return lambda v: decorate(v["function"]) if "function" in v else decorate(**v)(function)


def slept(values: dict[str, Any]) -> None:
    """In an event loop, where it can be given up."""

    async def main() -> None:
        sleeping: Any = holdfast.sleep(**values)
        sleeping.close()

    asyncio.run(main())


def app() -> holdfast.Holdfast:
    return holdfast.Holdfast("sqlite://")


URIS = near(
    things.texts(),
    st.builds(
        "{}{}{}?{}={}".format,
        st.sampled_from(["sqlite://", "sqlite:", "mysql://", "postgresql://", "sqlite+x://", "SQLITE://"]),
        st.sampled_from(["", "/", "//", "host/", "/:memory:", "///"]),
        things.texts(),
        st.sampled_from(["synchronous", "busy_timeout", "", "x"]) | things.texts(),
        st.sampled_from(["off", "normal", "1e9", "nan", "-1", "0"]) | things.texts(),
    ),
)
FUNCTIONS = junk()
CLASSES = near(st.lists(st.sampled_from([ValueError, int, None]), max_size=3).map(tuple))

MAKINGS = [
    Making(
        "Holdfast",
        lambda v: holdfast.Holdfast(**{"uri": "sqlite://", **v}),
        {"uri": URIS},
        ("Holdfast", "database", "SQLite", "names", "option", "synchronous", "busy_timeout"),
    ),
    Making("Holdfast", lambda v: holdfast.Holdfast("sqlite://", **v), {"worker": junk(), "journal": junk()}),
    Making("Holdfast.include", lambda v: app().include(v["sources"]), {"sources": junk()}, ("include", "module")),
    Making(
        "Holdfast.workflow",
        decorated(lambda *a, **v: app().workflow(*a, **v)),
        {"function": FUNCTIONS, "name": NAMES},
        ("workflow",),
    ),
    Making("Holdfast.sync", lambda v: app().sync(**v), {"worker": FLAGS}),
    Making("Holdfast.client", lambda v: app().client(), {}),
    Making(
        "step",
        decorated(holdfast.step),
        {"function": FUNCTIONS, "name": NAMES, "retry": junk(), "timeout": SECONDS},
        ("step",),
    ),
    Making("workflow", decorated(holdfast.workflow), {"function": FUNCTIONS, "name": NAMES}, ("workflow",)),
    options(holdfast.Retry, near(things.integers(), st.floats()), retry_on=CLASSES, give_up_on=CLASSES),
    options(holdfast.Retention, SPANS, workflows=near(st.dictionaries(things.texts(), st.none()))),
    options(holdfast.ExecutorOptions, near(things.integers(), st.floats())),
    options(holdfast.LeaseOptions, near(things.integers(), st.floats())),
    options(holdfast.WorkerOptions, near(things.integers(), st.floats())),
    options(holdfast.JournalOptions, WHOLE),
    options(testing.CrashOptions, near(things.integers(), st.floats())),
    Making("Stats.count", lambda v: holdfast.Stats(runs=(), workers=()).count(**v), {"state": STATES}),
    Making(
        "sleep",
        slept,
        {"delay": near(st.integers(max_value=0), st.floats(max_value=0))},
        ("sleep",),
    ),
    Making("patched", lambda v: holdfast.patched(**v), {"name": NAMES}, ("patched",)),
    Making(
        "continue_as_new",
        lambda v: holdfast.continue_as_new(*v.values()),
        {"args": PAYLOADS, "kwargs": PAYLOADS},
        ("continue_as_new",),
    ),
    Making("current", lambda v: holdfast.current(), {}),
    Making("now", lambda v: holdfast.now(), {}),
    Making("random", lambda v: holdfast.random(), {}),
    Making("uuid4", lambda v: holdfast.uuid4(), {}),
    Making("fake", faked, {"step": junk(), "body": junk(), "returns": junk(), "raises": junk()}, ("fake",)),
    Making("play", played, {"main": junk(), "start": near(things.datetimes()), "seed": WHOLE}, ("play",)),
    Making("Clock.advance", advanced, {"span": near(st.floats(max_value=1e6), things.timedeltas())}, ("advance",)),
    Making(
        "Clock.app",
        clocked,
        {"sources": junk(), "path": near(things.texts()), "worker": junk()},
        ("include", "worker", "path", "module", "names no file"),
    ),
    Making(
        "run_until_idle",
        lambda v: testing.play(lambda clock: testing.run_until_idle(v["app"])),
        {"app": junk()},
        ("run_until_idle",),
    ),
    Making(
        "run_until_idle_sync",
        lambda v: testing.run_until_idle_sync(v["client"]),
        {"client": junk()},
        ("run_until_idle_sync",),
    ),
    Making("export_run", lambda v: testing.export_run(v["run"], os.devnull), {"run": junk()}, ("export_run",)),
    Making(
        "assert_replays",
        lambda v: testing.assert_replays(*{"recorded": "nowhere", "sources": flow, **v}.values(), hash_seeds=()),
        {"recorded": junk(), "sources": junk()},
        ("assert_replays", "include", "cannot read", "module"),
    ),
    Making(
        "assert_replays",
        lambda v: testing.assert_replays("nowhere", flow, **v),
        {"hash_seeds": near(st.lists(things.integers())), "seconds": SECONDS},
        ("hash_seeds", "seconds", "cannot read"),
    ),
    Making(
        "crash_everywhere",
        lambda v: testing.crash_everywhere(v["workflow"]),
        {"workflow": junk()},
        ("crash_everywhere",),
    ),
    Making(
        "crash_everywhere", lambda v: testing.crash_everywhere(flow, 1, **v), {"options": junk()}, ("crash_everywhere",)
    ),
]

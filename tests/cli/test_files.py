"""Runs as files: what goes out comes in again, character for character, or not at all."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.runtime.kit import until_state

from holdfast import RunState
from holdfast._model.bounds import INSTANT_US_MAX
from holdfast._model.exported import header, lines_of, read
from holdfast._model.records import ExportedRun, Imported, RunsImported, Scalar
from holdfast._store.exporting import exported
from holdfast._store.readonly import ReadOnlyDatabase
from holdfast._store.sqlite import SqliteStore
from holdfast._store.uri import parse
from holdfast._world import SystemWorld
from holdfast.errors import UsageError

Cli = Callable[..., Any]

TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
PAYLOAD = st.recursive(st.none() | st.integers() | TEXT, lambda inner: st.lists(inner, max_size=3), max_leaves=5)
INSTANT = st.integers(0, INSTANT_US_MAX)
MAYBE = st.none() | INSTANT
ENDED = [state.value for state in (RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED)]


def as_text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


@st.composite
def entries(draw: st.DrawFn) -> tuple[tuple[tuple[str, Scalar], ...], ...]:
    count = draw(st.integers(0, 4))
    order = draw(st.permutations(range(1, count + 1)))
    return tuple(
        (
            ("seq", seq),
            ("after", draw(st.integers(0, 9))),
            ("ordinal", draw(st.none() | st.just(order[seq - 1]))),
            ("kind", draw(st.sampled_from(["step", "timer", "patch"]))),
            ("name", draw(TEXT)),
            ("state", draw(st.sampled_from(["pending", "succeeded", "failed", "cancelled"]))),
            ("input", draw(st.none() | TEXT)),
            ("output", draw(st.none() | PAYLOAD.map(as_text))),
            ("error", draw(st.none() | st.dictionaries(TEXT, PAYLOAD, max_size=2).map(as_text))),
            ("attempts", draw(st.integers(0, 9))),
            ("started_at", draw(MAYBE)),
            ("finished_at", draw(MAYBE)),
            ("due_at", draw(MAYBE)),
        )
        for seq in range(1, count + 1)
    )


@st.composite
def runs(draw: st.DrawFn) -> ExportedRun:
    columns: dict[str, Scalar] = {
        "id": "x",
        "workflow": draw(TEXT.filter(bool)),
        "state": draw(st.sampled_from(list(RunState))).value,
        "input": draw(PAYLOAD.map(as_text)),
        "seed": draw(st.integers(-(2**63), 2**63 - 1)),
        "created_at": draw(INSTANT),
        "due_at": draw(MAYBE),
        "started_at": draw(MAYBE),
        "deadline_at": draw(MAYBE),
        "output": draw(st.none() | PAYLOAD.map(as_text)),
        "priority": draw(st.integers(-9, 9)),
        "reason": draw(st.none() | TEXT),
    }
    names = draw(st.lists(TEXT, unique=True, max_size=3))
    numbers = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    attributes = tuple((name, draw(TEXT | numbers)) for name in sorted(names, key=lambda name: name.encode()))
    return ExportedRun(tuple(columns.items()), attributes, draw(entries()))


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two empty databases."""
    folder = tmp_path_factory.mktemp("two")
    paths = folder / "one.db", folder / "other.db"
    for path in paths:
        put(path, RunsImported((), resume=False, now=1))
    return paths


def put(path: Path, record: RunsImported) -> Imported:
    async def work() -> Imported:
        store = SqliteStore(parse(f"sqlite:///{path}"), world=SystemWorld())
        await store.open(on_change=lambda: None)
        answered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        store.submit([record], worker=None, done=lambda outcomes, error: answered.set_result((outcomes, error)))
        outcomes, error = await answered
        await store.close()
        assert error is None, error
        return outcomes[0]  # type: ignore[no-any-return]

    return asyncio.run(work())


def out(path: Path, run_id: str) -> list[str]:
    with ReadOnlyDatabase(path) as database:
        sql = database.statement("run_of_id")
        key = database.read(lambda connection: connection.execute(sql, (run_id,)).fetchone()["number"])
        run = exported(database, key)
    assert run is not None
    return [header(1), *lines_of(run)]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(run=runs(), data=st.data())
def test_export_of_an_import_is_the_same_file(run: ExportedRun, data: st.DataObject, two: tuple[Path, Path]) -> None:
    """But for the state of a run that had not ended: it comes in as paused."""
    run_id = SystemWorld().new_id()
    put(two[0], RunsImported((run.called(run_id),), resume=False, now=1))
    first = out(two[0], run_id)
    (again,) = read(first, source="first")
    new_id = data.draw(st.sampled_from([run_id, f"{run_id}-renamed"]))
    put(two[1], RunsImported((again.called(new_id),), resume=False, now=1))
    second = out(two[1], new_id)
    assert second == [first[0], first[1].replace(f'"id":"{run_id}"', f'"id":"{new_id}"'), *first[2:]]
    state = dict(again.columns)["state"]
    assert state == (dict(run.columns)["state"] if dict(run.columns)["state"] in ENDED else "paused")


def test_unfinished_run_comes_in_paused_and_goes_on_when_resumed(worked_off: Cli) -> None:
    text = worked_off("export", "order-17", "ready-1", "later").out
    Path("runs.jsonl").write_text(text)
    answer = worked_off("import", "runs.jsonl", "--db", "sqlite:///other.db", "-o", "jsonl")
    assert [line["state"] for line in answer.lines] == ["succeeded", "paused", "paused"]
    resumed = worked_off("import", "runs.jsonl", "--db", "sqlite:///third.db", "--resume", "-o", "jsonl")
    assert [line["state"] for line in resumed.lines] == ["succeeded", "ready", "scheduled"]
    shown = worked_off("show", "order-17", "--db", "sqlite:///other.db", "-o", "json").json
    assert shown == worked_off("show", "order-17", "-o", "json").json
    assert worked_off("ls", "--attribute", "customer=anna", "--db", "sqlite:///other.db", "-o", "jsonl").lines


def test_imported_run_is_executed_to_its_end(shop: Path, cli: Cli) -> None:
    from holdfast.cli.loading import load_app

    cli("start", "checkout", 'order="1"', "--id", "o1")
    (shop / "run.jsonl").write_text(cli("export", "o1").out)
    assert cli("import", "run.jsonl", "--as", "o2", "--resume").out == "o2  · ready\n"
    app = load_app("shop:app")

    async def work() -> None:
        async with app:
            await asyncio.wait_for(until_state(app, "o2", "succeeded"), 30)

    asyncio.run(work())


def test_id_that_is_taken_is_refused_and_nothing_is_imported(worked_off: Cli) -> None:
    Path("runs.jsonl").write_text(worked_off("export", "later", "ready-1").out)
    worked_off("start", "sleeper", "--id", "ready-1", "--delay", "1h", "--db", "sqlite:///other.db")
    answer = worked_off("import", "runs.jsonl", "--db", "sqlite:///other.db", "-o", "json")
    assert (answer.code, answer.error["code"]) == (6, "run-conflict")
    assert "alone" in answer.error["hint"]  # --as is for one run
    assert worked_off("show", "later", "--db", "sqlite:///other.db").code == 3
    assert worked_off("import", "runs.jsonl", "--as", "x").code == 2


def test_export_by_conditions_and_of_unknown_ids(worked_off: Cli) -> None:
    lines = worked_off("export", "--workflow", "sleeper").out.splitlines()
    assert [json.loads(line)["run"]["id"] for line in lines if '"run":' in line] == ["later", "ready-1"]
    answer = worked_off("export", "later", "nobody", "-o", "json")
    assert (answer.code, answer.out) == (3, "")
    assert worked_off("export").code == 2
    assert worked_off("export", "later", "--workflow", "sleeper").code == 2


GOOD = [
    '{"holdfast":"export","version":1,"schema":2}',
    '{"run":{"id":"a","workflow":"w","state":"failed","input":"{}","seed":1,"created_at":2},"attributes":[],"entries":2}',
    '{"entry":{"seq":1,"after":0,"ordinal":1,"kind":"step","name":"s","state":"failed","attempts":1}}',
    '{"entry":{"seq":2,"after":0,"ordinal":2,"kind":"step","name":"s","state":"failed","attempts":1}}',
]


def test_files_may_be_put_together() -> None:
    other = [line.replace('"id":"a"', '"id":"b"') for line in GOOD]
    assert [run.id for run in read([*GOOD, *other], source="f")] == ["a", "b"]
    with pytest.raises(UsageError, match="line 4 comes too early: 1 entry of run 'a'"):
        read([*GOOD[:3], *other], source="f")
    with pytest.raises(UsageError, match="line 5 says version 2"):
        read([*GOOD, other[0].replace('"version":1', '"version":2'), *other[1:]], source="f")


def test_standard_output_is_no_backup(worked_off: Cli, shop: Path) -> None:
    answer = worked_off("backup", "-", "-o", "json")
    assert (answer.code, answer.out) == (2, "")
    assert not (shop / "-").exists()


@pytest.mark.parametrize(
    ("line", "before", "after", "message"),
    [
        (1, '"export"', '"backup"', "line 1 is no header"),
        (1, '"version":1', '"version":2', "line 1 says version 2"),
        (2, "}", "", "line 2 has input"),
        (2, '{"run"', '"run"', "line 2 is not JSON"),
        (2, GOOD[1], "[1]", "line 2 is not a JSON object"),
        (2, '"id":"a",', "", "line 2 lacks 'id'"),
        (2, '"failed"', '"lost"', "line 2 has state 'lost'"),
        (2, '"seed":1', '"seed":"1"', "line 2 has seed = '1', which is of the wrong type"),
        (2, '"seed":1', '"seed":1.5', "line 2 has seed = 1.5; a text"),
        (2, '"seed":1', '"seed":9223372036854775808', "does not fit 64 bits"),
        (2, '"{}"', '"{"', "line 2 has input = '{', which is not JSON text"),
        (2, '"entries":2', '"entries":3', "line 5 comes too early: 1 entry of run 'a'"),
        (2, '"entries":2', '"entries":1', "line 4 is an entry too many"),
        (2, '"attributes":[]', '"attributes":[[1,2]]', "line 2 has attributes"),
        (3, '"entry"', '"entri"', "line 3 is neither a run nor an entry"),
        (4, '"seq":2', '"seq":1', "line 4 is a second entry with seq 1"),
        (4, '"ordinal":2', '"ordinal":1', "line 4 is a second entry with ordinal 1"),
        (4, '"kind":"step",', "", "line 4 lacks 'kind'"),
    ],
)
def test_a_wrong_line_is_named(line: int, before: str, after: str, message: str) -> None:
    lines = list(GOOD)
    assert len(read(lines, source="f")[0].entries) == 2
    lines[line - 1] = lines[line - 1].replace(before, after, 1)
    with pytest.raises(UsageError) as caught:
        read(lines, source="f")
    assert message in str(caught.value)
    assert str(caught.value).startswith("f: line ")


@pytest.mark.parametrize("lines", [[], [GOOD[0]], GOOD[1:], GOOD[:1] + GOOD[2:], [*GOOD, *GOOD[1:]]])
def test_a_file_that_is_not_whole_is_refused(lines: list[str]) -> None:
    with pytest.raises(UsageError):
        read(lines, source="f")


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from(GOOD) | st.text(max_size=30) | st.binary(max_size=30), max_size=5))
def test_any_lines_are_read_or_refused(lines: list[str | bytes]) -> None:
    with suppress(UsageError):
        assert read(lines, source="f")


def test_column_that_the_database_lacks_and_values_it_refuses(cli: Cli) -> None:
    text = "\n".join(GOOD)
    Path("newer.jsonl").write_text(text.replace('"seed":1', '"seed":1,"flavour":"x"'))
    answer = cli("import", "newer.jsonl", "-o", "json")
    assert (answer.code, answer.error["code"]) == (8, "schema-mismatch")
    assert "holdfast_runs.flavour" in answer.error["message"]
    Path("wrong.jsonl").write_text(text.replace('"step"', '"stap"'))
    assert cli("import", "wrong.jsonl", "-o", "json").error["code"] == "record-refused"
    Path("quoted.jsonl").write_text(text.replace('"seed":1', '"seed":1,"x) values (1); drop table holdfast_runs --":1'))
    assert cli("import", "quoted.jsonl", "-o", "json").error["code"] == "schema-mismatch"
    connection = sqlite3.connect("orders.db")
    assert connection.execute("select count(*) from holdfast_runs").fetchone()[0] == 0
    connection.close()
    assert cli("import", "nowhere.jsonl").code == 2
    assert cli("import", ".").code == 2

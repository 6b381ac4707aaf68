"""Files that are read: exports with lines that are wrong, backups that are damaged, order books. Whole,
or not at all."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fuzz.commandline import Answer, call, check, fresh, inside, rows
from tests.fuzz.hostile import EXAMPLES, TEXT, examples

from holdfast import Holdfast
from holdfast.cli.loading import load_app

pytestmark = pytest.mark.crash

DEEP = "[" * 50_000
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.lists(st.integers(), max_size=2),
    st.sampled_from([2**63, -(2**63), 2**63 - 1, 2**53, -1, 253_402_300_800_000_000, "", "\0", "{", "[]", "{}", "7",
     "null", '"x"',
                     DEEP, "x" * 100_000, "\x1b[2J\n", "succeeded", "failed", "running", "paused", "step", "timer",
                      "Infinity", {}, [], {"a": 1},
                     '{"type": 7}', '{"type":"os:system","args":["x"],"message":[]}', '{"causes": 7}',
                     '{"state": []}']),
)  # fmt: skip
JUNK = st.one_of(
    st.binary(max_size=30),
    TEXT.map(lambda text: text.encode("utf-8", "surrogateescape")),
    st.sampled_from(
        [b"", b"\n", b"{}", b"[]", b"null", b"NaN", b'{"run": NaN}', b'{"run": {}}', b'{"entry": {}}',
         b'{"run": []}', b"{" * 50_000,
         b"[" * 50_000, b'{"a":' * 50_000, b'{"run":' + b"[" * 50_000,
         b'{"holdfast":"export","version":1,"schema":5}', b"x" * 3_000_000,
         b'{"holdfast":"export","version":2}', b'{"holdfast":"export","version":' + b"9" * 5000 + b"}", b"\xff\xfe",
         b"\xef\xbb\xbf{}",
         b'{"run": {"id": "\\ud800"}}', b'{"run":1,"entry":2}', b'{"entry": {"seq": 1e999}}']
    ),
)  # fmt: skip


@pytest.fixture(scope="module")
def template(shop_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shop with an export and a backup."""
    folder = fresh(shop_folder, tmp_path_factory.mktemp("template") / "shop")
    with inside(folder):
        Path("runs.jsonl").write_text(call("export", "done", "failed-1", "asleep", "ready-1").out)
        assert call("backup", "copy.db").code == 0
    return folder


@pytest.fixture
def here(template: Path, tmp_path: Path) -> Generator[Path]:
    folder = tmp_path / "shop"
    with inside(tmp_path):
        fresh(template, folder)
        os.chdir(folder)
        yield folder


def imported(data: bytes, empty: dict[str, Any]) -> Answer:
    """Import into a database without runs: all of the file or nothing, and what came in can be looked at."""
    Path("junk.jsonl").write_bytes(data)
    answer = check(call("import", "junk.jsonl", "--db", "sqlite:///new.db", "-o", "jsonl"), output="jsonl")
    replayed = check(call("replay", "junk.jsonl", "shop:app"))
    if answer.code:
        assert rows(Path("new.db")) == empty, answer.told()
        assert "junk.jsonl" in answer.err, answer.told()
        return answer
    assert replayed.code in {0, 1, 2}
    ids = [json.loads(line)["id"] for line in answer.out.splitlines()]
    for args in (
        ("ls", "-o", "json"),
        ("ls",),
        ("stats",),
        ("export", *ids),
        *(("show", run_id) for run_id in ids[:2]),
    ):
        seen = check(call(*args[:1], "--db", "sqlite:///new.db", *args[1:]), output="json" if "json" in args else None)
        assert seen.code == 0, f"{seen.told()} after {data!r:.2000}"
    return answer


@pytest.fixture
def new(here: Path) -> Callable[[], dict[str, Any]]:
    """Makes `new.db`, without runs."""

    def make() -> dict[str, Any]:
        for path in Path().glob("new.db*"):
            path.unlink()
        Path("new.db").write_bytes(blank)
        return rows(Path("new.db"))

    assert call("migrate", "--db", "sqlite:///new.db").code == 0
    blank = Path("new.db").read_bytes()
    return make


def test_an_export_that_is_right_comes_in(new: Callable[[], dict[str, Any]]) -> None:
    assert imported(Path("runs.jsonl").read_bytes(), new()).code == 0


def test_lines_that_are_wrong_keep_the_whole_file_out(new: Callable[[], dict[str, Any]]) -> None:
    good = Path("runs.jsonl").read_bytes().splitlines()

    @examples(30, share=0.2)
    @given(st.data())
    def spoiled(data: st.DataObject) -> None:
        lines = [*good]
        for _ in range(data.draw(st.integers(1, 3))):
            at = data.draw(st.integers(0, len(lines) - 1)) if lines else 0
            match data.draw(st.sampled_from(["drop", "twice", "swap", "junk", "cut", "flip", "end"])):
                case "drop":
                    del lines[at : at + 1]
                case "twice":
                    lines[at:at] = lines[at : at + 1]
                case "swap":
                    lines[at : at + 2] = lines[at : at + 2][::-1]
                case "junk":
                    lines.insert(at, data.draw(JUNK))
                case "cut" if lines:
                    lines[at] = lines[at][: data.draw(st.integers(0, len(lines[at])))]
                case "flip" if lines and lines[at]:
                    place = data.draw(st.integers(0, len(lines[at]) - 1))
                    lines[at] = lines[at][:place] + bytes([data.draw(st.integers(0, 255))]) + lines[at][place + 1 :]
                case _:
                    lines = lines[:at]
        imported(b"\n".join(lines), new())

    spoiled()


def test_any_value_in_any_column_is_taken_or_refused(new: Callable[[], dict[str, Any]]) -> None:
    good = [json.loads(line) for line in Path("runs.jsonl").read_bytes().splitlines()]
    places = [
        (at, kind, name) for at, line in enumerate(good) for kind in ("run", "entry") for name in line.get(kind, ())
    ]
    places += [(at, None, name) for at, line in enumerate(good) for name in line]

    @examples(40, share=0.3)
    @given(st.lists(st.tuples(st.sampled_from(places), VALUES), min_size=1, max_size=3))
    def changed(changes: list[tuple[tuple[int, str | None, str], Any]]) -> None:
        lines = json.loads(json.dumps(good))
        for (at, kind, name), value in changes:
            where = lines[at] if kind is None else lines[at].get(kind)
            if isinstance(where, dict):
                where[name] = value
        imported("\n".join(json.dumps(line) for line in lines).encode("utf-8", "surrogatepass"), new())

    changed()


def test_a_run_that_came_in_from_anywhere_never_stops_the_others(new: Callable[[], dict[str, Any]]) -> None:
    good = [json.loads(line) for line in Path("runs.jsonl").read_bytes().splitlines()]
    entries = [at for at, line in enumerate(good) if "entry" in line]
    workflows = load_app("shop:app")._known.values()

    @examples(5, share=0.03)
    @given(
        st.lists(st.tuples(st.sampled_from(entries), st.sampled_from([*good[entries[0]]["entry"]]), VALUES), max_size=3)
    )
    def executed(changes: list[tuple[int, str, Any]]) -> None:
        lines = json.loads(json.dumps(good))
        for line in lines[1:]:
            if "run" in line:
                line["run"] |= {"state": "paused", "ended_at": None, "output": None, "error": None, "due_at": None}
        for at, name, value in changes:
            lines[at]["entry"][name] = value
        Path("junk.jsonl").write_text("\n".join(map(json.dumps, lines)))
        new()
        code = check(call("import", "junk.jsonl", "--resume", "--db", "sqlite:///new.db")).code
        assert code in {0, 1, 2, 8}
        app = Holdfast("sqlite:///new.db")
        app.include(*workflows)
        with app.sync(worker=True) as client:
            assert "A-9" in client.run("checkout", "A-9")
        check(call("ls", "--db", "sqlite:///new.db"))

    executed()


def test_standard_input_is_read_as_a_file_is(new: Callable[[], dict[str, Any]]) -> None:
    empty = new()
    for data in (b"", b"junk", b"\xff", Path("runs.jsonl").read_bytes()[:-20]):
        answer = check(call("import", "-", "--db", "sqlite:///new.db", stdin=data))
        assert answer.code == 2, answer.told()
        assert "standard input" in answer.err
    assert rows(Path("new.db")) == empty


def test_a_damaged_backup_is_refused_or_whole(here: Path) -> None:
    whole, before = Path("copy.db").read_bytes(), Path("orders.db").read_bytes()
    names = {path.name for path in here.iterdir()}
    for seed in range(max(10, EXAMPLES // 5)):
        chance = random.Random(f"backup {seed}")
        data = bytearray(whole)
        for _ in range(chance.choice([1, 1, 1, 20, 500])):
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        if chance.random() < 0.3:
            del data[chance.randrange(len(data)) :]
        Path("junk.db").write_bytes(data)
        answer = check(call("restore", "junk.db"))
        if answer.code:
            assert Path("orders.db").read_bytes() == before, f"seed {seed}: {answer.told()}"
        else:
            looked = check(call("ls", "-o", "json"), output="json")
            assert looked.code in {0, 1}, f"seed {seed}: {looked.told()}"
            Path("orders.db").write_bytes(before)
        left = {path.name for path in here.iterdir()} - names - {"junk.db"}
        for name in left:
            assert name.startswith(("orders.db.before-restore-", "orders.db-turn-")), f"seed {seed}: {name}"
            Path(name).unlink()


@pytest.mark.parametrize(
    "args", [("backup", "FILE"), ("backup", "FILE", "--force"), ("restore", "FILE"), ("import", "FILE")]
)
@pytest.mark.parametrize("name", ["folder", "loop", "missing/x", "x" * 300, "x" * 5000, "\udcff\udcfe", "a\nb", "-",
 "orders.db", "link",
                                  "orders.db-wal", "orders.db-turn-a", "/dev/full", "/proc/nothing", "",
                                  "."])  # fmt: skip
def test_any_name_of_a_file_is_used_or_refused(args: tuple[str, ...], name: str, here: Path) -> None:
    Path("folder").mkdir()
    Path("loop").symlink_to("loop")
    Path("link").symlink_to("orders.db")
    before = rows(Path("orders.db"))
    check(call(args[0], "-o", "json", *args[2:], "--", name), output="json")
    assert rows(Path("orders.db")) == before
    assert not [*here.glob(".*.partial")]


ORDERS = st.one_of(
    st.binary(max_size=100),
    st.builds(
        lambda header, lines: "\n".join([header, *lines]).encode("utf-8", "surrogateescape"),
        st.sampled_from(["order_id,customer,item,quantity,cents", "order_id", "",
         "order_id,customer,item,quantity,cents,x"]),
        st.lists(
            st.sampled_from(["1,anna,tea,1,-5", "1,a,b,1e3,5", "1,a,b,1," + "9" * 5000, '"1', "1,a,b", ",,,,",
             "1,a\x1b[2J,b,x,y", "\0"])
            | TEXT,
            min_size=1,
            max_size=3,
        ),
    ),
)  # fmt: skip


def test_any_order_book_is_refused_line_by_line(here: Path) -> None:
    @examples(25, share=0.1)
    @given(ORDERS)
    def refused(data: bytes) -> None:
        Path("orders.csv").write_bytes(data + b"\n1,anna,tea,0,-1\n")
        answer = check(call("demo", "--file", "orders.csv", "--kills", "0"))
        assert answer.code == 2, answer.told()
        assert "orders.csv" in answer.err

    refused()

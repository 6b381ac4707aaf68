"""`ls`, `count`, `stats` and `--where`: the query language on the command line."""

from __future__ import annotations

import json

import pytest
from tests.cli.conftest import Cli


@pytest.fixture
def orders(cli: Cli) -> Cli:
    """Ten orders that wait for a worker, and one that was cancelled."""
    for number in range(10):
        attributes = ["--attribute", f"customer={number % 2}", "--attribute", f"city=C{number}"]
        assert cli("start", "checkout", f"order={number}", "--id", f"o{number}", *attributes).code == 0
    assert cli("start", "refund", "--id", "gone", "--delay", "1h").code == 0
    assert cli("cancel", "gone").code == 0
    return cli


def ids(cli: Cli, *args: str) -> list[str]:
    answer = cli("ls", *args, "-o", "jsonl")
    assert answer.code == 0, answer.err
    return [json.loads(line)["id"] for line in answer.out.splitlines()]


def test_ls_takes_a_query_in_one_word_or_several(orders: Cli) -> None:
    assert ids(orders, "state:ready customer:1 id:o1,o2,o3") == ["o3", "o1"]
    assert ids(orders, "state:ready", "customer:1", "id:o1,o2,o3") == ["o3", "o1"]
    assert ids(orders, "customer:1", "--state", "ready", "--attribute", "city=C3") == ["o3"]
    assert ids(orders, "created:>2h") == []


def test_negated_conditions_are_not_taken_for_options(orders: Cli) -> None:
    assert ids(orders, "-state:ready") == ["gone"]
    assert ids(orders, "-workflow:checkout", "--limit", "5") == ["gone"]
    assert ids(orders, "-customer:1", "-@city:C0", "workflow:checkout") == ["o8", "o6", "o4", "o2"]
    assert "o8" in orders("ls", "workflow:checkout", "--limit", "1", "--", "-id:o9").out
    assert orders("ls", "-x").code == 2


def test_an_error_shows_the_place_and_the_likely_word(orders: Cli) -> None:
    answer = orders("ls", "state:ready", "custmer:1")
    assert answer.code == 2
    lines = answer.err.splitlines()
    assert lines[0] == "error: 'custmer' is neither a key nor an attribute of any run"
    assert lines[1].index("custmer") == lines[2].index("^^^^^^^")
    assert lines[3].startswith("  (hint: did you mean 'customer'?")
    error = orders("count", "state:redy", "-o", "json").error
    assert (error["code"], error["query"], error["at"]) == ("query", "state:redy", 6)
    assert "\n" not in error["message"]


@pytest.mark.parametrize(
    "line",
    [
        *["ls workflow:chekcout", "ls --workflow chekcout", "count workflow:chekcout", "prune --workflow chekcout"],
        *["retry --workflow chekcout", "cancel --where workflow:chekcout", "prune --workflow chekcout --dry-run"],
    ],
)
def test_an_empty_answer_names_the_workflow_that_does_not_exist(orders: Cli, line: str) -> None:
    answer = orders(*line.split())
    assert answer.code == 0
    assert answer.err.endswith("no run and no worker has a workflow 'chekcout' (hint: did you mean 'checkout'?)\n")
    note = json.loads(orders(*line.split(), "-o", "json").err)["note"]
    assert note["hint"] == "did you mean 'checkout'?"


@pytest.mark.parametrize(
    "line",
    [
        "ls workflow:checkout state:failed",
        "ls -workflow:chekcout state:failed",
        "ls workflow:chek* id:none",
        "ls id:none",
    ],
)
def test_an_empty_answer_that_is_no_slip_says_nothing_more(orders: Cli, line: str) -> None:
    assert orders(*line.split()).err == "no runs\n"


def test_workflows_are_listed_when_none_is_alike(orders: Cli) -> None:
    assert "(hint: there are checkout, " in orders("ls", "workflow:zzz").err


def test_a_page_names_the_next_one(orders: Cli) -> None:
    found: list[str] = []
    after: list[str] = []
    while True:
        answer = orders("ls", "workflow:checkout", "--limit", "4", *after, "-o", "json")
        found += [run["id"] for run in answer.json]
        if not answer.err:
            break
        after = ["--after", json.loads(answer.err)["next"]]
    assert found == [f"o{number}" for number in range(9, -1, -1)]
    assert orders("ls", "--after", "nonsense").code == 2


def test_count_counts_up_to_a_bound(orders: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    assert orders("count").out == "11\n"
    assert orders("count", "customer:1", "-id:o1").out == "4\n"
    assert orders("count", "--state", "cancelled", "-o", "json").json == {"runs": 1, "more": False}
    monkeypatch.setattr("holdfast.cli.ls.TOTAL_MAX", 5)
    monkeypatch.setattr("holdfast.cli.count.TOTAL_MAX", 5)
    assert orders("count").out == "5+\n"
    assert orders("count", "-o", "json").json == {"runs": 5, "more": True}
    assert orders("count", "--exact").out == "11\n"


def test_steering_takes_a_query_and_still_asks(orders: Cli) -> None:
    assert orders("cancel", "--where", "customer:1").code == 7
    assert ids(orders, "state:cancelled") == ["gone"]
    assert orders("cancel", "--where", "customer:1 -id:o9", "--yes").code == 0
    assert ids(orders, "state:cancelled customer:1") == ["o7", "o5", "o3", "o1"]
    assert orders("pause", "--where", "customer:0 id:o0,o2").code == 0
    assert ids(orders, "state:paused") == ["o2", "o0"]
    assert orders("resume", "--where", "-state:cancelled", "-o", "json").json == [
        {"id": "o2", "state": "ready"},
        {"id": "o0", "state": "ready"},
    ]
    assert orders("retry", "o1", "--where", "customer:1").code == 2
    assert orders("retry", "--where", "custmer:1").code == 2
    assert orders("cancel", "--where", "", "--yes").code == 2


def test_stats_tell_how_it_went(worked_off: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = worked_off("stats", "--window", "1d", "-o", "json").json
    assert seen["window_seconds"] == 86_400
    row = next(row for row in seen["ended"] if row["workflow"] == "declined")
    assert (row["ended"], row["failed"], row["failed_share"], row["sampled"]) == (1, 1, 1.0, 1)
    assert 0 <= row["p50"] <= row["p95"] < 60
    table = worked_off("stats", "--window", "1d").out
    assert "ended within the last 1 d" in table
    assert "100.0%" in table
    monkeypatch.setenv("COLUMNS", "40")
    assert max(map(len, worked_off("stats").out.splitlines()[-8:-2])) <= 40
    assert worked_off("stats", "--window", "0s").code == 2
    assert "no run has ended within the last 1.0 ms" in worked_off("stats", "--window", "1ms").out

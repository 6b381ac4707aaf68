"""Starting, seeing and steering runs from the command line, on a real database that a real worker has worked on."""

from __future__ import annotations

import io
import json
import os
import re
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

Cli = Callable[..., Any]

RUN_KEYS = {
    *("id", "workflow", "state", "input", "output", "error", "reason", "attributes", "priority", "worker", "request"),
    *("generation", "crashes", "forked_from", "created_at", "due_at", "started_at", "ended_at", "deadline_at"),
}
ENTRY_KEYS = {
    *("seq", "after", "ordinal", "kind", "name", "state", "input", "output", "error", "attempts"),
    *("started_at", "finished_at", "due_at"),
}

# start


def test_start_prints_nothing_but_the_id(cli: Cli) -> None:
    answer = cli("start", "checkout", "order=A", "--id", "o1")
    assert (answer.code, answer.out, answer.err) == (0, "o1\n", "")


def test_start_takes_pairs_as_json_or_text(cli: Cli) -> None:
    words = ["a=1", "b=text", 'c="1"', "d=[1,2]", "e=null", "f=x=y", "g="]
    run = cli("start", "any", *words, "-o", "json").json
    assert run["input"] == {"a": 1, "b": "text", "c": "1", "d": [1, 2], "e": None, "f": "x=y", "g": ""}


def test_start_takes_one_json_object(cli: Cli) -> None:
    assert cli("start", "any", '{"a": {"b": 1}}', "-o", "jsonl").json["input"] == {"a": {"b": 1}}


@pytest.mark.parametrize("words", [["[1]"], ["{1"], ["order"], ["=1"], ["a=1", "a=2"], ['{"a":1}', "b=2"]])
def test_start_refuses_other_arguments_and_writes_nothing(cli: Cli, shop: Path, words: list[str]) -> None:
    answer = cli("start", "any", *words)
    assert answer.code == 2
    assert "(hint: " in answer.err
    assert not (shop / "orders.db").exists()


def test_start_passes_its_options_on(cli: Cli) -> None:
    options = [
        "--priority",
        "7",
        "--delay",
        "2h",
        "--timeout",
        "10m",
        "--attribute",
        "customer=anna",
        "--attribute",
        "n=1",
    ]
    run = cli("start", "any", *options, "-o", "json").json
    assert set(run) == RUN_KEYS
    assert (run["priority"], run["state"]) == (7, "scheduled")
    assert run["attributes"] == {"customer": "anna", "n": 1}
    assert run["due_at"] > run["created_at"]


def test_start_at_an_instant(cli: Cli) -> None:
    run = cli("start", "any", "--at", "2999-03-01T09:00+01:00", "-o", "json").json
    assert run["due_at"] == "2999-03-01T08:00:00Z"


@pytest.mark.parametrize(
    "option", [("--delay", "soon"), ("--at", "noon"), ("--timeout", "5 weeks"), ("--priority", "x")]
)
def test_start_refuses_options_it_cannot_read(cli: Cli, option: tuple[str, str]) -> None:
    answer = cli("start", "any", *option)
    assert answer.code == 2
    assert option[1] in answer.err


def test_start_checks_name_and_arguments_against_an_app(cli: Cli) -> None:
    misspelt = cli("start", "chekout", "--app", "shop:app", "-o", "json")
    assert (misspelt.code, misspelt.error["hint"]) == (2, "did you mean 'checkout'?")
    wrong = cli("start", "checkout", "order=7", "--app", "shop:app")
    assert wrong.code == 2
    assert "order" in wrong.err
    assert cli("start", "checkout", 'order="7"', "--app", "shop:app", "--id", "o7").out == "o7\n"


def test_start_of_the_same_id_is_the_same_run_or_a_conflict(cli: Cli) -> None:
    assert cli("start", "any", "a=1", "--id", "x").code == 0
    assert cli("start", "any", "a=1", "--id", "x").out == "x\n"
    assert cli("start", "any", "a=2", "--id", "x").code == 6
    assert (
        cli("start", "any", "a=1", "--id", "x", "--on-conflict", "raise", "-o", "json").error["code"] == "run-conflict"
    )


def test_start_takes_parameters_that_are_called_like_its_options(cli: Cli) -> None:
    run = cli("start", "optioned", "id=a", "timeout=5", "--app", "shop:app", "--id", "r", "-o", "json").json
    assert (run["id"], run["input"]) == ("r", {"id": "a", "timeout": 5})


# ls


def test_ls_lists_newest_first(worked_off: Cli) -> None:
    runs = worked_off("ls", "-o", "json").json
    assert [run["id"] for run in runs] == ["ready-1", "later", "declined-1", "order-17"]
    assert all(set(run) == RUN_KEYS | {"waits"} for run in runs)
    assert [run["waits"] for run in runs] == ["no worker is alive", None, None, None]
    assert [json.loads(line) for line in worked_off("ls", "-o", "jsonl").out.splitlines()] == runs


def test_ls_filters(worked_off: Cli) -> None:
    def ids(*args: str) -> list[str]:
        return [run["id"] for run in worked_off("ls", *args, "-o", "jsonl").lines]

    assert ids("--state", "failed") == ["declined-1"]
    assert ids("--state", "failed,ready") == ["ready-1", "declined-1"]
    assert ids("--workflow", "checkout") == ["order-17"]
    assert ids("--attribute", "customer=anna") == ["order-17"]
    assert ids("--limit", "1") == ["ready-1"]
    assert worked_off("ls", "--state", "faild").code == 2


def test_ls_table_shows_what_matters(worked_off: Cli) -> None:
    rows = {line.split()[0]: line for line in worked_off("ls").out.splitlines()}
    assert "✗ failed" in rows["declined-1"]
    assert "ValueError: the card was declined" in rows["declined-1"]
    assert "customer=anna" in rows["order-17"]


@pytest.mark.parametrize("columns", ["40", "80", "140"])
def test_ls_never_cuts_an_id(cli: Cli, monkeypatch: pytest.MonkeyPatch, columns: str) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    long = "order-" + "x" * 120
    cli("start", "any", "--id", long)
    assert long in cli("ls").out.split()


def test_empty_listing_says_so_on_stderr(cli: Cli) -> None:
    cli("migrate")
    answer = cli("ls")
    assert (answer.out, answer.err) == ("", "no runs\n")
    assert cli("ls", "-o", "json").json == []
    assert cli("ls", "-o", "jsonl").out == ""


# show


def test_show_as_json_is_the_run_with_its_history(worked_off: Cli) -> None:
    shown = worked_off("show", "order-17", "-o", "json").json
    assert set(shown) == RUN_KEYS | {"waits", "history"}
    assert (shown["waits"], worked_off("show", "ready-1", "-o", "json").json["waits"]) == (None, "no worker is alive")
    assert [(e["name"], e["state"], e["attempts"]) for e in shown["history"]] == [
        ("charge", "succeeded", 2),
        ("pack", "succeeded", 1),
    ]
    assert all(set(entry) == ENTRY_KEYS for entry in shown["history"])
    assert shown["history"][0]["input"] == {"order": "A-17", "cents": 5}


def test_show_draws_header_and_timeline(worked_off: Cli) -> None:
    out = worked_off("show", "declined-1").out
    assert out.splitlines()[0].split() == ["declined-1", "declined", "✗", "failed"]
    assert "ValueError: the card was declined" in out
    assert "shop.py:" in out
    assert "Traceback" not in out
    assert "━" in out
    assert "Traceback" in worked_off("show", "declined-1", "--traceback").out


@pytest.mark.parametrize("columns", [80, 140])
def test_show_fits_the_terminal(worked_off: Cli, monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    for run_id in ("order-17", "declined-1", "later"):
        assert max(map(len, worked_off("show", run_id).out.splitlines())) <= columns


def test_show_of_an_unknown_run_is_not_found(worked_off: Cli) -> None:
    answer = worked_off("show", "order-18")
    assert (answer.code, answer.out) == (3, "")
    assert answer.err == "error: no run with id 'order-18' (hint: list the runs with `holdfast ls`)\n"


def test_show_watch_ends_when_the_run_has(worked_off: Cli) -> None:
    lines = worked_off("show", "order-17", "--watch", "-o", "jsonl").lines
    assert [line["state"] for line in lines] == ["succeeded"]


# wait


def test_wait_prints_the_result(worked_off: Cli) -> None:
    assert worked_off("wait", "order-17").json == {"payment": "payment-A-17"}
    assert worked_off("wait", "order-17", "-o", "jsonl").out == '{"payment":"payment-A-17"}\n'


def test_wait_for_a_failed_run(worked_off: Cli) -> None:
    answer = worked_off("wait", "declined-1", "-o", "json")
    assert (answer.code, answer.out, answer.error["code"]) == (4, "", "run-failed")
    assert answer.error["message"] == "run 'declined-1' failed: ValueError: the card was declined"


def test_wait_for_a_cancelled_run(worked_off: Cli) -> None:
    worked_off("cancel", "later")
    assert worked_off("wait", "later").code == 4


def test_wait_times_out(worked_off: Cli) -> None:
    answer = worked_off("wait", "ready-1", "--timeout", "1ms", "-o", "json")
    assert (answer.code, answer.error["code"]) == (5, "wait-timeout")
    assert "ready" in answer.error["message"]


def test_a_run_that_took_workers_down_is_named_wherever_somebody_looks(
    worked_off: Cli, shop: Path, process: Callable[..., Any]
) -> None:
    with closing(sqlite3.connect(shop / "orders.db")) as connection, connection:
        connection.execute("update holdfast_runs set crashes = 3, workflow = 'gone' where id = 'ready-1'")
    suspicion = "its process has died with it 3 times in a row; will be tried alone"
    assert worked_off("show", "ready-1", "-o", "json").json["waits"] == "no worker is alive"
    assert [run["id"] for run in worked_off("ls", "crashes:>0", "-o", "json").json] == ["ready-1"]
    stats = worked_off("stats", "-o", "json").json
    assert stats["suspects"] == [{"id": "ready-1", "workflow": "gone", "state": "ready", "crashes": 3}]
    assert f"ready-1 (gone): {suspicion}" in worked_off("stats").out
    (finding,) = [c for c in worked_off("doctor", "-o", "json").json["checks"] if c["name"] == "suspect"]
    assert (finding["level"], finding["advice"][-21:]) == ("warn", "holdfast show ready-1")
    (shop / "other.py").write_text("from shop import app, sleeper\nfrom holdfast import workflow\n")
    with (shop / "other.py").open("a") as code:  # a worker that knows it, and has no room for it
        code.write("from holdfast import Holdfast, WorkerOptions, ExecutorOptions\n")
        code.write("app = Holdfast(worker=WorkerOptions(execution=ExecutorOptions(runs_max=0)))\n")
        code.write("@app.workflow(name='gone')\nasync def gone() -> None: ...\n")
    worker = process("worker", "other:app", "-o", "jsonl")
    worker.stdout.readline()
    assert suspicion in worked_off("ls", "id:ready-1").out
    assert f"waits       {suspicion}" in worked_off("show", "ready-1").out
    assert worked_off("ls", "id:ready-1", "-o", "json").json[0]["waits"] == suspicion


def test_runs_that_nobody_takes_are_told_with_what_takes_them(worked_off: Cli) -> None:
    for command in ("ls", "stats"):
        answer = worked_off(command)
        assert "no worker is alive" in answer.out + answer.err
        assert "`holdfast worker MOD:APP` starts one" in answer.out + answer.err
    stats = worked_off("stats", "-o", "json").json
    assert stats["waiting"] == [{"workflow": "sleeper", "runs": 1, "reason": "no worker is alive"}]
    assert worked_off("ls", "id:later").err == ""


def test_a_killed_worker_is_dead_at_once_wherever_somebody_looks(
    cli: Cli, shop: Path, process: Callable[..., Any]
) -> None:
    pipe = shop / "begun"
    os.mkfifo(pipe)
    cli("start", "lasting", "--id", "lasting-1")
    worker = process("worker", "shop:app", "-o", "jsonl", BEGUN=str(pipe))
    assert pipe.read_text() == "begun"
    assert "no worker is alive" not in "".join([*said(cli("ls")), *said(cli("stats")), *said(cli("workers"))])
    worker.kill()
    worker.wait()  # its lease stands for half a minute more
    assert [row["state"] for row in cli("workers", "-o", "json").json] == ["dead"]
    table = cli("workers")
    assert re.search(r" dead  +\S+ m?s +gone +1", table.out)
    assert table.err == "no worker is alive: `holdfast worker MOD:APP` starts one\n"
    assert "no worker is alive, and 1 run waits for one: `holdfast worker MOD:APP` starts one" in cli("stats").out
    assert [row["state"] for row in cli("stats", "-o", "json").json["workers"]] == ["dead"]
    assert cli("ls").err == "no worker is alive: `holdfast worker MOD:APP` starts one\n"
    assert cli("show", "lasting-1", "-o", "json").json["waits"] == "no worker is alive"
    assert "no worker is alive to go on with 'lasting-1'" in cli("wait", "lasting-1", "--timeout", "1.1").err


def said(answer: Any) -> tuple[str, str]:
    return answer.out, answer.err


def test_wait_without_patience_answers_for_a_run_that_has_ended(worked_off: Cli) -> None:
    worked_off("cancel", "later")
    assert worked_off("wait", "later", "--timeout", "0").code == 4


def test_wait_for_an_unknown_run(worked_off: Cli) -> None:
    assert worked_off("wait", "nobody").code == 3


# cancel, pause, resume, retry, fork


def test_runs_are_steered(worked_off: Cli) -> None:
    assert worked_off("pause", "ready-1", "-o", "json").json == [{"id": "ready-1", "state": "paused"}]
    assert worked_off("resume", "ready-1", "-o", "json").json == [{"id": "ready-1", "state": "ready"}]
    assert worked_off("retry", "declined-1", "-o", "jsonl").lines == [{"id": "declined-1", "state": "ready"}]
    assert worked_off("cancel", "later").out.split() == ["later", "–", "cancelled"]


def test_retry_of_a_succeeded_run_is_a_conflict(worked_off: Cli) -> None:
    assert worked_off("retry", "order-17").code == 6


@pytest.mark.parametrize(
    ("verb", "run_id", "code"),
    [
        *[("cancel", "order-17", 6), ("pause", "order-17", 6), ("resume", "order-17", 6), ("resume", "declined-1", 6)],
        *[("cancel", "later", 0), ("pause", "later", 0), ("resume", "ready-1", 0)],
    ],
)
def test_a_request_that_an_ended_run_leaves_alone_is_a_conflict(
    worked_off: Cli, verb: str, run_id: str, code: int
) -> None:
    before = worked_off("show", run_id, "-o", "json").json
    answer = worked_off(verb, run_id)
    assert answer.code == code
    if code:
        assert (answer.out, f"nothing to {verb}" in answer.err) == ("", True)
        assert worked_off("show", run_id, "-o", "json").json == before
        by_condition = worked_off(verb, "--where", f"id:{run_id}", "--state", before["state"], "--yes")
        assert (by_condition.code, by_condition.out.split()[-4:]) == (0, ["left", "as", "it", "is"])


def test_every_run_is_steered_and_the_first_failure_is_the_exit_code(worked_off: Cli) -> None:
    answer = worked_off("pause", "nobody", "ready-1", "-o", "json")
    assert (answer.code, answer.json) == (3, [{"id": "ready-1", "state": "paused"}])
    assert answer.error["code"] == "run-not-found"


def test_steering_needs_ids_or_conditions(worked_off: Cli) -> None:
    assert worked_off("pause").code == 2
    assert worked_off("pause", "ready-1", "--workflow", "sleeper").code == 2


def test_cancel_of_several_needs_a_yes(worked_off: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    for what in (("later", "ready-1"), ("--workflow", "sleeper")):
        answer = worked_off("cancel", *what, "-o", "json")
        assert (answer.code, answer.error["code"]) == (7, "confirmation-needed")
    assert worked_off("ls", "--state", "cancelled", "-o", "json").json == []
    answer = worked_off("cancel", "--workflow", "sleeper", "--yes", "-o", "jsonl")
    assert {line["id"] for line in answer.lines} == {"later", "ready-1"}
    assert worked_off("cancel", "--workflow", "sleeper").err == "no runs to cancel\n"


@pytest.mark.parametrize(("typed", "code"), [("y\n", 0), ("n\n", 7)])
def test_cancel_of_several_asks_on_a_terminal(
    worked_off: Cli, monkeypatch: pytest.MonkeyPatch, typed: str, code: int
) -> None:
    stdin = io.StringIO(typed)
    monkeypatch.setattr(stdin, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdin", stdin)
    assert worked_off("cancel", "later", "ready-1").code == code


def test_fork_prints_the_new_id(worked_off: Cli) -> None:
    assert worked_off("fork", "declined-1", "--at", "2", "--id", "again").out == "again\n"
    forked = worked_off("show", "again", "-o", "json").json
    assert (forked["state"], forked["forked_from"]) == ("ready", "declined-1")
    assert [entry["name"] for entry in forked["history"]] == ["pack"]


def test_fork_takes_a_result_in_place_of_an_entry(worked_off: Cli) -> None:
    run = worked_off("fork", "declined-1", "--at", "2", "--result", '{"ok": true}', "-o", "json").json
    history = worked_off("show", run["id"], "-o", "json").json["history"]
    assert history[1]["output"] == {"ok": True}


def test_fork_at_an_entry_that_is_not_there(worked_off: Cli) -> None:
    assert worked_off("fork", "declined-1", "--at", "9").code == 2
    assert worked_off("fork", "nobody", "--at", "1").code == 3
    assert worked_off("fork", "declined-1", "--at", "1", "--id", "order-17").code == 6


# stats


def test_stats_count_runs_and_name_workers(worked_off: Cli) -> None:
    seen = worked_off("stats", "-o", "json").json
    assert {"workflow": "checkout", "state": "succeeded", "runs": 1} in seen["runs"]
    assert set(seen["workers"][0]) == {"id", "host", "pid", "state", "started_at", "lease_until", "workflows", "runs"}
    assert "sleeper" in worked_off("stats").out


def test_workers_are_listed_and_those_that_are_gone_on_request(cli: Cli, process: Callable[..., Any]) -> None:
    worker = process("worker", "shop:app", "-o", "jsonl")
    event = json.loads(worker.stdout.readline())
    (row,) = cli("workers", "-o", "json").json
    assert (row["id"], row["state"], row["pid"], row["runs"]) == (event["worker"], "live", worker.pid, 0)
    assert row["workflows"] == event["workflows"]
    table = cli("workers").out.splitlines()
    assert table[0].split() == ["worker", "host", "pid", "state", "up", "for", "lease", "runs", "workflows"]
    assert table[1].startswith(event["worker"])
    assert table[1].rstrip().endswith("checkout, declined, lasting, optioned, sleeper")
    worker.terminate()
    worker.communicate()
    assert cli("workers").err == "no worker is alive\n"
    assert cli("workers", "-o", "json").json == []
    assert [w["state"] for w in cli("workers", "--all", "-o", "jsonl").lines] == ["left"]
    assert re.search(r" left  +\S+ s +gone \d+ s ago ", cli("workers", "--all").out)
    assert cli("workers", "--al").code == 2

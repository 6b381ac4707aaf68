from __future__ import annotations

from holdfast._model.lifecycle import ENDED, TRANSITIONS, EntryState, RunState
from holdfast._model.records import APPLY_ORDER, EntryRecorded


def test_every_record_but_an_entry_is_in_the_table() -> None:
    assert {kind.__name__ for kind in APPLY_ORDER} - {EntryRecorded.__name__} == TRANSITIONS.keys()


def test_every_state_can_be_reached_and_every_unended_one_left() -> None:
    reached = {target for _, targets in TRANSITIONS.values() for target in targets}
    assert reached == set(RunState)
    left = {source for sources, _ in TRANSITIONS.values() for source in sources}
    assert left >= set(RunState) - ENDED


def test_only_people_bring_an_ended_run_back() -> None:
    kinds = {kind for kind, (sources, targets) in TRANSITIONS.items() if sources & ENDED and targets}
    assert kinds == {"ResumeRequested", "RetryRequested"}
    assert all(RunState.SUCCEEDED not in sources for sources, targets in TRANSITIONS.values() if targets)


def test_only_ended_runs_are_ever_removed() -> None:
    assert [kind for kind, (_, targets) in TRANSITIONS.items() if not targets] == ["RunsPruned"]
    assert TRANSITIONS["RunsPruned"][0] == ENDED


def test_a_worker_moves_only_running_runs() -> None:
    for kind in ("RunEnded", "RunContinued", "RunParked", "RunReleased", "RunBlocked", "RunPaused"):
        assert TRANSITIONS[kind][0] == {RunState.RUNNING}


def test_states_are_words_that_sql_can_compare() -> None:
    assert [str(state) for state in RunState] == [state.value for state in RunState]
    assert {state.value for state in EntryState} == {"pending", "succeeded", "failed", "cancelled"}
    assert {state.value for state in ENDED} == {"succeeded", "failed", "cancelled"}

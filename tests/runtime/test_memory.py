"""What the process uses and what it may use."""

from __future__ import annotations

from holdfast._runtime.memory import SHARE, Memory, available_bytes, resident_bytes


def test_memory_is_short_beyond_its_bound_and_not_at_it() -> None:
    assert not Memory(100, resident=lambda: 100).is_short()
    assert Memory(100, resident=lambda: 101).is_short()


def test_memory_is_never_short_where_the_system_does_not_tell() -> None:
    assert not Memory(1, resident=lambda: None).is_short()


def test_without_a_bound_it_is_a_share_of_what_there_is() -> None:
    assert Memory().bytes_max == int(available_bytes() * SHARE)
    assert not Memory().is_short()


def test_what_this_process_uses_is_more_than_nothing_and_less_than_there_is() -> None:
    used = resident_bytes()
    assert used is None or 1_000_000 < used < available_bytes()

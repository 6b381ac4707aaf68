"""Options of the client's calls: checked before anything is written, each error naming the value and the next move."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from holdfast._flow.activation import OPERATIONS_MAX
from holdfast._flow.definitions import Workflow
from holdfast._model.attributes import attribute_pairs
from holdfast._model.bounds import ID_CHARS_MAX, INSTANT_US_MAX, INSTANT_US_MIN, check_text, is_id, plain, shown
from holdfast._model.codec import codec_for
from holdfast._model.lifecycle import ENDED, RunState
from holdfast._model.retention import Retention
from holdfast.errors import UsageError

PRIORITY_MAX: Final = 1_000_000
LIMIT_MAX: Final = 10_000
ARGUMENTS_MAX: Final = 10_000
STATES_MAX: Final = 100
TEXT_CHARS_MAX: Final = 1_000
PATH_BYTES_MAX: Final = 4_095
SECONDS_MAX: Final = 100 * 365 * 86_400.0
OPTION_NAMES: Final = frozenset({"id", "on_conflict", "priority", "delay", "at", "timeout", "attributes"})
UNSET: Final[Any] = type("Unset", (), {"__repr__": lambda _: "<not given>"})()
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_CONFLICTS: Final = ("return", "raise", "restart")


class StartOptions:
    """The options of one start, checked."""

    __slots__ = ("_at_us", "_delay_us", "attributes_text", "id", "on_conflict", "pairs", "priority", "timeout_us")

    def __init__(
        self,
        *,
        id: str | None = None,
        on_conflict: str = "return",
        priority: int = 0,
        delay: float | timedelta | None = None,
        at: datetime | None = None,
        timeout: float | timedelta | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> None:
        if not isinstance(on_conflict, str) or on_conflict not in _CONFLICTS:
            raise UsageError(f"on_conflict={shown(on_conflict)} must be one of {', '.join(map(repr, _CONFLICTS))}")
        if type(priority) is not int or not -PRIORITY_MAX <= priority <= PRIORITY_MAX:
            raise UsageError(f"priority={shown(priority)} must be a whole number, -{PRIORITY_MAX} to {PRIORITY_MAX}")
        if delay is not None and at is not None:
            raise UsageError("delay and at are two ways to say the same", hint="give one of them")
        self.id = None if id is None else check_id(id)
        self.on_conflict = on_conflict
        self.priority = priority
        self._delay_us = None if delay is None else _microseconds("delay", delay, least=0)
        self._at_us = None if at is None else instant_us("at", at)
        self.timeout_us = None if timeout is None else _microseconds("timeout", timeout, least=1)
        self.pairs = () if attributes is None else attribute_pairs(attributes)
        self.attributes_text = None if not attributes else codec_for(Any).encode(dict(attributes), where="attributes")

    def due_us(self, now: int) -> int | None:
        """When the run is due, or none for at once."""
        if self._at_us is not None:
            return self._at_us if self._at_us > now else None
        return now + self._delay_us if self._delay_us else None


def check_id(run_id: object) -> str:
    """A run's id: 1 to 200 characters, none of them a control character."""
    if not is_id(run_id):
        raise UsageError(f"id={shown(run_id)} must be a string of 1 to {ID_CHARS_MAX} printable characters")
    return plain(run_id)


def check_at(at: object) -> None:
    """A fork's entry."""
    if type(at) is not int or not 1 <= at <= OPERATIONS_MAX:
        raise UsageError(f"fork(at={shown(at)}) must be the number of an entry, 1 to {OPERATIONS_MAX:,}")


def call_of(args: object, kwargs: object) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A fork's arguments."""
    if not isinstance(args, Sequence) or isinstance(args, str | bytes):
        raise UsageError(f"fork(args={shown(args)}) must be a list or a tuple of arguments")
    if len(args) > ARGUMENTS_MAX:
        raise UsageError(f"fork(args=...) has {len(args):,} arguments; the bound is {ARGUMENTS_MAX:,}")
    if kwargs is not None and not (isinstance(kwargs, Mapping) and all(isinstance(name, str) for name in kwargs)):
        raise UsageError(f"fork(kwargs={shown(kwargs)}) must be a mapping of names to arguments")
    return tuple(args), {plain(name): value for name, value in (kwargs or {}).items()}


def check_limit(limit: object) -> None:
    """A listing's bound."""
    if type(limit) is not int or not 1 <= limit <= LIMIT_MAX:
        raise UsageError(f"limit={shown(limit)} must be a whole number from 1 to {LIMIT_MAX}")


def check_wait(timeout: object) -> None:
    """How long to wait for a result."""
    if timeout is not None and not is_seconds(timeout):
        raise UsageError(
            f"result(timeout={shown(timeout)}) must be seconds, 0 to {SECONDS_MAX:g}",
            hint="None waits for as long as it takes",
        )


def raw_input(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """The input of a workflow whose code is not known here: keyword arguments as they are."""
    if args:
        raise UsageError(
            f"workflow {shown(name)} is not known here, so its parameters have no names",
            hint="pass keyword arguments",
        )
    return codec_for(Any).settle(kwargs, where=name)[0]


class PruneOptions:
    """The options of one call of `prune`, checked.

    Args:
        retention: what decides where `older_than` does not; none keeps everything for ever.
    """

    __slots__ = ("_older_than", "_retention", "_states", "_workflow", "runs_max")

    def __init__(
        self,
        retention: Retention | None,
        *,
        older_than: float | timedelta | None,
        states: str | Iterable[str] | None,
        workflow: Workflow[..., Any] | str | None,
        limit: int | None,
        on_progress: object,
    ) -> None:
        if limit is not None and (type(limit) is not int or limit < 1):
            raise UsageError(f"limit={shown(limit)} must be a whole number of at least 1, or None")
        if on_progress is not None and not callable(on_progress):
            raise UsageError(f"on_progress={shown(on_progress)} must be a function of what was pruned so far")
        if older_than is None and retention is None:
            raise UsageError(
                "this app keeps its runs for ever (retention=None), so there is nothing to prune by itself",
                hint="say which: prune(older_than=timedelta(days=30))",
            )
        self._retention = retention
        self._older_than = (
            None if older_than is None else timedelta(microseconds=_microseconds("older_than", older_than, least=0))
        )
        self._states = _ended_states(states)
        self._workflow = workflow.name if isinstance(workflow, Workflow) else text_or_none("workflow", workflow)
        self.runs_max = limit

    def age(self, workflow: str, state: str) -> timedelta | None:
        """How long runs of this workflow that ended in this state are kept; none for those that are not meant."""
        if state not in self._states or self._workflow not in (None, workflow):
            return None
        if self._older_than is not None:
            return self._older_than
        return None if self._retention is None else self._retention.age(workflow, state)


def instant_us(name: str, value: object) -> int:
    """An aware datetime as microseconds UTC."""
    if not isinstance(value, datetime) or value.utcoffset() is None:
        raise UsageError(
            f"{name}={shown(value)} must be a datetime with a time zone",
            hint="for example datetime.now(UTC) + timedelta(...)",
        )
    at = (value - _EPOCH) // timedelta(microseconds=1)
    if not INSTANT_US_MIN <= at <= INSTANT_US_MAX:
        raise UsageError(f"{name}={shown(value)} must be an instant of the years 1 to 9999 in UTC")
    return at


def states_of(state: object) -> tuple[str, ...]:
    """One state or several, each a word of `RunState`; empty for none."""
    if state is None:
        return ()
    if not isinstance(state, Iterable) or isinstance(state, bytes | bytearray):
        raise UsageError(f"state={shown(state)} must be the name of a state, or several")
    known = [s.value for s in RunState]
    states: dict[str, None] = {}
    for place, name in enumerate((state,) if isinstance(state, str) else state):
        if place == STATES_MAX:
            raise UsageError(f"state={shown(state)} names too many states; the bound is {STATES_MAX}")
        if not isinstance(name, str) or name not in known:
            near = difflib.get_close_matches(shown(name).strip("'"), known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"one of {', '.join(known)}"
            raise UsageError(f"state={shown(name)} is not a state of a run", hint=hint)
        states[plain(name)] = None
    return tuple(states)


def _ended_states(states: object) -> tuple[str, ...]:
    if states is not None and not isinstance(states, str | Iterable):
        raise UsageError(f"states={shown(states)} must be a state or several")
    chosen = states_of(states)
    if states is not None and not chosen:  # a list that came out empty must not remove everything
        raise UsageError("states=... names no state", hint="leave it out to mean every ended run")
    for state in chosen:
        if state not in ENDED:
            raise UsageError(
                f"a run that is {state} has not ended; only ended runs can be pruned",
                hint="states are succeeded, failed and cancelled",
            )
    return chosen or tuple(state.value for state in ENDED)


def text_or_none(name: str, value: object) -> str | None:
    """A text that can be stored, if there is one."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise UsageError(f"{name}={shown(value)} must be a string")
    check_text(name, value, chars_max=TEXT_CHARS_MAX)
    return plain(value)


def path_of(path: object) -> Path:
    """Where to write a file."""
    hint = 'such as "backup.db"'
    if not isinstance(path, str | os.PathLike):
        raise UsageError(f"backup(path={shown(path)}) must be the path of a new file", hint=hint)
    text = os.fsdecode(path)
    try:
        encoded = os.fsencode(text)
    except UnicodeEncodeError as error:
        raise UsageError(f"backup(path={shown(text)}) must be a path, and holds a lone surrogate", hint=hint) from error
    if not encoded or b"\0" in encoded or len(encoded) > PATH_BYTES_MAX:
        raise UsageError(
            f"backup(path={shown(text)}) must be a path of 1 to {PATH_BYTES_MAX:,} bytes, none of them NUL", hint=hint
        )
    return Path(plain(text))


def is_seconds(value: object) -> bool:
    """Whether a value is a number of seconds that can be waited for."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= SECONDS_MAX


def _microseconds(name: str, value: object, *, least: int) -> int:
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if not is_seconds(seconds):
        raise UsageError(f"{name}={shown(value)} must be seconds, 0 to {SECONDS_MAX:g}, or such a timedelta")
    microseconds = int(seconds * 1_000_000)  # type: ignore[operator]
    if microseconds < least:
        raise UsageError(f"{name}={shown(value)} must be more than 0")
    return microseconds

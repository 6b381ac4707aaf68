"""Retry: when a failed attempt is tried again, and how long later. A frozen value, no clock, no entropy."""

from __future__ import annotations

import math
from dataclasses import dataclass

from holdfast._model.bounds import check_number, shown
from holdfast.errors import UsageError

DELAY_SECONDS_MAX = 365 * 86_400.0
"""The longest back-off, one year."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """How often, how soon and after which errors a step is tried again.

    The delay before attempt n+1 is ``first_delay * factor ** (n - 1)``, at most `max_delay`, changed by up to
    ``± jitter`` of itself. Attempts and the next time are stored, so a restart neither forgets nor repeats them.

    Args:
        attempts: attempts in total, the first included; 1 means no retry.
        first_delay: seconds before the second attempt.
        factor: by what each delay grows, at least 1.
        max_delay: upper bound of a delay, in seconds.
        jitter: share of the delay that is random, 0 to 1.
        retry_on: only these exception classes are tried again.
        give_up_on: these never are; it wins over `retry_on`.

    Raises:
        UsageError: an option is out of its bounds.
    """

    attempts: int = 3
    first_delay: float = 0.5
    factor: float = 2.0
    max_delay: float = 60.0
    jitter: float = 0.1
    retry_on: tuple[type[BaseException], ...] = (Exception,)
    give_up_on: tuple[type[BaseException], ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.attempts, int) or isinstance(self.attempts, bool) or self.attempts < 1:
            raise UsageError(f"Retry(attempts={shown(self.attempts)}) must be a whole number of at least 1")
        check_number(self, "first_delay", low=0, high=DELAY_SECONDS_MAX)
        check_number(self, "factor", low=1, high=1000)
        check_number(self, "max_delay", low=0, high=DELAY_SECONDS_MAX)
        check_number(self, "jitter", low=0, high=1)
        _are_exceptions("retry_on", self.retry_on)
        _are_exceptions("give_up_on", self.give_up_on)

    def wants_another(self, error: BaseException, *, attempt: int) -> bool:
        """Whether attempt number `attempt`, which failed with `error`, is followed by another."""
        if attempt >= self.attempts or isinstance(error, self.give_up_on):
            return False
        return isinstance(error, self.retry_on)

    def delay_us(self, *, attempt: int, chance: float) -> int:
        """Microseconds to wait after attempt number `attempt`; `chance` in [0, 1) places the jitter."""
        exponent = min(attempt - 1, 1000)
        growth = math.exp(min(exponent * math.log(self.factor), 700.0))
        delay = min(self.first_delay * growth, self.max_delay)
        return int(delay * (1 + self.jitter * (2 * chance - 1)) * 1_000_000)


def _are_exceptions(name: str, value: object) -> None:
    classes = value if isinstance(value, tuple) else (value,)
    if not isinstance(value, tuple) or not all(isinstance(c, type) and issubclass(c, BaseException) for c in classes):
        raise UsageError(f"Retry({name}={shown(value)}) must be a tuple of exception classes")


NO_RETRY = Retry(attempts=1)
"""One attempt, the default of a step."""

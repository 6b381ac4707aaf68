"""Test kit: virtual time, fakes, histories that must replay, and proof that a workflow survives dying at any moment.

```python
from holdfast.testing import crash_everywhere

def test_checkout_survives_dying():
    crash_everywhere(checkout, Order("order-17", cents=4200))
```

    play, Clock           a month of sleeping takes milliseconds
    fake                  the body of a step replaced
    run_until_idle        until nothing is left to do now
    crash_everywhere      dying before and after every record
    assert_replays        a run or a recorded history against the code at hand, also under other hash seeds

The fixtures of the pytest plugin (`pytest_holdfast`) are made of these. Nothing here sleeps for real or needs
a network.
"""

from __future__ import annotations

from holdfast.testing.clock import Clock, play
from holdfast.testing.crash import CrashOptions, CrashReport, crash_everywhere, crash_everywhere_async
from holdfast.testing.fakes import Fake, fake
from holdfast.testing.idle import run_until_idle, run_until_idle_sync
from holdfast.testing.life import Outcome
from holdfast.testing.replays import assert_replays, export_run

__all__ = [
    "Clock",
    "CrashOptions",
    "CrashReport",
    "Fake",
    "Outcome",
    "assert_replays",
    "crash_everywhere",
    "crash_everywhere_async",
    "export_run",
    "fake",
    "play",
    "run_until_idle",
    "run_until_idle_sync",
]

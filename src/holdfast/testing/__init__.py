"""Test kit: prove that a workflow survives dying at any moment.

```python
from holdfast.testing import crash_everywhere

def test_checkout_survives_dying():
    crash_everywhere(checkout, Order("order-17", cents=4200))
```

`crash_everywhere` needs no event loop, no fixtures and no real time: see `holdfast.testing.crash`.
"""

from __future__ import annotations

from holdfast.testing.crash import CrashOptions, CrashReport, Outcome, crash_everywhere, crash_everywhere_async

__all__ = [
    "CrashOptions",
    "CrashReport",
    "Outcome",
    "crash_everywhere",
    "crash_everywhere_async",
]

"""The suite that every store passes: what `port.py` promises, as named checks.

Each check gets a fresh, open store in a `Bench` and speaks to it through the `Store` protocol only, so the same checks
hold for every database. `CHECKS` are for all stores, `SHARED_CHECKS` for those that outlive a connection: their factory
may be called again and leads to the same database. A failed expectation is an `AssertionError` that shows what was
wanted and what was found.

    @pytest.mark.parametrize("check", CHECKS, ids=name_of)
    def test_my_store(check): asyncio.run(run_check(check, lambda: MyStore(...)))

The life of a run is checked in both directions against `lifecycle.TRANSITIONS`: from each state, a record that the
table allows moves the run to where the table says, and every other record is refused or leaves the row as it is.
"""

from holdfast.testing.store_conformance import (
    batches,
    going_back,
    importing,
    life,
    pruning,
    reading,
    searching,
    workers,
)
from holdfast.testing.store_conformance.bench import Bench, Check, Factory, name_of, run_check
from holdfast.testing.store_conformance.life import MOVES

__all__ = ["CHECKS", "MOVES", "SHARED_CHECKS", "Bench", "Check", "Factory", "name_of", "run_check"]

CHECKS: tuple[Check, ...] = (
    *life.CHECKS,
    *batches.CHECKS,
    *workers.CHECKS,
    *going_back.CHECKS,
    *pruning.CHECKS,
    *importing.CHECKS,
    *reading.CHECKS,
    *searching.CHECKS,
)
"""For every store."""

SHARED_CHECKS: tuple[Check, ...] = reading.SHARED_CHECKS
"""For stores that several processes can share."""

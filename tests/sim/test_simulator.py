"""Seeds of the simulator, its own determinism, and engines that lie to it.

``HOLDFAST_SIM=5000`` makes the hunt long (`make crash` does), ``HOLDFAST_SIM_FIRST=20000`` takes other seeds,
``HOLDFAST_SIM_SEED=17`` repeats one.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.crash.figures import Add, Progress
from tests.sim.hunt import hunt, line_of, live
from tests.sim.lies import LIES, RARE_LIES, Lie
from tests.sim.simulation import Simulation

ROOT = Path(__file__).resolve().parents[2]
SEEDS = int(os.environ.get("HOLDFAST_SIM", "80"))
FIRST = int(os.environ.get("HOLDFAST_SIM_FIRST", "0"))
ONE_SEED = os.environ.get("HOLDFAST_SIM_SEED")
LIE_SEEDS = 40
"""Seeds within which every lie must be found; three times as many for a rare one."""
TOLD = LIES if "HOLDFAST_SIM" not in os.environ else (*LIES, *RARE_LIES)
DIGESTS = """
import sys
from pathlib import Path
from tests.sim.test_simulator import digests
print(*digests(Path(sys.argv[1])))
"""

pytestmark = pytest.mark.crash


@pytest.mark.slow
def test_seeds_lose_and_repeat_nothing(figures: Add, progress: Progress, capsys: pytest.CaptureFixture[str]) -> None:
    began = time.monotonic()
    counts, failures = hunt(FIRST, SEEDS, progress) if ONE_SEED is None else hunt(int(ONE_SEED), 1)
    with capsys.disabled():
        print(f"\n{line_of(counts, failures, time.monotonic() - began)}")
    trials = f"{counts['seeds']:,} seeds, {counts['crashes']:,} crashes, {counts['zombies']:,} zombies"
    wrong = {"lost": len(failures), "repeated": len(failures)}
    figures("simulator", trials=trials, facts=counts["facts"], seed=f"{FIRST}–{FIRST + SEEDS - 1}", **wrong)
    assert not failures, "\n\n".join(failures[:3])


def digests(folder: Path) -> list[str]:
    """What some seeds come to: every commit, body, fault and answer, with its instant."""
    return [live(seed, folder).digest for seed in (14, 15)]


def test_a_seed_decides_everything(tmp_path: Path) -> None:
    once = digests(tmp_path)
    assert digests(tmp_path) == once
    assert len(set(once)) == len(once)
    for hash_seed in ("0", "4711"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        command = [sys.executable, "-c", DIGESTS, str(tmp_path)]
        child = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        assert child.stdout.split() == once, child.stderr


@pytest.mark.slow
@pytest.mark.parametrize("lie", TOLD, ids=lambda lie: lie.__name__)
def test_an_engine_that_lies_is_found_out(lie: Lie, tmp_path: Path) -> None:
    def hunt_it() -> None:
        for seed in range(LIE_SEEDS * (3 if lie in RARE_LIES else 1)):
            live(seed, tmp_path, new_store=new_store)

    with lie() as new_store, pytest.raises(AssertionError, match="HOLDFAST_SIM_SEED="):
        hunt_it()


def test_a_failure_tells_the_seed_the_story_and_how_to_repeat_it(tmp_path: Path) -> None:
    path = tmp_path / "5.db"
    path.touch()
    simulation = Simulation(5, path)
    simulation.ledger.check(False, "something that must not be")
    report = simulation.report()
    simulation.ledger.close()
    simulation.loop.close()
    assert report.startswith("seed 5: something that must not be\n")
    assert "HOLDFAST_SIM_SEED=5 python -m pytest tests/sim -k seeds" in report

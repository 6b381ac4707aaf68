"""Power cuts: FULL loses nothing, and the same trials show what NORMAL loses and OFF destroys.

`make crash` cuts HOLDFAST_CUTS times (20,000) for each mode; CI some hundreds of times. See `disk.py` for the argument.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.crash.figures import Add, Progress
from tests.crash.power import judge, recording
from tests.crash.power.trials import Player, Tally, copy_of, cut_often, recover

CUTS = int(os.environ.get("HOLDFAST_CUTS", "240"))
CUTS_A_RECORDING = 1_000
RUNS = 60
REAL_CHECKPOINT_PAGES = 4_000
RUNS_UNTIL_REAL_CHECKPOINT = 300
ENDS = 3 if CUTS < CUTS_A_RECORDING else 30

pytestmark = [
    pytest.mark.crash,
    pytest.mark.skipif(bool(recording.why_not()), reason=recording.why_not()),
]


@pytest.fixture(scope="module")
def recorder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return recording.build(recording.SOURCE, tmp_path_factory.mktemp("recorder"))


@pytest.fixture
def folder() -> Iterator[Path]:
    """In memory where that is possible: thousands of disks are written here."""
    memory = Path("/dev/shm")
    place = memory if os.access(memory, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="holdfast-power-", dir=place) as temporary:
        yield Path(temporary).resolve()


@pytest.fixture(scope="module")
def seed() -> int:
    return int(os.environ.get("HOLDFAST_SEED", random.SystemRandom().randrange(2**32)))


def tried(
    recorder: Path,
    folder: Path,
    *,
    synchronous: str,
    cuts: int,
    seed: int,
    recoveries: int,
    figures: Add,
    progress: Progress,
    capsys: pytest.CaptureFixture[str],
) -> Tally:
    """Record as often as it takes, cut each recording, print the figures."""
    tally, left, changes_in_all = Tally(), cuts, 0
    for number in range(-(-cuts // CUTS_A_RECORDING)):
        real = number % 10 == 9  # sometimes with the log folded in as seldom as it really is
        changes = recording.record(
            recorder,
            folder / "life",
            seed=seed + number,
            runs=RUNS_UNTIL_REAL_CHECKPOINT if real else RUNS,
            synchronous=synchronous,
            checkpoint_pages=REAL_CHECKPOINT_PAGES if real else 40,
        )
        changes_in_all += len(changes)
        now, examples = min(left, CUTS_A_RECORDING), len(tally.examples)
        cut_often(changes, folder / "disk", tally, cuts=now, recoveries=recoveries, seed=seed + number)
        left -= now
        progress(f"synchronous={synchronous}: {tally.trials:,} of {cuts:,} power cuts")
        if synchronous == "full" and len(tally.examples) > examples:
            shutil.copytree(folder / "life", keep := Path(tempfile.mkdtemp(prefix="holdfast-power-failed-")) / "life")
            tally.examples.append(f"the recording is kept in {keep}")
        shutil.rmtree(folder / "life")
    recovered = f", {tally.recoveries:,} recovered" if tally.recoveries else ""
    counts = {"lost": tally.lost, "damaged": tally.damaged} | ({"repeated": 0} if recovered else {})
    figures(synchronous, trials=f"{tally.trials:,} cuts{recovered}", facts=tally.facts, seed=seed, **counts)
    with capsys.disabled():
        print(
            f"\nsynchronous={synchronous}: {tally.trials} power cuts in {changes_in_all} changes, "
            f"{tally.facts} acknowledged facts checked, {tally.lost} disks with losses, {tally.damaged} damaged, "
            f"{tally.changed} changed, {tally.recoveries} recovered by a worker; seed {seed}"
        )
    return tally


def test_full_loses_nothing_that_was_acknowledged(
    recorder: Path, folder: Path, seed: int, figures: Add, progress: Progress, capsys: pytest.CaptureFixture[str]
) -> None:
    tally = tried(
        recorder,
        folder,
        synchronous="full",
        cuts=CUTS,
        seed=seed,
        recoveries=12,
        figures=figures,
        progress=progress,
        capsys=capsys,
    )
    assert tally.ok, "\n".join(tally.examples)


def test_normal_loses_what_was_acknowledged_last_and_damages_nothing(
    recorder: Path, folder: Path, seed: int, figures: Add, progress: Progress, capsys: pytest.CaptureFixture[str]
) -> None:
    tally = tried(
        recorder,
        folder,
        synchronous="normal",
        cuts=CUTS,
        seed=seed,
        recoveries=6,
        figures=figures,
        progress=progress,
        capsys=capsys,
    )
    assert tally.lost > 0, "the trials are too mild: they would not notice that FULL had lost something, either"
    assert (tally.damaged, tally.changed) == (0, 0), "\n".join(tally.examples)


def test_off_damages_the_file(
    recorder: Path, folder: Path, seed: int, figures: Add, progress: Progress, capsys: pytest.CaptureFixture[str]
) -> None:
    tally = tried(
        recorder,
        folder,
        synchronous="off",
        cuts=CUTS // 3,
        seed=seed,
        recoveries=0,
        figures=figures,
        progress=progress,
        capsys=capsys,
    )
    assert tally.damaged > 0, "the trials are too mild"
    assert tally.lost > 0


def test_process_that_ends_at_any_change_leaves_what_it_acknowledged(
    recorder: Path, folder: Path, seed: int, figures: Add
) -> None:
    """The real end of a real process, with the page cache as it was; with FULL also with the cache gone."""
    dice, facts, ends = random.Random(seed), 0, (("full", "normal") * ENDS)[:ENDS]
    for number, synchronous in enumerate(ends):
        life = folder / f"life-{number}"
        end_at = dice.randrange(1, 2_500)
        changes = recording.record(
            recorder, life, seed=seed + number, runs=RUNS, end_at=end_at, synchronous=synchronous
        )
        player = Player(changes)
        player.until(len(changes))
        facts += player.told.facts
        left = life / "power.db"
        where = f"change {len(changes)}, seed {seed}"
        assert judge.judge(judge.read(copy_of(left)), player.told, ever={}).ok, where
        recover(left, player.told)
        if synchronous == "full":
            recover(judge.lay_out(player.disk.survivors(dice), folder / "disk"), player.told)
        shutil.rmtree(life)
    trials = f"{ends.count('full')} ends with FULL, {ends.count('normal')} with NORMAL"
    figures("ends", trials=trials, facts=facts, lost=0, repeated=0, damaged=0, seed=seed)

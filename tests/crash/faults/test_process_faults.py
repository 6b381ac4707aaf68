"""Faults of the process and its host: no descriptors, forks, a clock that jumps, a network file system."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from tests.crash.faults.kit import TRIES, Faults, assert_kept, subject
from tests.crash.power.recording import ROOT

from holdfast import Holdfast, StoreUnsupported
from holdfast._store import place

pytestmark = pytest.mark.crash
SOME = 20
DAY_NS = 86_400 * 10**9
JUMPS = 1 + TRIES // 10
CHILDREN = 6 * (1 + TRIES // 10)


def test_a_process_without_free_descriptors_keeps_its_work_and_buries_nobody(faults: Faults, folder: Path) -> None:
    """Looking whether another worker lives takes a descriptor; not being able to look is no proof of death."""
    with (
        subject(folder / "a.db", "--name", "a", faults=faults) as running,
        subject(folder / "a.db", "--name", "b") as other,
    ):
        for each in (running, other):
            each.until_results(SOME)
        faults.switches.no_files.strike()
        running.until_logged("Too many open files", times=2)
        running.until_results(SOME)
        faults.switches.no_files.end()
        for each in (running, other):
            each.until_results(SOME)
            assert each.finish() == 0
            assert "is dead" not in each.log
            assert "Traceback" not in each.log, each.log
        for each in (running, other):
            assert_kept(folder / "a.db", each.told)


EXHAUSTED = """
import asyncio, os, resource, sys
from pathlib import Path
from holdfast import Holdfast, StoreUnavailable
from tests.crash.power.victim import app_at, in_a_row, tell

async def main():
    tell.append(str)
    resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))
    app, other = app_at(Path(sys.argv[1])), app_at(Path(sys.argv[1]))
    async with app:
        assert await app.run(in_a_row, 3, "", id="before")
        taken = []
        try:
            while True:
                taken.append(os.open("/dev/null", os.O_RDONLY))
        except OSError:
            pass
        assert await app.run(in_a_row, 3, "", id="meanwhile"), "an open app needs no more"
        for opening in (other, other.client()):
            try:
                async with opening:
                    raise AssertionError("opened without a descriptor")
            except StoreUnavailable as error:
                print(error)
        for descriptor in taken:
            os.close(descriptor)
        async with other.client() as client:
            assert await client.get("meanwhile").result() == await app.get("meanwhile").result()

asyncio.run(main())
"""


def test_an_app_that_cannot_be_opened_for_want_of_descriptors_says_so(folder: Path) -> None:
    process = run_script(EXHAUSTED, folder / "a.db")
    assert process.returncode == 0, process.stderr
    assert len(process.stdout.splitlines()) == 2
    for line in process.stdout.splitlines():
        assert "Too many open files" in line
        assert "number of open files" in line, "the hint"


FORKING = """
import asyncio, multiprocessing, os, sys
from pathlib import Path
from holdfast import Holdfast, step, workflow

path, forks = Path(sys.argv[1]), int(sys.argv[2])

@step
async def square(number: int) -> int:
    return number * number

@step
def compute(number: int) -> int:
    '''As a library may that uses processes: forked, in the middle of everything.'''
    answers, process = (context := multiprocessing.get_context("fork")).SimpleQueue(), None
    process = context.Process(target=lambda: answers.put(number + 1))
    process.start()
    try:
        return answers.get()
    finally:
        process.join()
        answers.close()

@workflow
async def flow(number: int) -> int:
    return await square(await compute(await square(number)))

def child(number: int) -> None:
    '''A forked child with an app of its own on the same file.'''
    app = Holdfast(f"sqlite:///{path}")
    app.include(flow)
    with app.sync() as client:
        client.start(flow, number, id=f"child-{number}")

async def main():
    app = Holdfast(f"sqlite:///{path}")
    app.include(flow)
    async with app:
        runs = [await app.start(flow, number, id=f"run-{number}") for number in range(12)]
        children = []
        for number in range(forks):
            pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    if number % 2:
                        child(number)
                    code = 0
                finally:
                    os._exit(code)
            children.append(pid)
            await asyncio.sleep(0)
        assert [await run.result() for run in runs] == [(number * number + 1) ** 2 for number in range(12)]
        for pid in children:
            assert await asyncio.to_thread(os.waitpid, pid, 0) == (pid, 0)
        for number in range(1, forks, 2):
            assert await app.get(f"child-{number}").result() == (number * number + 1) ** 2
        print((await app.stats()).count("succeeded"))

asyncio.run(main())
"""


def test_forks_in_the_middle_of_everything_cost_nothing(folder: Path) -> None:
    process = run_script(FORKING, folder / "a.db", CHILDREN)
    assert (process.returncode, process.stdout, process.stderr) == (0, f"{12 + CHILDREN // 2}\n", "")


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "9p"])
def test_a_network_file_system_is_refused_before_anything_is_made(
    kind: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounts = f"36 35 98:0 / / rw - ext4 /dev/root rw\n37 36 0:44 / {folder} rw - {kind} server:/export rw\n"
    monkeypatch.setattr(place, "file_system", lambda parent: place.kind_in_mountinfo(parent, mounts))

    async def main() -> None:
        for opening in (Holdfast(f"sqlite:///{folder}/a.db"), Holdfast(f"sqlite:///{folder}/a.db").client()):
            with pytest.raises(StoreUnsupported, match=f"is on a {kind} file system.*put the database on a local disk"):
                await opening.__aenter__()

    asyncio.run(main())
    assert not list(folder.iterdir())


def run_script(script: str, path: Path, *more: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "ignore:This process:DeprecationWarning", "-c", script, str(path), *map(str, more)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60 + CHILDREN, check=False)


def test_a_clock_set_forward_and_back_by_a_day_buries_nobody_and_ends_every_sleep(faults: Faults, folder: Path) -> None:
    """Sleeps that began before the clock was set back end when it has caught up: here, by being set right."""
    lease = ("--lease", "1.5")
    with (
        subject(folder / "a.db", *lease, "--name", "sleeping", faults=faults) as sleeping,
        subject(folder / "a.db", *lease, "--name", "busy", "--kinds", "2", faults=faults) as busy,
    ):
        for shift, working in (
            (0, (busy, sleeping)),
            *[(DAY_NS, (busy, sleeping)), (0, (busy,))] * JUMPS,
            (DAY_NS, (busy, sleeping)),
        ):
            faults.switches.clock = shift
            for each in working:
                each.until_results(SOME)
        for each in (sleeping, busy):
            assert each.finish() == 0
            assert "dead" not in each.log
        for each in (sleeping, busy):
            assert_kept(folder / "a.db", each.told)

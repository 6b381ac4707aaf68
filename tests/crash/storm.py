"""The storm: real workers under load are killed with SIGKILL at random moments, then everything is compared.

    python -m tests.crash.storm --kills 200 --workers 4

So many workers execute, or one less; a client starts, steers and awaits runs; after a random number of steps and a
random moment more, one worker is killed, or asked to leave, and another takes its place. In the end the client waits
for what it started, all processes leave, and `checker.py` compares. The random numbers come from `--seed`, which is
printed; when exactly a kill meets a process is up to the machine.
"""

from __future__ import annotations

import argparse
import os
import random
import select
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.crash.checker import Report, check

ROOT = Path(__file__).resolve().parents[2]
STEPS_MAX = 60
MOMENT_SECONDS_MAX = 0.03
LEAVES = 0.1
"""The chance that a worker is asked to leave instead of being killed."""
PATIENCE_SECONDS = 60.0


class Storm:
    """Processes, and the dice that say when they die."""

    def __init__(self, folder: Path, *, seed: int, workers: int) -> None:
        self.folder = folder
        self.workers_max = workers
        self.dice = random.Random(seed)
        self.errors = (folder / "errors.log").open("ab")
        self.workers: list[subprocess.Popen[bytes]] = []

    def spawn(self, role: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "tests.crash.load", role, str(self.folder)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
        )

    def blow(self, kills: int) -> None:
        """Kill and replace so many workers, then let everything come to its end."""
        client = self.spawn("client")
        try:
            killed = 0
            while killed < kills:
                print(f"progress: {killed} of {kills} workers killed", file=sys.stderr, flush=True)
                while len(self.workers) < self.dice.choice((max(self.workers_max - 1, 1), self.workers_max)):
                    self.workers.append(self.spawn("worker"))
                self._watch(self.dice.choice((0, *(self.dice.randint(1, STEPS_MAX) for _ in range(4)))))
                time.sleep(self.dice.uniform(0, MOMENT_SECONDS_MAX))  # the random moment itself, nothing is waited for
                worker = self.workers.pop(self.dice.randrange(len(self.workers)))
                if self.dice.random() >= LEAVES:
                    worker.kill()
                    killed += 1
                worker.communicate()  # ends the input of one that was not killed: it leaves gracefully
            self.workers.append(self.spawn("worker"))
            self._end(client)
        finally:
            for process in (client, *self.workers):
                process.kill()
                process.wait()
            self.errors.close()

    def _watch(self, steps: int) -> None:
        """Until so many more steps have begun."""
        while steps > 0:
            ready, _, _ = select.select([worker.stdout for worker in self.workers], [], [], PATIENCE_SECONDS)
            if not ready:
                raise TimeoutError(f"no step has begun for {PATIENCE_SECONDS:g} s; see {self.folder}/errors.log")
            for pipe in ready:
                got = os.read(pipe.fileno(), 4096)
                if not got:
                    raise RuntimeError(f"a worker has ended by itself; see {self.folder}/errors.log")
                steps -= len(got)

    def _end(self, client: subprocess.Popen[bytes]) -> None:
        assert client.stdin is not None
        client.stdin.close()
        deadline = time.monotonic() + PATIENCE_SECONDS
        while client.poll() is None:
            if time.monotonic() > deadline:
                raise TimeoutError(f"runs have not ended within {PATIENCE_SECONDS:g} s; see {self.folder}")
            pipes = [worker.stdout for worker in self.workers]
            for pipe in select.select(pipes, [], [], 0.05)[0]:
                os.read(pipe.fileno(), 4096)
        if client.returncode != 0:
            raise RuntimeError(f"the client failed; see {self.folder}/errors.log")
        for worker in self.workers:
            worker.communicate()  # ends its input; it leaves gracefully


def summary(report: Report, *, kills: int, workers: int, seed: int, seconds: float) -> str:
    """One line of figures, and a line for everything that is wrong."""
    figures = (
        f"{kills} kills among {workers} workers in {seconds:.1f} s, {report.runs} runs, "
        f"{report.executions} executions; {report.facts} facts checked, {len(report.lost)} lost, "
        f"{len(report.repeated)} repeated, {len(report.damaged)} damaged; seed {seed}"
    )
    return "\n".join([figures, *report.lost[:20], *report.repeated[:20], *report.damaged[:20]])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--folder", type=Path, default=None, help="keep the database and the logs here")
    options = parser.parse_args()
    seed = random.SystemRandom().randrange(2**32) if options.seed is None else options.seed
    with tempfile.TemporaryDirectory(prefix="holdfast-storm-") as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        try:
            Storm(folder, seed=seed, workers=options.workers).blow(options.kills)
        except Exception:
            print(f"seed {seed}", (folder / "errors.log").read_text()[-3000:], sep="\n", file=sys.stderr)
            raise
        report = check(folder)
        print(
            summary(report, kills=options.kills, workers=options.workers, seed=seed, seconds=time.monotonic() - began)
        )
    return 0 if report.ok else 1


if __name__ == "__main__":
    sys.exit(main())

"""The stress: commits and checkpoints of several processes on one file, in the manner of the WAL-reset bug.

    python -m tests.crash.stress --seconds 60
    python -m tests.crash.stress --seconds 60 --without-turns      # SQLite's own locks only, as if there were no bug

The bug (SQLite 3.7.0 to 3.51.2, but for two patch releases): a checkpoint of one connection runs beside a commit of
another that starts the log anew; frames are taken for moved that were not, and pages are lost. So here every process
commits, checkpoints (by a small `wal_autocheckpoint`, and explicitly), opens and closes all the time, and is killed
with SIGKILL at random. Between whiles and in the end the file is compared with what the processes were told.

What each process writes: facts numbered from 1, some in each transaction, and in the same transaction their count and
sum. What it was told, it notes in a log of its own after each commit. So at any time, of each life of a process:

- every fact whose commit was acknowledged is there, and none is missing before the last;
- count and sum agree with the facts;
- `pragma integrity_check` finds nothing.

The bug's window is some 50 ns wide: between two reads of a checkpoint that finds the log moved already. It has been met
in production (https://tailscale.com/blog/sqlite-wal-reset-bug), but rarely: `--without-turns` did not show it here in a
million commits beside checkpoints. So that the stress notices damage is shown by damage that is done on purpose, in
`test_stress.py`.
"""

from __future__ import annotations

import argparse
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from holdfast._store.sqlitefile import SqliteFile
from holdfast._store.turnstile import NoTurnstile
from holdfast._store.uri import SqliteUri

ROOT = Path(__file__).resolve().parents[2]
PROCESSES = 4
LIFE_SECONDS_MAX = 1.5
CHECK_SECONDS = 4.0
CHECKPOINT_PAGES = 8
"""Of the log; many transactions write more, so that the log starts anew all the time."""
CHECKPOINT_SHARES = (0.05, 0.2, 1.0)
"""Of what a process does while it has the file open. The bug needs one that does little else."""
CHECKPOINT_KINDS = (*["passive"] * 20, "full", "restart", "truncate")
SCHEMA = """
create table if not exists facts (life text, number integer, body blob, primary key (life, number));
create table if not exists sums (life text primary key, facts integer not null, total integer not null);
create index if not exists bodies on facts (body);
"""


@dataclass
class Report:
    """What was done, and what was wrong."""

    turns: int = 0
    checkpoints: int = 0
    kills: int = 0
    checks: int = 0
    facts: int = 0
    wrong: list[str] = field(default_factory=list)


# --- one process ---


class Worker:
    """Commits, checkpoints, opens and closes until it is killed, or told to stop by the end of its input."""

    def __init__(self, folder: Path, *, seed: int, turns: bool) -> None:
        self._path = folder / "stress.db"
        self._turns = turns
        self._dice = random.Random(seed)
        self._life = f"{os.getpid()}.{seed}"
        self._log = os.open(folder / f"{self._life}.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._told = 0

    def live(self) -> None:
        while os.getppid() != 1:
            with self._opened() as file:
                share = self._dice.choice(CHECKPOINT_SHARES)
                for _ in range(self._dice.choice((5, 50, 500))):
                    try:
                        self._act(file, share)
                    except sqlite3.OperationalError as error:
                        if self._turns or error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                            raise

    @contextmanager
    def _opened(self) -> Generator[SqliteFile]:
        file = SqliteFile(
            SqliteUri(path=self._path, synchronous="normal", busy_timeout=0 if self._turns else 10), joins=True
        )
        if not self._turns:
            file.turnstile = NoTurnstile()
        with file.turnstile.turn():
            file.writer().execute(f"pragma wal_autocheckpoint = {CHECKPOINT_PAGES}")
        yield file
        file.close()

    def _act(self, file: SqliteFile, share: float) -> None:
        checkpoints = self._dice.random() < share
        with file.turnstile.turn():
            if checkpoints:
                kind = self._dice.choice(CHECKPOINT_KINDS)
                file.writer().execute(f"pragma wal_checkpoint({kind})").fetchone()
            else:
                self._commit(file.writer())
        os.write(self._log, f"{'checkpoint' if checkpoints else 'commit'} {self._told}\n".encode())

    def _commit(self, connection: sqlite3.Connection) -> None:
        last = self._told + self._dice.choice((1, 3, 20))
        connection.execute("begin immediate")
        try:
            rows = [(self._life, number, self._body()) for number in range(self._told + 1, last + 1)]
            connection.executemany("insert into facts values (?, ?, ?)", rows)
            connection.execute(
                "insert into sums values (?1, ?2, ?3) on conflict do update set facts = ?2, total = ?3",
                (self._life, last, last * (last + 1) // 2),
            )
            connection.execute("commit")
        except BaseException:
            if connection.in_transaction:
                connection.execute("rollback")
            raise
        self._told = last

    def _body(self) -> bytes:
        return self._dice.randbytes(self._dice.choice((20, 900)))


# --- all of them ---


class Stress:
    """Processes on one file, and who kills and checks them."""

    def __init__(self, folder: Path, *, seed: int, turns: bool = True, processes: int = PROCESSES) -> None:
        self._folder = folder
        self._turns = turns
        self._processes = processes
        self._dice = random.Random(seed)
        self._running: list[subprocess.Popen[bytes]] = []
        self.report = Report()

    def run(self, seconds: float) -> Report:
        """Until the time is over, or something is wrong."""
        _prepare(self._folder / "stress.db")
        ends, check_at = time.monotonic() + seconds, time.monotonic() + CHECK_SECONDS
        with (self._folder / "errors.log").open("ab") as errors:
            try:
                while time.monotonic() < ends and not self.report.wrong:
                    while len(self._running) < self._processes:
                        self._running.append(self._spawn(errors.fileno()))
                    time.sleep(self._dice.uniform(0, LIFE_SECONDS_MAX / self._processes * 2))
                    self._kill_one()
                    if time.monotonic() > check_at:
                        self._check()
                        check_at = time.monotonic() + CHECK_SECONDS
                        print(f"progress: {ends - check_at:.0f} s are left", file=sys.stderr, flush=True)
            finally:
                for process in self._running:
                    process.kill()
                    process.wait()
        if not self.report.wrong:
            self._check()
        return self.report

    def _spawn(self, errors: int) -> subprocess.Popen[bytes]:
        arguments = ["--child", "--folder", str(self._folder), "--seed", str(self._dice.randrange(2**32))]
        arguments += [] if self._turns else ["--without-turns"]
        return subprocess.Popen([sys.executable, "-m", "tests.crash.stress", *arguments], cwd=ROOT, stderr=errors)

    def _kill_one(self) -> None:
        victim = self._running.pop(self._dice.randrange(len(self._running)))
        ended = victim.poll()
        victim.kill()
        victim.wait()
        self.report.kills += 1
        if ended is not None:
            text = (self._folder / "errors.log").read_text().strip().rpartition("\n")[2]
            self.report.wrong.append(f"a process has ended by itself ({ended}): {text}")

    def _check(self) -> None:
        self.report.checks += 1
        check(self._folder, self.report)


def _prepare(path: Path) -> None:
    file = SqliteFile(SqliteUri(path=path), joins=True)
    with file.turnstile.turn():
        file.writer().executescript(SCHEMA)
    file.close()


def check(folder: Path, report: Report) -> None:
    """Compare the file with the logs, in one snapshot; the others go on meanwhile."""
    told = _read_logs(folder, report)
    file = SqliteFile(SqliteUri(path=folder / "stress.db"), joins=True)
    try:
        _compare(file.reader(), told, report)
    except sqlite3.Error as error:
        report.wrong.append(f"the file cannot be read: {error}")
    finally:
        file.close()


def _compare(connection: sqlite3.Connection, told: dict[str, int], report: Report) -> None:
    connection.execute("begin")
    report.wrong += [row[0] for row in connection.execute("pragma integrity_check(5)") if row[0] != "ok"]
    facts = {
        row[0]: row[1:] for row in connection.execute("select life, count(*), max(number) from facts group by life")
    }
    sums = {row[0]: row[1:] for row in connection.execute("select life, facts, total from sums")}
    connection.execute("rollback")
    report.facts = sum(row[0] for row in facts.values())
    for life, last_told in told.items():
        count, last = facts.get(life, (0, 0))
        if last < last_told:
            report.wrong.append(f"{life} was told that {last_told} facts are there; there are {last}")
        if count != last or sums.get(life, (0, 0)) != (last, last * (last + 1) // 2):
            report.wrong.append(f"{life}: {count} facts up to {last}, but the sums say {sums.get(life)}")


def _read_logs(folder: Path, report: Report) -> dict[str, int]:
    """What each life was told; the last line may be a part of one."""
    told: dict[str, int] = {}
    report.turns = report.checkpoints = 0
    for log in folder.glob("*.*.log"):
        lines = log.read_text().split("\n")[:-1]
        told[log.stem] = int(lines[-1].split(" ")[1]) if lines else 0
        report.checkpoints += sum(line.startswith("checkpoint") for line in lines)
        report.turns += len(lines)
    return told


def summary(report: Report, *, processes: int, seed: int, seconds: float) -> str:
    """One line of figures, and a line for everything that is wrong."""
    figures = (
        f"{processes} processes for {seconds:.1f} s, {report.turns} turns, {report.checkpoints} checkpoints beside the "
        f"automatic ones, {report.kills} kills; {report.checks} integrity checks, {report.facts} facts, "
        f"{len(report.wrong)} wrong; SQLite {sqlite3.sqlite_version}, seed {seed}"
    )
    return "\n".join([figures, *report.wrong[:20]])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--processes", type=int, default=PROCESSES)
    parser.add_argument("--folder", type=Path, default=None, help="keep the database and the logs here")
    parser.add_argument("--without-turns", action="store_true", help="show what the turnstile is for")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    seed = random.SystemRandom().randrange(2**32) if options.seed is None else options.seed
    turns = not options.without_turns
    if options.child:
        Worker(options.folder, seed=seed, turns=turns).live()
        return 0
    with tempfile.TemporaryDirectory(prefix="holdfast-stress-") as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        report = Stress(folder, seed=seed, turns=turns, processes=options.processes).run(options.seconds)
        print(summary(report, processes=options.processes, seed=seed, seconds=time.monotonic() - began))
    return 1 if report.wrong else 0


if __name__ == "__main__":
    sys.exit(main())

"""Dying everywhere: a workflow is run once per record with the process dying just before and just after its commit.

Each experiment is a sequence of *lives*, one app each, on one real SQLite file. The first life ends at the chosen
record; the next one opens the file as a fresh process would, finds a worker that is dead (its lock is free), takes the
run over by replay, and finishes it. Before any death the run is repeated: code that does something else by itself, as
with state in a module, is told apart from code that a death leads astray. What is compared:

- the outcome (result, or class and message of the exception) is that of the undisturbed run;
- no body of a step began whose outcome was recorded, or before what came before it was durable; attempts were counted;
- the history in the file is what was acknowledged, entry by entry;
- the effects, if `around` checks them.

Time is virtual (`holdfast.testing.virtual`), and every run gets the same seed, so lives draw the same random numbers.
The order in which racing steps end may differ after a death (a step that runs again ends later); where the result
depends on it, give `same`, which compares outcomes. All lives share this process: what a workflow or a step keeps in a
module outlives each death here, and would not in production.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import tempfile
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

from holdfast._flow.definitions import Workflow
from holdfast._model.bounds import check_kind, check_number, check_whole, shown
from holdfast._run import Run
from holdfast._store.sqlite import SqliteStore
from holdfast._store.uri import parse
from holdfast._world import SystemWorld
from holdfast.errors import UsageError
from holdfast.testing.dying import Moment
from holdfast.testing.ledger import Ledger
from holdfast.testing.life import BATCHED, PARKED, SINGLE, Death, Life, Manner, Outcome, Subject
from holdfast.testing.stuck import WaitsForNothing
from holdfast.testing.virtual import VirtualLoop

LIVES_MAX: Final = 1_000
_LOG_LINES_MAX: Final = 40
_MANNERS: Final = {manner.word: manner for manner in (SINGLE, BATCHED, PARKED)}
_MOMENTS: Final = {moment.name.lower(): moment for moment in Moment}


def _equal(expected: Outcome, found: Outcome) -> bool:
    return expected == found


@dataclass(frozen=True, slots=True, kw_only=True)
class CrashOptions:
    """How to experiment.

    Args:
        seed: of the run's random numbers; printed with every failure.
        batched: also die at whole batches as they form by themselves, not only at single records.
        parked: also let every waiting run leave memory at once, and die there.
        points_max: at most so many records (or batches) of each kind, from the first on.
        seconds_max: virtual seconds after which an unfinished run counts as stuck.
        meanwhile: called beside the run in every life, to cancel it, for instance; virtual time passes in it.
        same: whether an outcome counts as the expected one; equality by default.
        may_fail: the undisturbed run may end with an exception, which is then what every other one must end with.
        around: makes a context for each experiment, all lives of one run: empty your fakes, `yield`, look at what they
            were told. What it asserts fails with the crash point.
        only: one crash point, as failures name them: ``"single-before-3"``.
        tell: called with the name of each crash point before it is tried; `print` shows how far it is.
    """

    seed: int = 1
    batched: bool = True
    parked: bool = True
    points_max: int = 1_000
    seconds_max: float = 366 * 86_400.0
    meanwhile: Callable[[Run[Any]], Awaitable[object]] | None = None
    same: Callable[[Outcome, Outcome], bool] = _equal
    may_fail: bool = False
    around: Callable[[], AbstractContextManager[object]] = nullcontext
    only: str | None = None
    tell: Callable[[str], object] | None = None

    def __post_init__(self) -> None:
        check_whole(self, "seed", low=-(2**63), high=2**63 - 1)
        check_kind(self, "batched", bool)
        check_kind(self, "parked", bool)
        check_kind(self, "may_fail", bool)
        check_whole(self, "points_max", low=1, high=1_000_000)
        check_number(self, "seconds_max", low=0, high=100 * 366 * 86_400.0)
        for name in ("meanwhile", "same", "around", "tell"):
            value = getattr(self, name)
            if not callable(value) and not (name in ("meanwhile", "tell") and value is None):
                raise UsageError(f"CrashOptions({name}={shown(value)}) must be a function")
        if self.only is not None:
            _point_of(self.only)


@dataclass(slots=True, kw_only=True)
class CrashReport:
    """What was done.

    Attributes:
        outcome: of the undisturbed run, and so of all.
        records: records that the undisturbed run wrote.
        points: experiments: deaths that were survived.
        lives: processes in total.
        bodies: step bodies that began, in all experiments.
    """

    outcome: Outcome
    records: int
    points: int = 0
    lives: int = 0
    bodies: int = 0


def crash_everywhere(
    workflow: Workflow[..., Any], *args: Any, options: CrashOptions | None = None, **kwargs: Any
) -> CrashReport:
    """Prove that a workflow survives dying at any moment; see the module.

    Call it in a plain test function; it runs event loops of its own. The workflow's steps are executed many times, so
    let them write to fakes.

    Args:
        workflow: the workflow; it needs no app.
        args, kwargs: its arguments.
        options: how to experiment.

    Returns:
        What was done: the number of crash points, and more.

    Raises:
        AssertionError: an outcome differs, the undisturbed run fails or does not repeat itself, a recorded step ran
            again, a run got stuck, or `around` found something; the message has the crash point, how to try only that
            one, everything that became durable, and the seed.
        UsageError: called inside a running event loop: use `crash_everywhere_async` there; or an option is wrong.
    """
    __tracebackhide__ = True
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        raise UsageError("crash_everywhere inside an event loop", hint="await crash_everywhere_async(...) instead")
    if not isinstance(workflow, Workflow):
        raise UsageError(
            f"crash_everywhere({shown(workflow)}) takes a workflow", hint="a function decorated with @workflow"
        )
    if options is not None and not isinstance(options, CrashOptions):
        raise UsageError(f"crash_everywhere(options={shown(options)})", hint="options=CrashOptions(...)")
    settings = options or CrashOptions()
    with tempfile.TemporaryDirectory(prefix="holdfast-crash-") as folder, _logs() as log:
        experiment = Experiment(workflow, args, kwargs, settings, Path(folder), log)
        try:
            return experiment.everywhere()
        except AssertionError as error:
            raise error.with_traceback(None)  # noqa: B904  the way through the kit tells nothing


async def crash_everywhere_async(
    workflow: Workflow[..., Any], *args: Any, options: CrashOptions | None = None, **kwargs: Any
) -> CrashReport:
    """`crash_everywhere` for callers in an event loop: the same, in a thread."""
    __tracebackhide__ = True
    return await asyncio.to_thread(crash_everywhere, workflow, *args, options=options, **kwargs)


@dataclass(slots=True)
class Experiment:
    """One workflow with its arguments, to be killed again and again."""

    workflow: Workflow[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    options: CrashOptions
    folder: Path
    log: deque[str]
    files: int = 0
    expected: Outcome | None = None
    report: CrashReport | None = None
    point: str = ""

    def everywhere(self) -> CrashReport:
        """The undisturbed run, then every crash point in every manner, or the one that is asked for."""
        only = None if self.options.only is None else _point_of(self.options.only)
        report = self._undisturbed()
        if only is not None:
            if not self._survives(*only):
                raise UsageError(f"only={self.options.only!r}: the run is over before", hint="take a lower number")
            return report
        for manner in self._manners():
            for moment in Moment:
                for at in range(1, self.options.points_max + 1):
                    if not self._survives(manner, Death(at, moment)):
                        break
        return report

    def _manners(self) -> list[Manner]:
        return [SINGLE, *[BATCHED] * self.options.batched, *[PARKED] * self.options.parked]

    def _undisturbed(self) -> CrashReport:
        """Twice: what differs here is no matter of crashes."""
        ledger, self.expected = self.trial(SINGLE, [])
        if self.expected.kind != "result" and not self.options.may_fail:
            self._fail(f"the undisturbed run fails with {self.expected}{_MAY_FAIL}", ledger)
        self.report = CrashReport(outcome=self.expected, records=ledger.records)
        self._count(ledger)
        again, _ = self.trial(SINGLE, [])
        self._count(again)
        if self.options.same is _equal and (differs := _difference(_operations(ledger), _operations(again))):
            self._fail(f"{_NOT_ALIKE}, {differs}{_BY_ITSELF}", again)
        return self.report

    def _survives(self, manner: Manner, death: Death) -> bool:
        """One experiment; false when the run was over before a death came."""
        if self.options.tell is not None:
            self.options.tell(_name_of(manner, death))
        ledger, _ = self.trial(manner, [death])
        self._count(ledger)
        if ledger.life == 1:
            return False
        if self.report is not None:
            self.report.points += 1
        return True

    def _count(self, ledger: Ledger) -> None:
        if self.report is not None:
            self.report.lives += ledger.life
            self.report.bodies += ledger.bodies

    def trial(self, manner: Manner, deaths: Sequence[Death]) -> tuple[Ledger, Outcome]:
        """Lives on one file until the run has ended; dies once per life as long as `deaths` lasts."""
        self.log.clear()
        self.point = ", ".join(_name_of(manner, death) for death in deaths)
        ledger = Ledger()
        try:
            with self.options.around():
                outcome = self._lives(manner, deaths, ledger)
        except WaitsForNothing as error:
            self._fail(str(error), ledger)
        except AssertionError as error:
            self._fail(f"what `around` checks does not hold: {error}", ledger, cause=error)
        self._judge(outcome, ledger)
        return ledger, outcome

    def _lives(self, manner: Manner, deaths: Sequence[Death], ledger: Ledger) -> Outcome:
        path, seconds, outcome = self._new_file(), 0.0, None
        for life in range(LIVES_MAX):
            death = deaths[life] if life < len(deaths) else None
            end = "" if death is None else f", dies {death.moment.value} batch {death.at}"
            ledger.begin_life(manner.name + end)
            seconds, outcome = self._life(path, ledger, manner, death, seconds)
            if outcome is not None:
                return outcome
        raise WaitsForNothing("the run has not ended")

    def _judge(self, outcome: Outcome, ledger: Ledger) -> None:
        for problem in ledger.violations:
            self._fail(problem, ledger)
        if self.expected is not None and not self.options.same(self.expected, outcome):
            sides = f"\n  undisturbed: {self.expected}\n  now:         {outcome}"
            self._fail(f"the outcome differs:{sides}" if self.point else f"{_NOT_ALIKE}:{sides}{_BY_ITSELF}", ledger)

    def _life(
        self, path: Path, ledger: Ledger, manner: Manner, death: Death | None, seconds: float
    ) -> tuple[float, Outcome | None]:
        loop, options = VirtualLoop(start=seconds), self.options
        subject = Subject(self.workflow, self.args, self.kwargs, options.seed, options.seconds_max, options.meanwhile)
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            life = Life(subject, path, ledger, manner, death, loop)
            outcome = runner.run(life.live())
        return loop.seconds, outcome

    def _new_file(self) -> Path:
        """A database of its own, copied from a migrated one, which is quicker than migrating each."""
        template = self.folder / "template.db"
        if not self.files:
            asyncio.run(_create(template))
        self.files += 1
        path = self.folder / f"{self.files}.db"
        shutil.copyfile(template, path)
        return path

    def _fail(self, problem: str, ledger: Ledger, *, cause: BaseException | None = None) -> NoReturn:
        log = "\n".join(self.log) or "(nothing)"
        where, again = "", ""
        if self.point:
            seed = "" if self.options.seed == CrashOptions().seed else f", seed={self.options.seed}"
            where = f" at crash point {self.point}"
            again = f'\nonly this one again: options=CrashOptions(only="{self.point}"{seed})'
        told = f"workflow {self.workflow.name!r}{where}: {problem}{again}"
        raise AssertionError(f"{told}\n\nseed {self.options.seed}\n{ledger}\n\nlog:\n{log}") from cause


_MAY_FAIL: Final = "\nhint: if that is how it is to end: options=CrashOptions(may_fail=True)"
_NOT_ALIKE: Final = "two undisturbed runs are not alike"
_BY_ITSELF: Final = (
    "\nhint: a workflow may go by its arguments, its steps and holdfast's now(), random() and uuid4(), not by the world"
    "\n      or what a module remembers; a step whose own answer differs needs a fake, or give same=..."
)


def _name_of(manner: Manner, death: Death) -> str:
    return f"{manner.word}-{death.moment.name.lower()}-{death.at}"


def _point_of(name: object) -> tuple[Manner, Death]:
    match name.split("-") if isinstance(name, str) else ():
        case [word, moment, at] if (
            word in _MANNERS and moment in _MOMENTS and len(at) < 10 and at.isdecimal() and at.isascii() and int(at)
        ):
            return _MANNERS[word], Death(int(at), _MOMENTS[moment])
    raise UsageError(
        f"only={shown(name)} is no crash point", hint='take it from the failure: "single-before-3", "parked-after-1"'
    )


def _operations(ledger: Ledger) -> Counter[str]:
    """What a run did, whatever the order: racing steps may change theirs."""
    return Counter(f"{entry.kind} {entry.name}" for entry in ledger.entries.values())


def _difference(first: Counter[str], second: Counter[str]) -> str:
    only = [
        f"only the {which} did {', '.join(sorted(some))}"
        for which, some in (("first", first - second), ("second", second - first))
        if some
    ]
    return " and ".join(only)


async def _create(path: Path) -> None:
    store = SqliteStore(parse(f"sqlite:///{path}"), world=SystemWorld())
    await store.open(on_change=_ignore)
    await store.close()


def _ignore() -> None:
    """Nobody else writes."""


class _Collector(logging.Handler):
    """Keeps the last lines of the engine's log for the message of a failure."""

    def __init__(self, lines: deque[str]) -> None:
        super().__init__()
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(self.format(record))


@contextmanager
def _logs() -> Iterator[deque[str]]:
    """Every life's end is loud; its log is kept, and shown only when an experiment fails."""
    lines: deque[str] = deque(maxlen=_LOG_LINES_MAX)
    logger, collector = logging.getLogger("holdfast"), _Collector(lines)
    before = logger.propagate
    logger.addHandler(collector)
    logger.propagate = False
    try:
        yield lines
    finally:
        logger.propagate = before
        logger.removeHandler(collector)

"""`holdfast demo`: the command. It reads the order file first; nothing is started before that file is right."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from shlex import quote
from typing import Final
from urllib.parse import quote as urlquote

import click
import msgspec
from rich.console import Console
from rich.text import Text

from holdfast import _world
from holdfast.cli.demo.drive import DATABASE, KILLS_MAX, LEDGER, Drive, Outcome
from holdfast.cli.demo.orders import SHIPPED, Order, read_orders
from holdfast.cli.demo.screen import Screen, show_check, show_summary
from holdfast.cli.settings import Settings, shared_options
from holdfast.errors import UsageError

KILLS_DEFAULT: Final = 5
SEEDS: Final = 1_000_000
INTERRUPTED: Final = 130


@click.command()
@click.option("--file", "file", type=click.Path(path_type=Path), help="Your own orders: a CSV file in UTF-8 with "
              "the columns order_id,customer,item,quantity,cents.")  # fmt: skip
@click.option("--kills", type=click.IntRange(0, KILLS_MAX), default=KILLS_DEFAULT, show_default=True,
              help="How often the worker is killed on the way.")  # fmt: skip
@click.option("--keep", type=click.Path(path_type=Path), metavar="DIR",
              help="Keep database, ledger and logs in this new or empty folder.")  # fmt: skip
@click.option("--seed", type=click.IntRange(0), help="Decides failures, delays and kills; random by default.")
@shared_options
@click.pass_context
def demo(context: click.Context, file: Path | None, kills: int, keep: Path | None, seed: int | None) -> None:
    """Take an order book through flaky services, kill the worker on the way, and audit the books.

    Every order is reserved, charged, shipped and notified. The payment provider is a process of its own with its own
    ledger. At the end the ledger, the database and the order file are compared: every order must have been charged
    exactly once, and none may be lost. The exit code is 1 when anything does not agree.
    """
    settings = context.ensure_object(Settings)
    if settings.db is not None:
        raise UsageError("the demo makes a database of its own", hint="leave out --db; --keep DIR keeps it")
    orders = read_orders(file or SHIPPED)
    seed = _world.SystemWorld().seed() % SEEDS if seed is None else seed
    with _folder(keep) as folder:
        try:
            outcome = asyncio.run(_perform(orders, settings.err, folder=folder, kills=kills, seed=seed))
        except (KeyboardInterrupt, asyncio.CancelledError):
            click.echo("\ninterrupted: worker and payment provider are stopped", err=True)
            context.exit(INTERRUPTED)
        if settings.is_json:
            click.echo(as_json(outcome, seed))
        else:
            show(settings.out, outcome, kills=kills, kept=folder if keep else None)
    context.exit(0 if outcome.audit.passed else 1)


async def _perform(orders: Sequence[Order], console: Console, *, folder: Path, kills: int, seed: int) -> Outcome:
    task = asyncio.current_task()
    if task is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    arrow = "->" if console.options.ascii_only else "→"
    screen = Screen(console, orders=len(orders))
    killed = "not killed" if not kills else "killed once" if kills == 1 else f"killed {kills} times"
    screen.title(
        f"Holdfast demo: {len(orders):,} orders, reserve {arrow} charge {arrow} ship {arrow} notify",
        f"Services are slow and fail at random; the worker is {killed}. Seed {seed}.",
    )
    with screen:
        return await Drive(orders, folder=folder, kills=kills, seed=seed, screen=screen).run()


@contextmanager
def _folder(keep: Path | None) -> Generator[Path]:
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="holdfast-demo-", ignore_cleanup_errors=True) as name:
            yield Path(name)
        return
    try:
        keep.mkdir(parents=True, exist_ok=True)
        occupied = any(keep.iterdir())
    except OSError as error:
        raise UsageError(f"cannot use the folder {keep}: {error.strerror}", hint="give another one") from error
    if occupied:
        raise UsageError(f"the folder {keep} is not empty", hint="give a new or an empty one; nothing was touched")
    yield keep.resolve()


def as_json(outcome: Outcome, seed: int) -> str:
    """The outcome for programs."""
    found = outcome.audit
    facts = {
        "passed": found.passed,
        "seed": seed,
        "orders": outcome.orders,
        "charges": found.charges,
        "cents": found.cents,
        "repeats": found.repeats,
        "kills": outcome.kills,
        "runs_resumed": outcome.resumed,
        "steps": found.steps,
        "attempts": found.attempts,
        "seconds": round(outcome.seconds, 3),
        "integrity": found.integrity,
        "checks": [{"claim": check.claim, "findings": check.findings} for check in found.checks],
    }
    return msgspec.json.encode(facts).decode()


def show(console: Console, outcome: Outcome, *, kills: int, kept: Path | None) -> None:
    """Print the checks, the summary and the conclusion."""
    console.print()
    for check in outcome.audit.checks:
        show_check(console, check.claim, check.findings)
    console.print()
    show_summary(console, _rows(outcome, kills))
    console.print()
    console.print(_conclusion(outcome), soft_wrap=not console.is_terminal, highlight=False)
    console.print(Text(_next_move(outcome, kept), style="dim"), soft_wrap=True, highlight=False)


def _rows(outcome: Outcome, kills: int) -> list[tuple[str, str, str]]:
    found, per_second = outcome.audit, outcome.audit.steps / outcome.seconds
    unneeded = f"; {kills - outcome.kills} more found nothing left to do" if outcome.kills < kills else ""
    return [
        ("orders", f"{outcome.orders:,}", "in the order file"),
        ("charged", f"{found.charges:,}", f"in the provider's ledger: {found.cents / 100:,.2f} in total"),
        ("repeats absorbed", f"{found.repeats:,}", "charges asked for again, harmless thanks to keys"),
        ("kills", f"{outcome.kills}", f"SIGKILL at random moments{unneeded}"),
        ("runs resumed", f"{outcome.resumed:,}", "were in the hands of a worker when it was killed"),
        ("steps recorded", f"{found.steps:,}", f"each once, after {found.attempts:,} recorded attempts"),
        ("steps per second", f"{per_second:,.0f}", f"in {outcome.seconds:.1f} s, paced by the slow services"),
        ("integrity", found.integrity, "SQLite's own check of the database file"),
    ]


def _conclusion(outcome: Outcome) -> Text:
    if not outcome.audit.passed:
        failed = sum(not check.holds for check in outcome.audit.checks)
        return Text(f"The books do not agree: {failed} of {len(outcome.audit.checks)} checks failed.", style="bold red")
    times = "once" if outcome.kills == 1 else f"{outcome.kills} times"
    orders = f"all {outcome.orders:,} orders were" if outcome.orders != 1 else "the only order was"
    killed = f"Killed {times}: " if outcome.kills else ""
    sentence = f"{killed}{orders} charged exactly once, and none was lost."
    return Text(sentence[:1].upper() + sentence[1:], style="bold")


def _next_move(outcome: Outcome, kept: Path | None) -> str:
    if kept is None:
        return "To look at the runs afterwards, keep the files: holdfast demo --keep DIR"
    command = f"holdfast --db {quote(f'sqlite:///{urlquote(os.fsencode(kept / DATABASE))}')}"
    return (
        "\nThe files are kept. Look at the runs, at the one with the most attempts, and at the ledger:\n"
        f"  {command} ls\n  {command} show {quote(outcome.audit.liveliest)}\n  less {quote(str(kept / LEDGER))}"
    )

"""`holdfast start`: a run of a workflow, by its name or from an app's code."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import click

from holdfast import Client, Run, Start
from holdfast.cli.answers import run_value, write_json
from holdfast.cli.loading import load_app
from holdfast.cli.opening import with_client
from holdfast.cli.settings import Settings, pass_settings, shared_options
from holdfast.cli.values import Duration, Instant, arguments, pairs
from holdfast.cli.wait import result_of


@click.command()
@click.argument("workflow")
@click.argument("words", metavar="[JSON | KEY=VALUE...]", nargs=-1)
@click.option("--id", "run_id", metavar="ID", help="The same id is the same run. Default: a new one.")
@click.option("--app", "target", metavar="MOD:APP", help="Check name and arguments against this app's code.")
@click.option("--delay", type=Duration(), help="Not before this time has passed, such as 10m.")
@click.option("--at", type=Instant(), help="Not before this instant, such as 2026-03-01T09:00.")
@click.option("--priority", type=int, default=0, help="Higher goes first.")
@click.option("--timeout", type=Duration(), help="Cancel and fail the run after this time.")
@click.option("--attribute", "attributes", multiple=True, metavar="KEY=VALUE", help="Searchable metadata; repeatable.")
@click.option(
    "--on-conflict",
    type=click.Choice(["return", "raise", "restart"]),
    default="return",
    show_default=True,
    help="When the id is taken: return that run, raise, or restart it if it ended.",
)
@click.option("--wait", "waits", is_flag=True, help="Wait for the end and print the result.")
@shared_options
@pass_settings
def start(
    settings: Settings,
    workflow: str,
    words: tuple[str, ...],
    run_id: str | None,
    target: str | None,
    delay: float | None,
    at: datetime | None,
    priority: int,
    timeout: float | None,
    attributes: tuple[str, ...],
    on_conflict: str,
    waits: bool,
) -> None:
    """Start a run of WORKFLOW and print its id. A worker executes it; this command does not.

    Arguments are one JSON object, or KEY=VALUE pairs, where a value is JSON if it parses as such and else text:

    \b
      holdfast start checkout order=A-17 cents=1250 --id order-17
      holdfast start checkout '{"order": "A-17", "cents": 1250}' --wait
    """
    request: Start[Any] = Start(
        workflow,
        id=run_id,
        on_conflict=on_conflict,
        priority=priority,
        delay=delay,
        at=at,
        timeout=timeout,
        attributes=pairs(attributes, what="attribute") or None,
    )
    request.kwargs = arguments(words)  # not through the constructor: a parameter may be called like an option

    async def work(client: Client) -> None:
        (run,) = await client.start_many([request])
        await _answer(settings, client, run, waits=waits)

    with_client(settings, work, app=None if target is None else load_app(target), create=True)


async def _answer(settings: Settings, client: Client, run: Run[Any], *, waits: bool) -> None:
    if waits:
        if not settings.is_json:
            settings.err.print(run.id, style="dim", soft_wrap=True)
        write_json(settings, await result_of(settings, client, run, timeout=None))
    elif settings.is_json:
        write_json(settings, run_value(await run.describe()))
    else:
        settings.out.print(run.id, soft_wrap=True)

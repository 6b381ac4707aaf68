"""`holdfast fork`: a new run from an entry of another."""

from __future__ import annotations

from typing import Any

import click

from holdfast import Client
from holdfast._options import UNSET
from holdfast.cli.answers import run_value, write_json
from holdfast.cli.opening import with_client
from holdfast.cli.settings import Settings, pass_settings, shared_options
from holdfast.cli.values import arguments, json_or_text


@click.command()
@click.argument("run_id", metavar="ID")
@click.argument("words", metavar="[JSON | KEY=VALUE...]", nargs=-1)
@click.option("--at", type=click.IntRange(min=1), required=True, help="The entry: what is before it is kept.")
@click.option("--id", "new_id", metavar="ID", help="Id of the new run.")
@click.option("--result", metavar="JSON", help="Take this as the result of the entry instead of executing it.")
@shared_options
@pass_settings
def fork(
    settings: Settings, run_id: str, words: tuple[str, ...], at: int, new_id: str | None, result: str | None
) -> None:
    """Start a new run that keeps what is before entry AT of run ID and executes the rest.

    Other arguments replace all of the old ones. Prints the id of the new run.
    """
    options: dict[str, Any] = {"id": new_id, "result": UNSET if result is None else json_or_text(result)}

    async def work(client: Client) -> None:
        forked = await client.get(run_id).fork(at, kwargs=arguments(words), **options)
        if settings.is_json:
            write_json(settings, run_value(await forked.describe()))
        else:
            settings.out.print(forked.id, soft_wrap=True)

    with_client(settings, work)

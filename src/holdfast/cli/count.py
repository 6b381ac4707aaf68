"""`holdfast count`: how many runs match."""

from __future__ import annotations

import click

from holdfast import Client
from holdfast.cli.answers import write_json
from holdfast.cli.filters import Filters, QueryCommand, query_options
from holdfast.cli.ls import TOTAL_MAX, total_text
from holdfast.cli.opening import with_client
from holdfast.cli.settings import Settings, pass_settings, shared_options
from holdfast.cli.unknown import say_unknown_workflows


@click.command(cls=QueryCommand)
@query_options
@click.option("--exact", is_flag=True, help="Count them all, however many; without it counting ends at 10,000.")
@shared_options
@pass_settings
def count(settings: Settings, filters: Filters, exact: bool) -> None:
    """Count runs.

    QUERY chooses them, such as: holdfast count state:failed 'created:<1d'
    """

    async def work(client: Client) -> None:
        runs = await client.count(limit=None if exact else TOTAL_MAX + 1, **filters.conditions())
        if settings.is_json:
            capped = not exact and runs > TOTAL_MAX
            write_json(settings, {"runs": TOTAL_MAX if capped else runs, "more": capped})
        else:
            settings.out.print(f"{runs:,}" if exact else total_text(runs))
        if not runs:
            await say_unknown_workflows(settings, client, filters)

    with_client(settings, work)

"""`holdfast show`: one run."""

from __future__ import annotations

import click
from rich.text import Text

from holdfast import Client
from holdfast._model.lifecycle import ENDED
from holdfast.cli.answers import entry_value, run_value, write_json
from holdfast.cli.opening import with_client
from holdfast.cli.settings import Settings, pass_settings, shared_options
from holdfast.cli.strangers import waits_because
from holdfast.cli.timeline import Viewed, draw
from holdfast.cli.watching import watch
from holdfast.cli.words import now


@click.command()
@click.argument("run_id", metavar="ID")
@click.option("-w", "--watch", "watched", is_flag=True, help="Look again every half second, until the run has ended.")
@click.option("--traceback", "tracebacks", is_flag=True, help="Show errors with their tracebacks.")
@shared_options
@pass_settings
def show(settings: Settings, run_id: str, watched: bool, tracebacks: bool) -> None:
    """Show a run with the timeline of its entries."""

    def view(viewed: Viewed) -> Text:
        return draw(viewed, seen=now(), width=settings.out.width, tracebacks=tracebacks)

    def write(viewed: Viewed) -> None:
        if settings.is_json:
            history = [entry_value(entry) for entry in viewed.history]
            write_json(settings, {**run_value(viewed.run), "waits": viewed.waits or None, "history": history})
        else:
            settings.out.print(view(viewed), soft_wrap=True)

    async def work(client: Client) -> None:
        run = client.get(run_id)

        async def look() -> Viewed:
            described = await run.describe()
            waits = (await waits_because(client, [described])).get(described.id, "")
            return Viewed(described, tuple(await run.history()), waits)

        if watched:
            await watch(settings, look=look, draw=view, write=write, ended=lambda viewed: viewed.run.state in ENDED)
        else:
            write(await look())

    with_client(settings, work)

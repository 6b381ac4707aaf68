"""The group and its commands, each imported when it is called."""

from __future__ import annotations

import difflib
from importlib import import_module
from typing import Any, Final

import click

from holdfast import __version__
from holdfast.cli.settings import shared_options

# name: (module, attribute, help). The help stands here so that `holdfast --help` imports no command.
COMMANDS: Final[dict[str, tuple[str, str, str]]] = {
    "demo": ("holdfast.cli.demo.command", "demo", "Process orders while workers are killed, then check every fact."),
    "worker": ("holdfast.cli.worker", "worker", "Execute the runs of an app until SIGTERM or Ctrl-C."),
    "start": ("holdfast.cli.start", "start", "Start a run."),
    "ls": ("holdfast.cli.ls", "ls", "List runs, newest first."),
    "count": ("holdfast.cli.count", "count", "Count runs."),
    "show": ("holdfast.cli.show", "show", "Show a run with the timeline of its entries."),
    "wait": ("holdfast.cli.wait", "wait", "Wait for a run to end and print its result."),
    "cancel": ("holdfast.cli.steer", "cancel", "Cancel runs; their cleanup may still run steps."),
    "pause": ("holdfast.cli.steer", "pause", "Let runs stand still after the steps under way."),
    "resume": ("holdfast.cli.steer", "resume", "Let paused, blocked or cancelled runs go on."),
    "retry": ("holdfast.cli.steer", "retry", "Let failed, cancelled or blocked runs go on; finished steps are kept."),
    "fork": ("holdfast.cli.fork", "fork", "Start a new run from an entry of another."),
    "stats": ("holdfast.cli.stats", "stats", "Count runs, tell how it went lately, and show the workers."),
    "workers": ("holdfast.cli.workers", "workers", "Show the workers and how many runs each of them holds."),
    "prune": ("holdfast.cli.prune", "prune", "Remove ended runs that were kept long enough, and give back the space."),
    "check": ("holdfast.cli.check.command", "check", "Replay unfinished runs against new code, before deploying it."),
    "replay": ("holdfast.cli.check.replaying", "replay", "Replay exported runs against the code at hand."),
    "export": ("holdfast.cli.files", "export_runs", "Write runs with their histories as JSON lines."),
    "import": ("holdfast.cli.files", "import_runs", "Put exported runs into the database."),
    "backup": ("holdfast.cli.backup", "backup", "Copy the database into a file, while workers are working."),
    "restore": ("holdfast.cli.backup", "restore", "Put a backup in the place of the database."),
    "doctor": ("holdfast.cli.doctor", "doctor", "Examine the database and what it stands on."),
    "migrate": ("holdfast.cli.migrate", "migrate", "Bring the database to this release's schema."),
    "version": ("holdfast.cli.version", "version", "Versions of holdfast, Python and SQLite."),
}


class LazyGroup(click.Group):
    """A group whose commands are looked up in `COMMANDS`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], COMMANDS, n=2)
            hint = f"did you mean `{'` or `'.join(near)}`?" if near else "see `holdfast --help`"
            raise click.UsageError(f"there is no command {args[0]!r} (hint: {hint})", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in COMMANDS.items()])


_CONTEXT: Final[dict[str, Any]] = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group(cls=LazyGroup, context_settings=_CONTEXT, no_args_is_help=False, invoke_without_command=True)
@shared_options
@click.version_option(__version__, message="holdfast %(version)s")
@click.pass_context
def holdfast(context: click.Context) -> None:
    """Durable workflows for Python, on a file.

    \b
    Exit codes:  0 ok  1 error  2 usage  3 not found  4 run failed
                 5 wait timed out  6 conflict  7 confirmation needed
                 8 schema mismatch  9 try again
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())

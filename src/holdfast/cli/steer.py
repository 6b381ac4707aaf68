"""`holdfast cancel | pause | resume | retry`: by id, several at once, or all that match conditions."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import click
from rich.text import Text

from holdfast import Client, HoldfastError, Run, RunState
from holdfast._options import check_id
from holdfast.cli import problems
from holdfast.cli.answers import say, write_list
from holdfast.cli.filters import Filters, filter_options
from holdfast.cli.harmless import one_line
from holdfast.cli.opening import with_client
from holdfast.cli.settings import Settings, pass_settings, shared_options
from holdfast.cli.unknown import say_unknown_workflows
from holdfast.cli.words import state_text
from holdfast.errors import RunConflict, UsageError

Request = Callable[[Run[Any]], Awaitable[RunState]]
RUNS_MAX: Final = 10_000

# What a request can be about when conditions choose the runs: none that it would leave alone or refuse.
_SENSIBLE: Final[dict[str, tuple[str, ...]]] = {
    "cancel": ("scheduled", "ready", "running", "waiting", "paused", "blocked"),
    "pause": ("scheduled", "ready", "running", "waiting"),
    "resume": ("paused", "blocked", "cancelled"),
    "retry": ("failed", "cancelled", "blocked"),
}

_OUTCOMES: Final = {"cancel": "cancelled", "pause": "paused"}

# States that a request leaves as they are; the hint says what could be done instead.
_LEFT_ALONE: Final[dict[str, dict[str, str]]] = {
    "cancel": {"succeeded": "", "failed": ""},
    "pause": {"succeeded": "", "failed": "", "cancelled": ""},
    "resume": {
        "succeeded": "`holdfast fork {id} --at N` executes a part of it again",
        "failed": "`holdfast retry {id}` lets it go on",
    },
}


def _command(verb: str, request: Request, *, confirmed: bool, text: str) -> click.Command:
    @click.argument("run_ids", metavar="[ID]...", nargs=-1)
    @filter_options
    @click.option("--yes", is_flag=True, help="Do not ask.")
    @shared_options
    @pass_settings
    def command(settings: Settings, run_ids: tuple[str, ...], filters: Filters, yes: bool) -> int:
        if bool(run_ids) == filters.any:
            raise UsageError(
                f"{verb} which runs?", hint="give ids, or conditions such as --where 'state:failed', not both"
            )
        for run_id in run_ids:  # before the first of them is asked for anything
            check_id(run_id)
        steering = _Steering(settings, verb, request, ask=confirmed and not yes)
        return with_client(settings, lambda client: steering.work(client, run_ids, filters))

    return click.command(verb, help=text)(command)


class _Steering:
    """One call of one of the commands."""

    def __init__(self, settings: Settings, verb: str, request: Request, *, ask: bool) -> None:
        self._settings = settings
        self._verb = verb
        self._request = request
        self._ask = ask

    async def work(self, client: Client, run_ids: Sequence[str], filters: Filters) -> int:
        """Every run is asked, whatever came of the others; the exit code is that of the first that refused."""
        if filters.any:
            run_ids = await self._matching(client, filters)
        if self._ask and (len(run_ids) > 1 or filters.any) and run_ids:
            self._confirm(len(run_ids))
        codes: list[int] = []
        done: list[dict[str, str]] = []
        for run_id in dict.fromkeys(run_ids):
            try:
                state = await self._request(client.get(run_id))
            except HoldfastError as error:
                codes.append(problems.report(error, self._settings))
                continue
            hint = _LEFT_ALONE.get(self._verb, {}).get(state.value)
            if hint is None or filters.any:  # what was chosen by its state may have ended a moment ago
                done.append({"id": run_id, "state": state.value})
            else:
                told = f"run {run_id!r} has ended as {state.value}: there is nothing to {self._verb}"
                conflict = RunConflict(told, run_id=run_id, hint=hint.format(id=run_id))
                codes.append(problems.report(conflict, self._settings))
        self._write(done, asked=len(run_ids))
        if not run_ids:
            await say_unknown_workflows(self._settings, client, filters)
        return codes[0] if codes else 0

    async def _matching(self, client: Client, filters: Filters) -> list[str]:
        conditions = filters.conditions()
        conditions["state"] = filters.states or _SENSIBLE[self._verb]
        runs = await client.list(limit=RUNS_MAX, **conditions)
        if runs.next is not None:
            told = f"more than {RUNS_MAX:,} match: these are the newest; say it again for the others"
            say(self._settings, told)
        return [run.id for run in runs]

    def _confirm(self, runs: int) -> None:
        what = f"{self._verb} {runs:,} {'run' if runs == 1 else 'runs'}"
        if not sys.stdin.isatty():
            raise problems.ConfirmationNeeded(f"this would {what}", hint="add --yes to do it without asking")
        if not click.confirm(f"{what}?", err=True):
            raise problems.ConfirmationNeeded("nothing was changed")

    def _write(self, done: list[dict[str, str]], *, asked: int) -> None:
        settings = self._settings
        if settings.is_json:
            write_list(settings, done)
            return
        if not asked:
            settings.err.print(f"no runs to {self._verb}", style="dim")
        for row in done:
            # A run that a worker holds does it at its next await; until then only the request is there.
            left_alone = row["state"] in _LEFT_ALONE.get(self._verb, ())
            later = "  requested" if row["state"] != _OUTCOMES.get(self._verb, row["state"]) else ""
            later = "  left as it is" if left_alone else later
            settings.out.print(
                Text.assemble(one_line(row["id"]), "  ", state_text(row["state"]), (later, "dim")), soft_wrap=True
            )


cancel = _command(
    "cancel",
    lambda run: run.cancel(),
    confirmed=True,
    text="Cancel runs. Each gets CancelledError at its next await, and its cleanup may still run steps.",
)
pause = _command(
    "pause", lambda run: run.pause(), confirmed=False, text="Let runs stand still after the steps under way."
)
resume = _command(
    "resume", lambda run: run.resume(), confirmed=False, text="Let paused, blocked or cancelled runs go on."
)
retry = _command(
    "retry",
    lambda run: run.retry(),
    confirmed=False,
    text="Let failed, cancelled or blocked runs go on. Finished steps are kept; what ended the run is tried again.",
)

"""`holdfast wait`: until a run has ended. `start --wait` is the same."""

from __future__ import annotations

import asyncio
import shlex
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import Any, Final

import click

from holdfast import Client, Run, RunCancelled, RunFailed, RunInfo, RunState, WaitTimeout
from holdfast._model.lifecycle import ENDED
from holdfast.cli.answers import say, write_json
from holdfast.cli.opening import with_client
from holdfast.cli.settings import Settings, pass_settings, shared_options
from holdfast.cli.strangers import NOBODY, START_ONE, waits_because
from holdfast.cli.values import Duration
from holdfast.cli.words import duration, error_line

STANDSTILL_SECONDS: Final = 1.0
"""How long to wait before saying why a run does not move."""


@click.command()
@click.argument("run_id", metavar="ID")
@click.option("--timeout", type=Duration(), help="Give up after this time, such as 30s; the run goes on.")
@shared_options
@pass_settings
def wait(settings: Settings, run_id: str, timeout: float | None) -> None:
    """Wait for a run to end and print its result as JSON."""

    async def work(client: Client) -> None:
        write_json(settings, await result_of(settings, client, client.get(run_id), timeout=timeout))

    with_client(settings, work)


async def result_of(settings: Settings, client: Client, run: Run[Any], *, timeout: float | None) -> Any:
    """The run's result as a JSON value.

    It is read from the row. `Run.result` would import the classes of result and exception, which here mean nothing.

    Raises:
        RunNotFound: there is no such run.
        RunFailed: it failed.
        RunCancelled: it was cancelled.
        WaitTimeout: it has not ended yet.
    """
    with _progress(settings, run.id):
        await _until_ended(settings, client, run, timeout)
    info = await run.describe()
    if info.state == RunState.CANCELLED:
        raise RunCancelled(run.id)
    if info.state == RunState.FAILED:
        raise _failure(info)
    return info.output


async def _until_ended(settings: Settings, client: Client, run: Run[Any], timeout: float | None) -> None:
    try:
        async with asyncio.timeout(timeout):
            ended = asyncio.ensure_future(run._ended())
            try:
                await asyncio.wait([ended], timeout=STANDSTILL_SECONDS)
                if not ended.done():
                    await _say_why(settings, client, run)
                await ended
            finally:
                ended.cancel()
    except TimeoutError:
        state = (await run.describe()).state
        if state in ENDED:  # it had no time to notice
            return
        raise WaitTimeout(
            f"run {run.id!r} has not ended within {duration(timedelta(seconds=timeout or 0))}; it is {state}",
            hint=f"it is not affected; look at it with `{_command('show', run.id)}`",
        ) from None


async def _say_why(settings: Settings, client: Client, run: Run[Any]) -> None:
    """A run that stands still ends only when somebody does something: tell whom it waits for."""
    info = await run.describe()
    if info.state == RunState.READY:
        reason = (await waits_because(client, [info])).get(run.id, "")
        hint = f"start one that knows workflow {info.workflow!r}: holdfast worker MOD:APP"
        told = f"no worker has taken {run.id!r} yet{f': {reason}' if reason else ''}"
        say(settings, told, hint=hint, style="default")
    elif info.state == RunState.RUNNING and NOBODY in (await waits_because(client, [info])).values():
        say(settings, f"{NOBODY} to go on with {run.id!r}", hint=START_ONE, style="default")
    elif info.state == RunState.BLOCKED:
        told = f"{run.id!r} is blocked: {error_line(info.error) if info.error else info.reason}"
        say(settings, told, hint=info.error.hint if info.error else "", style="default")
    elif info.state == RunState.PAUSED:
        say(settings, f"{run.id!r} is paused", hint=f"`{_command('resume', run.id)}`", style="default")


def _command(verb: str, run_id: str) -> str:
    """A command on this run that can be copied into a shell, whatever its id is."""
    quoted = shlex.quote(run_id)
    return f"holdfast {verb} {'-- ' if run_id.startswith('-') else ''}{quoted}"


def _failure(info: RunInfo) -> RunFailed:
    told = error_line(info.error) if info.error is not None else "for an unknown reason"
    return RunFailed(
        f"run {info.id!r} failed: {told}",
        type_name=info.error.type if info.error is not None else "",
        hint=f"`{_command('show', info.id)}` tells more; `{_command('retry', info.id)}` lets it go on",
    )


def _progress(settings: Settings, run_id: str) -> AbstractContextManager[object]:
    if not settings.err.is_terminal or settings.is_json:
        return nullcontext()
    return settings.err.status(f"waiting for {run_id}", spinner="dots", spinner_style="cyan")

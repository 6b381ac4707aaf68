"""Errors as people and programs see them, and the one place where they become exit codes."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import sys
import traceback
from collections.abc import Sequence
from enum import IntEnum
from pathlib import Path
from typing import Final

import click
from rich.text import Text

import holdfast
from holdfast.cli.harmless import json_text
from holdfast.cli.settings import Settings
from holdfast.errors import (
    HoldfastError,
    QueryError,
    RunConflict,
    RunNotFound,
    SchemaMismatch,
    StoreError,
    UsageError,
    WaitTimeout,
    WorkflowError,
)


class ExitCode(IntEnum):
    """How the command ends."""

    OK = 0
    ERROR = 1
    USAGE = 2
    NOT_FOUND = 3
    RUN_FAILED = 4
    WAIT_TIMED_OUT = 5
    CONFLICT = 6
    CONFIRMATION_NEEDED = 7
    SCHEMA_MISMATCH = 8
    RETRYABLE = 9


class NoDatabase(StoreError):
    """A command that only looks was pointed at a database that does not exist; it makes none."""

    code = "no-database"


class ConfirmationNeeded(UsageError):
    """Something that cannot be taken back was asked for, and nobody is there to say yes."""

    code = "confirmation-needed"


_OURS: Final = str(Path(holdfast.__file__).parent)
_ASYNCIO: Final = str(Path(asyncio.__file__).parent)
_FUTURES: Final = str(Path(concurrent.futures.__file__).parent)

_CODES: Final[tuple[tuple[type[HoldfastError], ExitCode], ...]] = (
    # The first that matches counts.
    (RunNotFound, ExitCode.NOT_FOUND),
    (RunConflict, ExitCode.CONFLICT),
    (ConfirmationNeeded, ExitCode.CONFIRMATION_NEEDED),
    (UsageError, ExitCode.USAGE),
    (WaitTimeout, ExitCode.WAIT_TIMED_OUT),
    (WorkflowError, ExitCode.RUN_FAILED),
    (SchemaMismatch, ExitCode.SCHEMA_MISMATCH),
)


def exit_code(error: BaseException) -> ExitCode:
    """The exit code of an error."""
    if isinstance(error, click.ClickException):
        return ExitCode.USAGE
    if not isinstance(error, HoldfastError):
        return ExitCode.ERROR
    for kind, code in _CODES:
        if isinstance(error, kind):
            return code
    return ExitCode.RETRYABLE if error.retryable else ExitCode.ERROR


def report(error: Exception, settings: Settings) -> ExitCode:
    """Say on stderr what went wrong, and return the exit code."""
    slug, message, hint = _explain(error)
    if settings.is_json:
        told: dict[str, object] = {"code": slug, "message": message, "hint": hint}
        if isinstance(error, QueryError):  # its message draws a mark below the place
            told |= {"message": message.partition("\n")[0], "query": error.query, "at": error.at}
        print(json_text({"error": told}), file=sys.stderr, flush=True)
    else:
        line = Text.assemble(("error:", "bold red"), f" {message}")
        if hint:
            apart = "\n  " if "\n" in message else " "
            line.append(f"{apart}(hint: {hint})", style="dim")
        settings.err.print(line, soft_wrap=True)
    if slug == "unexpected" and debugging():
        traceback.print_exception(error)
    return exit_code(error)


def debugging() -> bool:
    """Whether the user wants to see tracebacks."""
    return os.environ.get("HOLDFAST_DEBUG", "0") not in {"", "0"}


def output_asked_for(args: Sequence[str]) -> str | None:
    """The `-o` of a command line that could not be parsed as a whole."""
    words = list(args)
    for word, following in zip(words, [*words[1:], ""], strict=True):
        for known in ("table", "json", "jsonl"):
            if word in {f"-o{known}", f"--output={known}"} or (word in {"-o", "--output"} and following == known):
                return known
    return None


def place_of(error: BaseException) -> str:
    """File and line where an exception was raised; of an error that we raise, where we were called."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{Path(error.filename).name}:{error.lineno}"
    frames = [*traceback.extract_tb(error.__traceback__)]
    if isinstance(error, HoldfastError):
        frames = [frame for frame in frames if not _is_inside(frame.filename)] or frames
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "an unknown place"


def _is_inside(filename: str) -> bool:
    """Whether it is a file of holdfast or of what we call the user's code through."""
    return filename.startswith((_OURS, _ASYNCIO, _FUTURES, "<frozen"))


def _explain(error: Exception) -> tuple[str, str, str]:
    """Slug, message and hint."""
    if isinstance(error, HoldfastError):
        return error.code, error.message, error.hint
    if isinstance(error, click.ClickException):
        return "usage", *_explain_click(error)
    told = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if isinstance(error, OSError):
        return "system", told, ""
    hint = "this is a fault of holdfast, please report it; HOLDFAST_DEBUG=1 shows the traceback"
    return "unexpected", f"{told} at {place_of(error)}", hint


def _explain_click(error: click.ClickException) -> tuple[str, str]:
    message = error.format_message().rstrip(".")
    message = message[:1].lower() + message[1:]
    context = error.ctx if isinstance(error, click.UsageError) else None
    if "(hint: " in message:  # from `commands`, which knows what was meant
        message, _, hint = message.partition(" (hint: ")
        return message, hint.rstrip(")")
    return message, f"see `{context.command_path} --help`" if context is not None else "see `holdfast --help`"

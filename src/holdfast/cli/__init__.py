"""The `holdfast` command.

Answers go to stdout, everything else (progress, logs, errors) to stderr. `-o json` and `-o jsonl` are for programs, and
their errors are JSON, too. The process ends with one of the codes in `problems.ExitCode`. Commands are imported when
they are called, so that `holdfast version` does not pay for `holdfast demo`.

An error of Holdfast is one line for a person, never a traceback; what we did not expect is one line that asks for a
report.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from holdfast.cli import problems
from holdfast.cli.commands import holdfast
from holdfast.cli.settings import Settings

__all__ = ["main", "run"]


def main() -> NoReturn:
    """The entry point: run the command line of this process and leave with its exit code."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")  # a terminal without UTF-8 shows question marks instead of failing
    sys.exit(run(sys.argv[1:]))


def run(args: Sequence[str]) -> int:
    """Run one command line in this process.

    Returns:
        The exit code.
    """
    settings = Settings()
    try:
        code = holdfast.main(list(args), prog_name="holdfast", standalone_mode=False, obj=settings)
    except click.Abort:  # Ctrl-C
        return 130
    except Exception as error:
        settings.output = settings.output or problems.output_asked_for(args)
        return problems.report(error, settings)
    return code if isinstance(code, int) else 0

"""What every command knows: which database, which output, which colours; and the options that set them.

The options are accepted before and after the command's name; the one after it wins.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, TextIO, TypeVar

import click
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from holdfast.cli.harmless import harmless

F = TypeVar("F", bound=Callable[..., Any])

OUTPUTS: Final = ("table", "json", "jsonl")
WIDTH_WITHOUT_TERMINAL: Final = 160


@dataclass
class Settings:
    """The options that all commands share.

    Attributes:
        db: the URI as given, or none to find it elsewhere.
        output: table, json or jsonl; none when not given, which means table.
        plain: no colours.
    """

    db: str | None = None
    output: str | None = None
    plain: bool = False

    @property
    def is_json(self) -> bool:
        """Whether programs read the output."""
        return self.output in {"json", "jsonl"}

    @cached_property
    def out(self) -> Console:
        """For answers."""
        return self._console(sys.stdout)

    @cached_property
    def err(self) -> Console:
        """For everything else."""
        return self._console(sys.stderr)

    def _console(self, stream: TextIO) -> Console:
        plain = self.plain or bool(os.environ.get("NO_COLOR"))
        width = None if stream.isatty() or "COLUMNS" in os.environ else WIDTH_WITHOUT_TERMINAL
        # A colour system of none leaves out bold and dim, too: not one escape sequence.
        return HarmlessConsole(
            file=stream, color_system=None if plain else "auto", width=width, highlight=False, markup=False, emoji=False
        )


class HarmlessConsole(Console):
    """Every text that is drawn passes here; what rich itself sends to the terminal is made later, from styles."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The segments, with nothing in them that steers a terminal."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=harmless(segment.text))


def shared_options(function: F) -> F:
    """Add `--db`, `-o` and `--no-color` to a command or group."""
    options = (
        click.option("--db", metavar="URI", expose_value=False, callback=_keep, help="Database. Default: HOLDFAST_URI, "
                     "holdfast.toml, or sqlite:///holdfast.db."),
        click.option("-o", "--output", type=click.Choice(OUTPUTS), expose_value=False, callback=_keep, is_eager=True,
                     help="How answers are written. Default: table."),
        click.option("--no-color", "plain", is_flag=True, default=None, expose_value=False, callback=_keep,
                     help="No colours; as NO_COLOR=1."),
    )  # fmt: skip
    for option in reversed(options):
        function = option(function)
    return function


def _keep(context: click.Context, parameter: click.Parameter, value: object) -> None:
    if value is not None and parameter.name is not None:
        setattr(context.ensure_object(Settings), parameter.name, value)


pass_settings = click.make_pass_decorator(Settings)
"""Passes the settings as the first argument."""

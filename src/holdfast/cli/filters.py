"""What chooses runs: a query and options, the same for `ls` and `count` and for the commands that steer runs."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, Final

import click

from holdfast.cli.values import json_or_text, pairs
from holdfast.cli.words import compact

_NEGATED: Final = re.compile(r'-@?["\w][^\s:]*:.')


@dataclass(frozen=True, slots=True)
class Filters:
    """Conditions, all of which a run must meet."""

    where: str
    states: tuple[str, ...]
    workflow: str | None
    attributes: dict[str, Any]

    @property
    def any(self) -> bool:
        """Whether there is a condition."""
        return bool(self.where or self.states or self.workflow or self.attributes)

    def conditions(self) -> dict[str, Any]:
        """As keywords for `Client.list`."""
        return {
            "where": self.where or None,
            "state": self.states or None,
            "workflow": self.workflow,
            "attributes": self.attributes or None,
        }

    def words(self) -> list[str]:
        """As a command line, to be said again."""
        words = [self.where] if self.where else []
        words += [word for state in self.states for word in ("--state", state)]
        words += ["--workflow", self.workflow] if self.workflow else []
        for key, value in self.attributes.items():
            text = value if isinstance(value, str) and json_or_text(value) == value else compact(value)
            words += ["--attribute", f"{key}={text}"]
        return words


class QueryCommand(click.Command):
    """A command whose arguments are a query. Words such as ``-state:failed`` are conditions, not options."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put negated conditions behind everything else, where no options are looked for."""
        end = args.index("--") if "--" in args else len(args)
        negated = [word for word in args[:end] if _NEGATED.match(word)]
        others = [word for word in args[:end] if not _NEGATED.match(word)]
        rest = [*negated, *args[end + 1 :]]
        return super().parse_args(ctx, [*others, "--", *rest] if rest else others)


def query_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the query as arguments, and the options; the function gets them as `filters`."""
    return _options(click.argument("query", metavar="[QUERY]...", nargs=-1), function)


def filter_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options, `--where` among them; the function gets them as `filters`."""
    where = click.option("--where", "query", metavar="QUERY", help="That match, such as 'state:failed customer:42'.")
    return _options(where, function)


def _options(
    query_parameter: Callable[[Callable[..., Any]], Callable[..., Any]], function: Callable[..., Any]
) -> Callable[..., Any]:
    @query_parameter
    @click.option("--state", "states", multiple=True, metavar="STATE", help="In this state; may be repeated.")
    @click.option("--workflow", metavar="NAME", help="Of this workflow.")
    @click.option("--attribute", "attributes", multiple=True, metavar="KEY=VALUE", help="With this attribute.")
    @wraps(function)
    def wrapped(
        *args: Any,
        query: str | tuple[str, ...] | None,
        states: tuple[str, ...],
        workflow: str | None,
        attributes: tuple[str, ...],
        **kwargs: Any,
    ) -> Any:
        where = query if isinstance(query, str) else " ".join(query or ())
        filters = Filters(where.strip(), _split(states), workflow, pairs(attributes, what="attribute"))
        return function(*args, filters=filters, **kwargs)

    return wrapped


def _split(states: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(state.strip() for group in states for state in group.split(","))

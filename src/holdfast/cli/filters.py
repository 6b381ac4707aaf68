"""Options that choose runs: the same for `ls` and for the commands that steer runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any

import click

from holdfast.cli.values import pairs


@dataclass(frozen=True, slots=True)
class Filters:
    """Conditions, all of which a run must meet."""

    states: tuple[str, ...]
    workflow: str | None
    attributes: dict[str, Any]

    @property
    def any(self) -> bool:
        """Whether there is a condition."""
        return bool(self.states or self.workflow or self.attributes)

    def conditions(self) -> dict[str, Any]:
        """As keywords for `Client.list`."""
        return {"state": self.states or None, "workflow": self.workflow, "attributes": self.attributes or None}


def filter_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options; the function gets them as `filters`."""

    @click.option("--state", "states", multiple=True, metavar="STATE", help="In this state; may be repeated.")
    @click.option("--workflow", metavar="NAME", help="Of this workflow.")
    @click.option("--attribute", "attributes", multiple=True, metavar="KEY=VALUE", help="With this attribute.")
    @wraps(function)
    def wrapped(
        *args: Any, states: tuple[str, ...], workflow: str | None, attributes: tuple[str, ...], **kwargs: Any
    ) -> Any:
        filters = Filters(_split(states), workflow, pairs(attributes, what="attribute"))
        return function(*args, filters=filters, **kwargs)

    return wrapped


def _split(states: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(state.strip() for group in states for state in group.split(","))

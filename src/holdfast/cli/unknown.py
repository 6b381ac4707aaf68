"""Nothing was found: a workflow's name that no run and no worker has may be a slip of the finger.

Asked only when the answer is empty, so that finding runs costs no more. A workflow that a worker knows may well have no
runs yet; of that nothing is said.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from typing import Final

from holdfast import Client
from holdfast._model.query import Word, parse
from holdfast._model.search import OneOf
from holdfast.cli.answers import say
from holdfast.cli.filters import Filters
from holdfast.cli.settings import Settings

NAMED_MAX: Final = 8
"""Workflows that are listed when none is like the one that was asked for."""


async def say_unknown_workflows(settings: Settings, client: Client, filters: Filters) -> None:
    """After an empty answer: name the workflows of the conditions that do not exist, on stderr."""
    await say_unknown(settings, client, _asked_for(filters))


async def say_unknown(settings: Settings, client: Client, asked: Iterable[str]) -> None:
    """The same for workflows by name."""
    names = list(dict.fromkeys(asked))
    if not names:
        return
    known = {row.workflow for row in await client._engine.store.state_counts()}
    known |= {name for worker in await client.workers() for name in worker.workflows}
    for name in names:
        if name not in known:
            say(settings, f"no run and no worker has a workflow {name!r}", hint=hint_for(name, known), style="yellow")


def _asked_for(filters: Filters) -> Iterator[str]:
    if filters.workflow is not None:
        yield filters.workflow
    for term in parse(filters.where).terms if filters.where else ():
        if term.key == "workflow" and not term.attribute and not term.negated and isinstance(term.test, OneOf):
            yield from (word.text for word in term.test.values if isinstance(word, Word))


def hint_for(name: str, known: set[str]) -> str:
    """What may have been meant by a workflow's name that is not known."""
    near = difflib.get_close_matches(name, known, n=1) or difflib.get_close_matches(
        name.lower(), [other for other in known if other.lower() == name.lower()], n=1, cutoff=0.0
    )
    if near:
        return f"did you mean {near[0]!r}?"
    if not known:
        return "there is none yet"
    listed = sorted(known)
    more = f", ... ({len(listed):,} in all: `holdfast stats`)" if len(listed) > NAMED_MAX else ""
    return f"there are {', '.join(listed[:NAMED_MAX])}{more}"

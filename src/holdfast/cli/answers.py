"""Answers for programs: the same JSON whatever the command, so that a script learns it once."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

import msgspec

from holdfast._model.runinfo import Entry, RunInfo
from holdfast.cli.harmless import json_text
from holdfast.cli.settings import Settings


def run_value(run: RunInfo) -> dict[str, Any]:
    """A run as JSON: the names of `RunInfo`; instants are ISO 8601 in UTC."""
    value: dict[str, Any] = msgspec.to_builtins(run)
    return value


def entry_value(entry: Entry) -> dict[str, Any]:
    """An entry as JSON: the names of `Entry`. Arguments are values, or text where they were too long to keep whole."""
    value: dict[str, Any] = msgspec.to_builtins(entry)
    if entry.input is not None:
        try:
            value["input"] = msgspec.json.decode(entry.input)
        except msgspec.DecodeError:
            value["input"] = entry.input
    return value


def write_json(settings: Settings, value: Any) -> None:
    """One value: on one line as jsonl, indented otherwise."""
    encoded = json_text(value)
    _write(encoded if settings.output == "jsonl" else msgspec.json.format(encoded, indent=2))


def write_list(settings: Settings, values: Iterable[Any]) -> None:
    """Several values: one on each line as jsonl, an array otherwise."""
    if settings.output == "jsonl":
        for value in values:
            _write(json_text(value))
    else:
        write_json(settings, list(values))


def say(settings: Settings, message: str, *, hint: str = "", style: str = "dim") -> None:
    """What is worth knowing beside the answer, on stderr: a line for a person, ``{"note": ...}`` for a program."""
    if settings.is_json:
        print(json_text({"note": {"message": message, "hint": hint}}), file=sys.stderr, flush=True)
    else:
        settings.err.print(f"{message} (hint: {hint})" if hint else message, style=style, soft_wrap=True)


def _write(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()

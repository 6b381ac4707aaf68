"""Logging of the command line: everything to stderr, in one line a record, but for tracebacks."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime
from typing import Final

from rich.text import Text

from holdfast.cli.harmless import harmless
from holdfast.cli.settings import Settings

LOG: Final = logging.getLogger("holdfast.cli")
_STYLES: Final = {"WARNING": "yellow", "ERROR": "red", "CRITICAL": "bold red", "DEBUG": "dim"}


def log_to_stderr(settings: Settings, *, level: int, number: int | None = None) -> None:
    """Show records of `level` and above, unless the user's module has set up logging by itself.

    Args:
        number: this process's among those of one parent; each line begins with it.
    """
    logging.getLogger("holdfast").setLevel(level)
    root = logging.getLogger()
    if root.handlers:
        return
    root.setLevel(level)
    on_terminal = settings.err.is_terminal
    prefix = "" if number is None else f"[{number}] "
    handler: logging.Handler = _TerminalHandler(settings, prefix) if on_terminal else logging.StreamHandler(sys.stderr)
    if not on_terminal:
        handler.setFormatter(_LineFormatter(prefix))
    root.addHandler(handler)


class _TerminalHandler(logging.Handler):
    """Time, then the message, coloured by its weight."""

    def __init__(self, settings: Settings, prefix: str) -> None:
        super().__init__()
        self.setFormatter(_HarmlessFormatter())
        self._console = settings.err
        self._prefix = prefix

    def emit(self, record: logging.LogRecord) -> None:
        try:
            at = datetime.fromtimestamp(record.created).astimezone()
            style = _STYLES.get(record.levelname, "default")
            text = self.format(record).replace("\n", f"\n{self._prefix}")
            line = Text.assemble((f"{at:%H:%M:%S}  {self._prefix}", "dim"), (text, style))
            self._console.print(line, soft_wrap=True)
        except Exception:  # as every handler: logging must not fail the work
            self.handleError(record)


class _HarmlessFormatter(logging.Formatter):
    """What a step's error says may hold line ends: no line of a message can be taken for another record."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name is logging's
        return super().formatMessage(record).replace("\n", "\n  ")

    def format(self, record: logging.LogRecord) -> str:
        return harmless(super().format(record))


class _LineFormatter(_HarmlessFormatter):
    """For files and collectors: UTC, level, logger, message."""

    def __init__(self, prefix: str) -> None:
        super().__init__()
        self._prefix = prefix

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        text = f"{at} {record.levelname} {record.name} {super().format(record)}"
        # Tracebacks of several processes may come at once: each of their lines says whose it is.
        return self._prefix + text.replace("\n", f"\n{self._prefix}")

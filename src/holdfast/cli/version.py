"""`holdfast version`."""

from __future__ import annotations

import platform
import sqlite3

import click

from holdfast import __version__
from holdfast.cli.answers import write_json
from holdfast.cli.settings import Settings, pass_settings, shared_options


@click.command()
@shared_options
@pass_settings
def version(settings: Settings) -> None:
    """Versions of holdfast, Python and SQLite."""
    versions = {"holdfast": __version__, "python": platform.python_version(), "sqlite": sqlite3.sqlite_version}
    if settings.is_json:
        write_json(settings, versions)
    else:
        for name, value in versions.items():
            settings.out.print(f"{name:<10}{value}")

"""`kulvert version`."""

from __future__ import annotations

from importlib import metadata

import click


def current() -> str:
    """The installed version."""
    return metadata.version("kulvert")


@click.command()
def version() -> None:
    """Print the version, and nothing else.

    \b
    kulvert version
    """
    click.echo(current())

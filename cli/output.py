"""`-o`: a table for people, JSON or YAML of objects for programs."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from cli.table import table

F = TypeVar("F", bound=Callable[..., Any])


def option(command: F) -> F:
    """`-o table|json|yaml`."""
    kinds = click.Choice(("table", "json", "yaml"))
    return click.option("-o", "--output", type=kinds, default="table", help="How to print it.")(command)


def shown(output: str, kind: str, objects: Sequence[Any], header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints the rows, or the objects: as a list of this kind, or without one the single object."""
    if output == "table":
        for line in table(header, rows):
            click.echo(line)
        return
    from gateway.membership.view import API_VERSION

    single = {"apiVersion": API_VERSION, "kind": kind, "items": list(objects)} if kind else objects[0]
    if output == "json":
        click.echo(json.dumps(single, indent=2))
        return
    import yaml

    click.echo(yaml.safe_dump(single, sort_keys=False), nl=False)

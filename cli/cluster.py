"""`kulvert cluster`: which clusters a server knows."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path

import click

from cli import statedir


@click.group()
def cluster() -> None:
    """Add, list and remove clusters.

    \b
    kulvert cluster add edge-7 --label region=north
    kulvert cluster list
    kulvert cluster remove edge-7

    They work on the state directory of the server, on its machine; a running server follows within a second.
    """


@cluster.command()
@click.argument("name")
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="A label; may be given several times.")
@statedir.option
def add(name: str, labels: tuple[str, ...], state_dir: Path) -> None:
    """Make a cluster known, so that an agent with a join token for it may attach.

    The first agent that attaches pins the name to its cluster's id; agents of another cluster are refused from then
    on.
    """
    from gateway.registry import Cluster

    pairs = tuple(_label(label) for label in labels)
    with statedir.registry(state_dir, make=True) as registry:
        registry.add(Cluster(name, None, time.time(), pairs))
    click.echo(f"cluster {name} added; a join token for its agent: kulvert token create {name}")


@cluster.command("list")
@statedir.option
def list_(state_dir: Path) -> None:
    """List the clusters, with the id that each is pinned to."""
    from cli.table import table

    with statedir.registry(state_dir) as registry:
        rows = [(one.name, one.uid or "-", _day(one.created), _labels(one.labels)) for one in registry.list()]
    for line in table(("NAME", "ID", "CREATED", "LABELS"), rows):
        click.echo(line)


@cluster.command()
@click.argument("name")
@statedir.option
def remove(name: str, state_dir: Path) -> None:
    """Forget a cluster and its join tokens, and send its agents away."""
    with statedir.registry(state_dir) as registry:
        registry.remove(name)
    click.echo(f"cluster {name} and its join tokens removed; a running server sends its agents away within a second")


def _label(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise click.BadParameter(f"{text!r} is no label: write KEY=VALUE", param_hint="--label")
    return key, value


def _labels(pairs: tuple[tuple[str, str], ...]) -> str:
    return ",".join(f"{key}={value}" for key, value in pairs) or "-"


def _day(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%MZ")

"""`kulvert authority`: the authorities of users', agents' and replicas' certificates, and how one is replaced."""

from __future__ import annotations

import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli import statedir
from cli.failures import Failed

if TYPE_CHECKING:
    from auth.authorityfile import AuthorityFile

KINDS = ("users", "agents", "replicas")
_kind = click.argument("kind", type=click.Choice(KINDS))
_id = click.argument("id_", metavar="ID")
_IN_HUB = "keys-in-hub.json"


@click.group()
def authority() -> None:
    """List and replace the authorities that sign certificates.

    \b
    kulvert authority list
    kulvert authority add users
    kulvert authority use users ID
    kulvert authority remove users ID

    KIND is users (and the server's own certificate, where none is configured), agents or replicas. What all of a kind
    have signed counts, the first one signs. A running server follows within a second; replicas are to be started anew
    after each step for `replicas`. How long to wait between the steps: docs/operations.md.
    """


@authority.command("list")
@statedir.option
def list_(state_dir: Path) -> None:
    """List them, by kind."""
    from auth.authorityfile import id_of
    from cli.table import table

    rows = []
    for kind in KINDS:
        file = _file(kind, state_dir)
        for number, one in enumerate(file.all() if file.path.exists() else ()):
            known = one.certificate
            times = _time(known.not_valid_before_utc), _time(known.not_valid_after_utc)
            rows.append((kind, id_of(known), "counts" if number else "signs", *times))
    for line in table(("KIND", "ID", "NOW", "FROM", "UNTIL"), rows):
        click.echo(line)


@authority.command()
@_kind
@statedir.option
def add(kind: str, state_dir: Path) -> None:
    """Make the next one: it counts at once, and signs nothing before it is used."""
    from auth.authorityfile import id_of

    made = _changeable(kind, state_dir).add(time.time())
    click.echo(f"authority {id_of(made.certificate)} of {kind} counts now, and signs when it is used")


@authority.command()
@_kind
@_id
@statedir.option
def use(kind: str, id_: str, state_dir: Path) -> None:
    """Have this one sign from now on. The one that did so counts until it is removed."""
    _changeable(kind, state_dir).use(id_, time.time())
    click.echo(f"authority {id_} of {kind} signs from now on")


@authority.command()
@_kind
@_id
@statedir.option
def remove(kind: str, id_: str, state_dir: Path) -> None:
    """End what this one has signed: certificates of users at once, of agents when they attach the next time."""
    _changeable(kind, state_dir).remove(id_)
    click.echo(f"what authority {id_} of {kind} has signed does not count any more")


def _file(kind: str, state_dir: Path) -> AuthorityFile:
    from gateway.state import State

    state = State(state_dir)
    return {"users": state.users, "agents": state.agents, "replicas": state.replicas}[kind]


def _changeable(kind: str, state_dir: Path) -> AuthorityFile:
    if (state_dir / _IN_HUB).exists():
        raise Failed(
            "the authorities of several replicas are in a Secret of the hub, which counts: "
            "docs/operations.md says how to change it"
        )
    return _file(kind, state_dir)


def _time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%MZ")

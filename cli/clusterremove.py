"""`kulvert cluster remove`: records the wish, and shows how the server does it, step by step."""

from __future__ import annotations

import getpass
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli import statedir
from cli.duration import seconds, spoken
from cli.failures import Failed

if TYPE_CHECKING:
    from gateway.membership.removals import Removal
    from gateway.membership.stores import Stores

LOOK = 0.2


@click.command()
@click.argument("name")
@click.option("--force", is_flag=True, help="Go on where the cluster cannot be reached, and say what is left in it.")
@click.option("--timeout", type=seconds, default="5m", metavar="SPAN", help="How long this command watches.")
@statedir.option
def remove(name: str, force: bool, timeout: float, state_dir: Path) -> None:
    """Remove a cluster, in an order that strands nothing.

    Users are let in no more; what Kulvert made in the cluster is deleted through the tunnel; finalizers are waited for;
    the agent uninstalls itself; only then are its certificates and join tokens revoked, and the name is free again.

    The running server does it, also after a restart. A cluster that cannot be reached is waited for: with --force it is
    not, and what was left behind in it is printed.
    """
    from gateway.membership.changes import remove as wished

    with statedir.stores(state_dir) as stores:
        removal = wished(stores, name, _who(), force, time.time())
        if statedir.server_runs(state_dir):
            _watch(stores, removal, time.monotonic() + timeout, timeout)
        else:
            _offline(stores, removal)


def _watch(stores: Stores, removal: Removal, deadline: float, timeout: float) -> None:
    told, waiting = 0, ""
    while True:
        for one in removal.done[told:]:
            click.echo(f"{one.step.value}: {one.message}")
        told = len(removal.done)
        if removal.finished is not None:
            return _finished(removal)
        if removal.waiting and removal.waiting != waiting:
            waiting = removal.waiting
            click.echo(f"waiting {waiting}", err=True)
        if time.monotonic() >= deadline:
            goes_on = f"the server goes on; `kulvert cluster show {removal.cluster}` says how far it is"
            raise Failed(f"not done within {spoken(timeout)}, waiting {waiting or 'for the server'}: {goes_on}")
        time.sleep(LOOK)
        stores.registry.poll()
        removal = stores.removals.get(removal.cluster) or removal


def _offline(stores: Stores, removal: Removal) -> None:
    """Nobody is attached where no server runs."""
    from gateway.membership.removal import remove_offline

    after = remove_offline(stores, removal.cluster, time.time(), _known(stores, removal.cluster))
    for one in after.done:
        click.echo(f"{one.step.value}: {one.message}")
    if after.finished is None:
        raise Failed(
            f"no server runs on this state directory, and the removal of {removal.cluster} waits {after.waiting}; "
            "it goes on when the server runs"
        )
    _finished(after)


def _known(stores: Stores, name: str) -> list[str]:
    """What the server has had made in the cluster."""
    from gateway.serviceaccounts.store import ServiceAccountStore

    wanted = [one.wanted for one in ServiceAccountStore(stores.registry.database).list()]
    return [f"ServiceAccount {one.namespace}/{one.name}" for one in wanted if one.cluster == name]


def _finished(removal: Removal) -> None:
    click.echo(f"cluster {removal.cluster} removed")
    if removal.left:
        click.echo("left behind in the cluster, to be deleted there:")
        for one in removal.left:
            click.echo(f"  {one}")


def _who() -> str:
    try:
        return f"{getpass.getuser()} (command)"
    except (KeyError, OSError):
        return "command"

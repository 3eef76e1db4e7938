"""`kulvert cluster join`: an agent's manifest for the cluster's owner to apply, or its installation by a kubeconfig."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli import statedir
from cli.duration import seconds, spoken
from cli.failures import Failed
from cli.pairs import labels_of

if TYPE_CHECKING:
    from auth.jointoken import JoinToken
    from gateway.joining.manifest import Installation
    from gateway.membership.stores import Stores


@click.command()
@click.argument("name")
@click.option("--server", "servers", multiple=True, required=True, metavar="URL",
              help="The agents' address of the server, https://HOST:8444; may be repeated.")  # fmt: skip
@click.option("--kubeconfig", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE",
              help="Install the agent by this kubeconfig, which is kept nowhere.")  # fmt: skip
@click.option("--context", help="A context of the kubeconfig other than its current one.")
@click.option("--id", "cluster_id", metavar="UID", help="Accept this very cluster: the UID of its kube-system.")
@click.option("--accept", is_flag=True, help="Accept the first cluster that shows the manifest's join token.")
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="A label, where the name is new.")
@click.option("--ttl", type=seconds, default="24h", metavar="SPAN", help="How long agents may enrol with the token.")
@click.option("--image", metavar="IMAGE", help="The agent's image.  [default: kulvert/kulvert:VERSION]")
@click.option("--replicas", type=click.IntRange(1, 10), default=2, help="Agents that run at a time.")
@click.option("--constrained/--no-constrained", default=None, show_default="with --kubeconfig by its version, else no",
              help="Let the agent act as others by constrained impersonation (Kubernetes 1.36).")  # fmt: skip
@click.option("--uninstall/--no-uninstall", default=True, help="Let the agent take itself away at a removal.")
@click.option("--timeout", type=seconds, default="5m", metavar="SPAN", help="With --kubeconfig: how long to wait.")
@statedir.option
def join(
    name: str, servers: tuple[str, ...], kubeconfig: Path | None, context: str | None, cluster_id: str | None,
    accept: bool, labels: tuple[str, ...], ttl: float, image: str | None, replicas: int, constrained: bool | None,
    uninstall: bool, timeout: float, state_dir: Path,
) -> None:  # fmt: skip
    """Bring a cluster in. Its name is added if need be.

    \b
    kulvert cluster join edge-7 --server https://kulvert.example.com:8444 > edge-7.yaml   # for its owner to apply
    kulvert cluster accept edge-7                                                         # once it asks
    kulvert cluster join edge-7 --server https://kulvert.example.com:8444 --kubeconfig edge-7.kubeconfig

    Without --kubeconfig the manifest is printed (it holds a join token: keep it secret), and this server never gets a
    credential of the cluster. With one, the cluster that the kubeconfig leads to is accepted, the same manifest is
    applied, and the command waits until an agent is attached; the kubeconfig is kept nowhere.
    """
    from cli.version import current
    from gateway.joining.manifest import IMAGE, Installation

    _check_servers(servers)
    with statedir.stores(state_dir, make=True) as stores:
        _known(stores, name, labels)

        def made(by_version: bool, accepting: bool = False) -> Installation:
            token = _token(stores, name, ttl, accepting).text()
            which = image or f"{IMAGE}:{current()}"
            by_constraint = by_version if constrained is None else constrained
            return Installation(name, servers, token, _trusted(state_dir), which, replicas, uninstall, by_constraint)

        if kubeconfig is None:
            _manual(stores, name, cluster_id, made(False, accept), ttl)
        else:
            from cli.joinapply import install

            if not statedir.server_runs(state_dir):
                raise Failed(f"no server runs on {state_dir}, so no agent could attach: start it, then join again")
            install(stores, name, cluster_id, kubeconfig, context, made, timeout)


def _manual(stores: Stores, name: str, cluster_id: str | None, installation: Installation, ttl: float) -> None:
    from gateway.membership.changes import accept as accepted

    if cluster_id is not None:
        accepted(stores, name, cluster_id, time.time(), None)
    click.echo(installation.text(), nl=False)
    click.echo(f"to be applied in the cluster within {spoken(ttl)}: kubectl apply -f FILE", err=True)
    cluster = stores.registry.get(name)
    if cluster is not None and cluster.uid is None and "accept" not in _policy(stores, installation):
        click.echo(f"once it asks: kulvert cluster accept {name}", err=True)


def _policy(stores: Stores, installation: Installation) -> str:
    token = stores.tokens.get(installation.token.partition(".")[0].removeprefix("kvt_"))
    return "accept" if token is not None and token.accept else ""


def _known(stores: Stores, name: str, labels: tuple[str, ...]) -> None:
    from gateway.membership.registry import Cluster

    there = stores.registry.get(name)
    if there is None:
        stores.registry.add(Cluster(name, None, time.time(), labels_of(labels)))
    elif there.phase:
        raise Failed(f"cluster {name!r} is being removed: `kulvert cluster show {name}` says for what that waits")
    elif labels:
        raise Failed(f"there is a cluster {name!r} already: leave out --label")


def _token(stores: Stores, name: str, ttl: float, accept: bool) -> JoinToken:
    from auth.jointoken import JoinToken

    now, made = time.time(), JoinToken.create(os.urandom)
    stores.tokens.add(made.stored(name, now + ttl, created=now, accept=accept))
    return made


def _trusted(state_dir: Path) -> str:
    from gateway.state import State

    return State(state_dir).trusted(time.time()).decode("ascii")


def _check_servers(servers: tuple[str, ...]) -> None:
    from agent.address import BadAddress, parse_all

    try:
        parse_all(servers)
    except BadAddress as error:
        raise click.BadParameter(str(error), param_hint="--server") from None

"""`kulvert cluster`: which clusters a server knows, how they come in, and how they leave."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli import statedir
from cli.clusterenrolment import accept, certificates, deny, requests, revoke, switch
from cli.clustermarks import condition, finalizer, gate
from cli.clusterremove import remove
from cli.failures import Failed
from cli.join import join
from cli.output import option as output_option
from cli.output import shown
from cli.pairs import labels_of

if TYPE_CHECKING:
    from gateway.membership.registry import Cluster
    from gateway.membership.stores import Stores


@click.group()
def cluster() -> None:
    """Add, accept, list and remove clusters.

    \b
    kulvert cluster add edge-7 --label region=north
    kulvert token create edge-7 --accept       # the first cluster that shows this token is accepted
    kulvert cluster list
    kulvert cluster remove edge-7

    A cluster comes in by two steps: its name is added, and a cluster's id (the UID of its namespace kube-system) is
    accepted for the name, which is then pinned to it. Who accepts: an administrator (`kulvert cluster accept`), a
    policy (`kulvert token create --accept`, the server's setting enrolment.autoAccept), or whoever adds the name with
    --id.

    The commands work on the state directory of the server, on its machine; a running server follows within a second.
    """


for _command in (
    requests, accept, deny, switch, join, gate, condition, finalizer, certificates, revoke, remove,
):  # fmt: skip
    cluster.add_command(_command)


@cluster.command()
@click.argument("name")
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="A label; may be given several times.")
@click.option("--id", "cluster_id", metavar="UID", help="Accept this very cluster: the UID of its kube-system.")
@statedir.option
def add(name: str, labels: tuple[str, ...], cluster_id: str | None, state_dir: Path) -> None:
    """Make a cluster's name known, so that agents with a join token for it may ask to come in.

    \b
    kulvert cluster add edge-7 --id $(kubectl get namespace kube-system -o jsonpath={.metadata.uid})
    """
    from gateway.membership.registry import Cluster

    now = time.time()
    with statedir.stores(state_dir, make=True) as stores:
        _check_free(stores, name)
        stores.registry.add(Cluster(name, cluster_id or None, now, labels_of(labels), now if cluster_id else 0.0))
    by = "" if cluster_id else " --accept"
    click.echo(f"cluster {name} added; a join token for its agent: kulvert token create {name}{by}")


@cluster.command("list")
@output_option
@statedir.option
def list_(output: str, state_dir: Path) -> None:
    """List the clusters: what is so of each, and the id that it is pinned to."""
    from gateway.membership.view import cluster_object, status_word

    with statedir.stores(state_dir) as stores:
        found = [_seen(one, state_dir) for one in stores.registry.list()]
        objects = [cluster_object(one, stores.removals.get(one.name)) for one in found]
    words = [(one.name, status_word(one), one.inventory.version or "-", _nodes(one)) for one in found]
    rows = [
        (*said, one.uid or "-", _day(one.created), _labels(one.labels)) for said, one in zip(words, found, strict=True)
    ]
    shown(output, "ClusterList", objects, ("NAME", "STATUS", "VERSION", "NODES", "ID", "CREATED", "LABELS"), rows)


@cluster.command()
@click.argument("name")
@output_option
@statedir.option
def show(name: str, output: str, state_dir: Path) -> None:
    """Show what is so of a cluster: its conditions, gates and finalizers, and how far a removal has come."""
    from gateway.membership.view import cluster_object, moment

    with statedir.stores(state_dir) as stores:
        known = stores.registry.get(name)
        if known is None:
            raise Failed(f"there is no cluster {name!r}: `kulvert cluster list` shows them")
        found, removal = _seen(known, state_dir), stores.removals.get(name)
    if output != "table":
        shown(output, "", [cluster_object(found, removal)], (), ())
        return
    for label, text in (
        ("name", found.name),
        ("id", found.uid or "- (no cluster is accepted for the name)"),
        ("labels", _labels(found.labels)),
        ("phase", found.phase or "Active"),
        ("version", " ".join(filter(None, (found.inventory.version, found.inventory.provider))) or "-"),
        ("nodes", _nodes(found)),
        ("gates", ", ".join(found.gates) or "-"),
        ("finalizers", ", ".join(found.finalizers) or "-"),
    ):
        click.echo(f"{label + ':':<12}{text}")
    rows = [(one.type, one.status, one.reason, moment(one.changed), one.message) for one in found.conditions]
    click.echo()
    shown("table", "", (), ("CONDITION", "STATUS", "REASON", "SINCE", "MESSAGE"), rows)


def _check_free(stores: Stores, name: str) -> None:
    there = stores.registry.get(name)
    if there is not None and there.phase:
        raise Failed(f"cluster {name!r} is being removed: `kulvert cluster show {name}` says for what that waits")


def _seen(found: Cluster, state_dir: Path) -> Cluster:
    """What was written last of an agent's presence says nothing where no server runs."""
    from gateway.membership.conditions import AVAILABLE, UNKNOWN

    if statedir.server_runs(state_dir):
        return found
    known = [
        replace(one, status=UNKNOWN, reason="NoServer", message="no server runs") if one.type == AVAILABLE else one
        for one in found.conditions
    ]
    return replace(found, conditions=tuple(known))


def _labels(pairs: tuple[tuple[str, str], ...]) -> str:
    return ",".join(f"{key}={value}" for key, value in pairs) or "-"


def _nodes(found: Cluster) -> str:
    """Those that are ready, of all."""
    inventory = found.inventory
    return f"{inventory.ready_nodes}/{inventory.nodes}" if inventory.nodes is not None else "-"


def _day(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%MZ")

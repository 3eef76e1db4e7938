"""`kulvert serviceaccount`: service accounts in managed clusters whose tokens the server keeps fresh for one holder."""

from __future__ import annotations

import getpass
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click

from cli import statedir
from cli.duration import seconds
from cli.failures import Failed

if TYPE_CHECKING:
    from gateway.membership.registry import SqliteRegistry
    from gateway.serviceaccounts.store import Managed, ServiceAccountStore, Wanted


@click.group()
def serviceaccount() -> None:
    """Have service accounts made in managed clusters, and their tokens kept in files or in Secrets of the hub.

    \b
    kulvert serviceaccount create edge-7 ci/deployer --holder ada --file deployer.token
    kulvert serviceaccount create edge-7 ci/argo --holder argocd/server --secret argocd/edge-7-token
    kulvert serviceaccount apply -f accounts.yaml
    kulvert serviceaccount list
    kulvert serviceaccount show edge-7 ci/deployer
    kulvert serviceaccount delete edge-7 ci/deployer

    Off by default: it needs serviceAccounts.enabled at the server, and managedServiceAccounts and the role of
    charts/agent-serviceaccounts-rbac.yaml at the cluster's agent. What such an account may do, roles in its cluster
    say. The token is in serviceAccounts.directory, in a directory for each holder, or in that Secret of the hub (in
    one of serviceAccounts.secretNamespaces), and in no log and no store.
    """


@serviceaccount.command()
@click.argument("cluster")
@click.argument("account", metavar="NAMESPACE/NAME")
@click.option("--holder", required=True, help="The one user who may use it; NAMESPACE/NAME: a service account.")
@click.option("--file", default="", help="The file's name, in the holder's directory.")
@click.option("--secret", default="", metavar="NAMESPACE/NAME", help="Instead of a file: a Secret of the hub.")
@click.option("--audience", "audiences", multiple=True, help="Whom the token is for, if not the cluster's API server.")
@click.option("--expiration", type=seconds, default="1h", metavar="SPAN", help="How long each token lives.")
@statedir.option
def create(
    cluster: str, account: str, holder: str, file: str, secret: str, audiences: tuple[str, ...], expiration: float,
    state_dir: Path,
) -> None:  # fmt: skip
    """Have a service account made in a cluster, and a token for it put into a file, or into a Secret of the hub, again
    and again in time.
    """
    from gateway.serviceaccounts.store import Wanted, holder_of

    namespace, name = _account(account)
    wanted = Wanted(cluster, namespace, name, holder_of(holder), file, audiences, expiration, secret)
    with _opened(state_dir) as (registry, store):
        _put(registry, store, wanted)
    click.echo(f"service account {account} of cluster {cluster} is wanted; a running server makes it within seconds")
    click.echo(f"its state: kulvert serviceaccount show {cluster} {account}")


@serviceaccount.command()
@click.option("-f", "--filename", type=click.File(), required=True, help="A YAML file (-: the standard input).")
@statedir.option
def apply(filename: TextIO, state_dir: Path) -> None:
    """Declare service accounts by objects of kind ManagedServiceAccount (kulvert.dev/v1alpha1)."""
    import yaml

    from gateway.serviceaccounts.view import read

    try:
        documents = [one for one in yaml.safe_load_all(filename.read()) if one is not None]
    except (yaml.YAMLError, UnicodeDecodeError):
        raise Failed(f"{filename.name} is not YAML") from None
    wanted = [read(document) for document in documents]  # all of it is right, or nothing counts
    with _opened(state_dir) as (registry, store):
        for one in wanted:
            _put(registry, store, one)
            click.echo(f"managedserviceaccount {one.cluster} {one.namespace}/{one.name} is as declared")


@serviceaccount.command("list")
@statedir.option
def list_(state_dir: Path) -> None:
    """List them, with how they are."""
    from cli.table import table

    with _opened(state_dir) as (_, store):
        rows = [_row(managed) for managed in store.list()]
    for line in table(("CLUSTER", "ACCOUNT", "HOLDER", "PLACE", "STATE", "EXPIRES"), rows):
        click.echo(line)


@serviceaccount.command()
@click.argument("cluster")
@click.argument("account", metavar="NAMESPACE/NAME")
@statedir.option
def show(cluster: str, account: str, state_dir: Path) -> None:
    """Show one as YAML, with its conditions. The token is not among it."""
    import yaml

    from gateway.serviceaccounts.view import shown

    with _opened(state_dir) as (_, store):
        managed = store.get((cluster, *_account(account)))
    if managed is None:
        raise Failed(f"there is no managed service account {account} in cluster {cluster}: see the list")
    click.echo(yaml.safe_dump(shown(managed), sort_keys=False), nl=False)


@serviceaccount.command()
@click.argument("cluster")
@click.argument("account", metavar="NAMESPACE/NAME")
@statedir.option
def delete(cluster: str, account: str, state_dir: Path) -> None:
    """Have one deleted: its file at once, and in its cluster as soon as an agent can be reached."""
    with _opened(state_dir) as (_, store):
        store.delete((cluster, *_account(account)), _asked_by(), time.time())
    click.echo(f"service account {account} of cluster {cluster} is being deleted")


@contextmanager
def _opened(state_dir: Path) -> Iterator[tuple[SqliteRegistry, ServiceAccountStore]]:
    from gateway.serviceaccounts.store import ServiceAccountStore

    with statedir.registry(state_dir) as registry:
        yield registry, ServiceAccountStore(registry.database)


def _put(registry: SqliteRegistry, store: ServiceAccountStore, wanted: Wanted) -> None:
    if registry.get(wanted.cluster) is None:
        raise Failed(f"there is no cluster {wanted.cluster!r}: add it with `kulvert cluster add {wanted.cluster}`")
    store.put(wanted, _asked_by(), time.time())


def _asked_by() -> str:
    """Whoever may write the state directory: an administrator, by the name of this machine."""
    try:
        return f"local:{getpass.getuser()}"
    except (OSError, KeyError):
        return "local"


def _account(text: str) -> tuple[str, str]:
    namespace, slash, name = text.partition("/")
    if not slash or not namespace or not name:
        raise click.BadParameter(f"{text!r} is no service account: write NAMESPACE/NAME", param_hint="NAMESPACE/NAME")
    return namespace, name


def _row(managed: Managed) -> tuple[str, ...]:
    wanted, state = managed.wanted, managed.state
    told = "deleting" if managed.deleted else (state.error or state.reason)
    until = datetime.fromtimestamp(state.expires, UTC).strftime("%Y-%m-%dT%H:%MZ") if state.expires else "-"
    return (
        wanted.cluster,
        f"{wanted.namespace}/{wanted.name}",
        wanted.holder,
        wanted.file or f"secret {wanted.secret}",
        told[:80],
        until,
    )

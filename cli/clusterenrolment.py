"""`kulvert cluster requests|accept|deny|switch|certificates|revoke`: whose a name is, and which agents serve it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli import statedir
from cli.output import option as output_option
from cli.output import shown

if TYPE_CHECKING:
    from gateway.membership.agentcertificates import IssuedCertificate


@click.command()
@output_option
@statedir.option
def requests(output: str, state_dir: Path) -> None:
    """List who asks to serve a cluster and waits: for an administrator, or for a name to be free."""
    from gateway.membership.view import enrolment_object, moment

    with statedir.stores(state_dir) as stores:
        found = stores.enrolments.list()
    words = [(one.state.value, one.choice.value or "-", one.agent, one.address, moment(one.last)) for one in found]
    rows = [(one.cluster, one.cluster_id, *said, one.fingerprint[:16]) for one, said in zip(found, words, strict=True)]
    header = ("CLUSTER", "ID", "STATE", "DECIDED", "AGENT", "ADDRESS", "LAST SEEN", "KEY")
    shown(output, "EnrolmentList", [enrolment_object(one) for one in found], header, rows)


@click.command()
@click.argument("name")
@click.option("--id", "cluster_id", metavar="UID", help="The cluster's id, where several ask, or none has asked yet.")
@click.option("--key", default="", metavar="KEY", help="The agent's key, where several ask by tokens for any cluster.")
@statedir.option
def accept(name: str, cluster_id: str | None, key: str, state_dir: Path) -> None:
    """Accept the cluster that asks for a name: the name is pinned to its id, and its agents get certificates.

    Where another cluster has the name, the accepted one waits, and takes the name over once all agents of the first
    have been gone for a grace period (enrolment.takeoverGrace); `kulvert cluster switch` does not wait.
    """
    from gateway.membership.changes import accept as accepted

    with statedir.stores(state_dir) as stores:
        cluster, has_name = accepted(stores, name, cluster_id, time.time(), key)
    if has_name:
        click.echo(f"cluster {name} accepted, id {cluster.uid}; its agents come in within seconds")
    else:
        click.echo(f"accepted, and waiting: the name {name} is cluster {cluster.uid}'s until all its agents are gone")


@click.command()
@click.argument("name")
@click.option("--id", "cluster_id", metavar="UID", help="Only requests of this cluster.")
@statedir.option
def deny(name: str, cluster_id: str | None, state_dir: Path) -> None:
    """Deny the requests for a name that wait."""
    from gateway.membership.changes import deny as denied

    with statedir.stores(state_dir) as stores:
        count = denied(stores, name, cluster_id)
    click.echo(f"{count} requests for cluster {name} denied; who has a join token may still ask with another key")


@click.command()
@click.argument("name")
@click.option("--to", "cluster_id", metavar="UID", required=True, help="The id of the cluster that gets the name.")
@statedir.option
def switch(name: str, cluster_id: str, state_dir: Path) -> None:
    """Give a name to another cluster, now: the first one's certificates are revoked, and its agents are sent away."""
    from gateway.membership.changes import switch as switched

    with statedir.stores(state_dir) as stores:
        before = stores.registry.get(name)
        switched(stores, name, cluster_id, time.time())
    old = before.uid if before is not None else None
    click.echo(f"cluster {name} is {cluster_id} now" + (f", and {old} no more" if old else ""))


@click.command()
@click.argument("name")
@output_option
@statedir.option
def certificates(name: str, output: str, state_dir: Path) -> None:
    """List the certificates of a cluster's agents."""
    from gateway.membership.view import certificate_object, moment

    now = time.time()
    with statedir.stores(state_dir) as stores:
        found = stores.certificates.of(name)
    rows = [
        (one.serial, one.agent, one.cluster_id, _state(one, now), moment(one.issued), moment(one.expires))
        for one in found
    ]
    header = ("SERIAL", "AGENT", "CLUSTER ID", "STATE", "ISSUED", "EXPIRES")
    shown(output, "AgentCertificateList", [certificate_object(one) for one in found], header, rows)


@click.command()
@click.argument("name")
@click.argument("serial")
@click.option("--keep-tokens", is_flag=True, help="Leave its join tokens, by which its holder may come again.")
@statedir.option
def revoke(name: str, serial: str, keep_tokens: bool, state_dir: Path) -> None:
    """Take an agent's certificate back: it is sent away within seconds, and its key does not come in again.

    The join tokens for this cluster go as well, since with one the agent would get another certificate for another
    key; agents that are enrolled need none.
    """
    from gateway.membership.changes import revoke as revoked

    with statedir.stores(state_dir) as stores:
        one = revoked(stores, name, serial, time.time())
        tokens = 0 if keep_tokens else stores.tokens.remove_of(name)
        shared = [token.id for token in stores.tokens.list() if not token.cluster]
    click.echo(f"certificate {one.serial} of {one.agent or 'an agent'} revoked, and {tokens} join tokens of {name}")
    if shared:
        click.echo(f"tokens for any cluster remain: {', '.join(shared)} (`kulvert token revoke ID`)")


def _state(one: IssuedCertificate, now: float) -> str:
    if one.revoked is not None:
        return "revoked"
    return "good" if now < one.expires else "expired"

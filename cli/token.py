"""`kulvert token`: join tokens, with which agents ask for their first certificate."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli import statedir
from cli.duration import seconds
from cli.failures import Failed
from cli.pairs import labels_of

if TYPE_CHECKING:
    from auth.jointoken import StoredJoinToken
    from gateway.membership.stores import Stores

_AGENT = """\
The agent's configuration (agent.yaml; the token belongs into a file that only the agent can read):

  servers: [{server}]
  cluster: {cluster}
  joinTokenFile: token
  stateDir: state         # its key and certificate, which outlive the token
{trust}

and the command, with the token in the file `token`:

  kulvert agent --config agent.yaml
"""


_TRUST = "  caFile: server-ca.crt # a copy of {}, which the server's first start makes"
_SYSTEM = "  # no caFile: the server's certificate ends in no root, so the system's CAs are to know it"


@click.group()
def token() -> None:
    """Make, list and revoke the agents' join tokens.

    \b
    kulvert token create edge-7 --accept
    kulvert token create edge-7 --uses 1 --ttl 1h --quiet > token
    kulvert token create --any --label env=edge
    kulvert token list
    kulvert token revoke ID
    """


@token.command()
@click.argument("cluster", required=False)
@click.option("--any", "any_cluster", is_flag=True, help="For any cluster, which gets the labels: give at least one.")
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="With --any; may be given several times.")
@click.option("--accept", is_flag=True, help="The first cluster that shows it is accepted, without an administrator.")
@click.option("--ttl", type=seconds, default="24h", metavar="SPAN", help="How long agents may enrol with it.")
@click.option("--uses", type=click.IntRange(1, 10_000), metavar="N", help="How many agents may.  [default: any number]")
@click.option("--server", default="https://SERVER:8444", help="The agents' address, for the text that is printed.")
@click.option("-q", "--quiet", is_flag=True, help="Print the token and nothing else.")
@statedir.option
def create(
    cluster: str | None, any_cluster: bool, labels: tuple[str, ...], accept: bool, ttl: float, uses: int | None,
    server: str, quiet: bool, state_dir: Path,
) -> None:  # fmt: skip
    """Make a join token and print it: once, for the server keeps no token, only a key derived from it.

    With it an agent asks for a certificate; from then on it needs no token. A cluster that shows a token waits until an
    administrator accepts it (`kulvert cluster accept`), unless the token was made with --accept: then the first
    cluster that shows it has the name, and no second one can come in by it. Once a cluster is accepted, further agents
    of it that show a token for its name need nobody; with a token for any cluster, each waits for an administrator.
    """
    from auth.jointoken import JoinToken

    if (cluster is None) is not any_cluster:
        raise click.UsageError("name a cluster, or give --any with labels")
    if any_cluster is not bool(labels):
        raise click.UsageError("--any and --label go together: the clusters that come in by the token get the labels")
    now, made = time.time(), JoinToken.create(os.urandom)
    terms = {"created": now, "uses": uses or 0, "accept": accept, "labels": labels_of(labels)}
    with statedir.stores(state_dir) as stores:
        if cluster is not None and stores.registry.get(cluster) is None:
            raise Failed(f"there is no cluster {cluster!r}: add it with `kulvert cluster add {cluster}`")
        stores.tokens.add(made.stored(cluster or "", now + ttl, **terms))
    click.echo(made.text())
    if not quiet:
        click.echo()
        click.echo(_AGENT.format(server=server, cluster=cluster or "NAME", trust=_trust(state_dir)), nl=False)
        if not accept:
            click.echo(f"\nonce it asks: kulvert cluster accept {cluster or 'NAME'}")


@token.command("list")
@statedir.option
def list_(state_dir: Path) -> None:
    """List the tokens by id; the tokens themselves are nowhere."""
    from cli.table import table

    now = time.time()
    with statedir.stores(state_dir) as stores:
        rows = [(one.id, _for(one), _uses(one, stores), _until(one.expires, now)) for one in stores.tokens.list()]
    for line in table(("ID", "CLUSTER", "USES", "EXPIRES"), rows):
        click.echo(line)


@token.command()
@click.argument("token_id", metavar="ID")
@statedir.option
def revoke(token_id: str, state_dir: Path) -> None:
    """Take a token back: nobody enrols with it any more. Agents that have a certificate stay."""
    with statedir.stores(state_dir) as stores:
        if not stores.tokens.remove(token_id):
            raise Failed(f"there is no join token {token_id!r}: `kulvert token list` shows their ids")
    click.echo(f"join token {token_id} revoked; `kulvert cluster revoke` takes back a certificate")


def _for(one: StoredJoinToken) -> str:
    name = one.cluster or "any: " + ",".join(f"{key}={value}" for key, value in one.labels)
    return f"{name} (accepted)" if one.accept else name


def _uses(one: StoredJoinToken, stores: Stores) -> str:
    return f"{len(stores.tokens.keys(one.id))}/{one.uses}" if one.uses else "-"


def _trust(state_dir: Path) -> str:
    from gateway.state import State

    path = State(state_dir).server_ca
    return _SYSTEM if path.exists() and not path.stat().st_size else _TRUST.format(path)


def _until(expires: float, now: float) -> str:
    if expires <= now:
        return "expired"
    return datetime.fromtimestamp(expires, UTC).strftime("%Y-%m-%dT%H:%MZ")

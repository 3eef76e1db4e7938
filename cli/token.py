"""`kulvert token`: join tokens, with which an agent may ask to serve a cluster."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from pathlib import Path

import click

from cli import statedir
from cli.duration import seconds
from cli.failures import Failed

_AGENT = """\
The agent's configuration (agent.yaml; the token belongs into a file that only the agent can read):

  servers: [{server}]
  cluster: {cluster}
  joinTokenFile: token
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
    kulvert token create edge-7
    kulvert token create edge-7 --ttl 7d --quiet > token
    kulvert token list
    kulvert token revoke ID
    """


@token.command()
@click.argument("cluster")
@click.option("--ttl", type=seconds, default="365d", metavar="SPAN", help="How long an agent may attach with it.")
@click.option("--server", default="https://SERVER:8444", help="The agents' address, for the text that is printed.")
@click.option("-q", "--quiet", is_flag=True, help="Print the token and nothing else.")
@statedir.option
def create(cluster: str, ttl: float, server: str, quiet: bool, state_dir: Path) -> None:
    """Make a join token for a cluster and print it: once, for the server keeps no token, only a key derived from it."""
    from auth.jointoken import JoinToken

    made = JoinToken.create(os.urandom)
    with statedir.registry(state_dir) as registry:
        if registry.get(cluster) is None:
            raise Failed(f"there is no cluster {cluster!r}: add it with `kulvert cluster add {cluster}`")
        registry.add_join_token(made.stored(cluster, time.time() + ttl))
    click.echo(made.text())
    if not quiet:
        click.echo()
        click.echo(_AGENT.format(server=server, cluster=cluster, trust=_trust(state_dir)), nl=False)


@token.command("list")
@statedir.option
def list_(state_dir: Path) -> None:
    """List the tokens by id; the tokens themselves are nowhere."""
    from cli.table import table

    now = time.time()
    with statedir.registry(state_dir) as registry:
        rows = [(one.id, one.cluster, _until(one.expires, now)) for one in registry.join_tokens()]
    for line in table(("ID", "CLUSTER", "EXPIRES"), rows):
        click.echo(line)


@token.command()
@click.argument("token_id", metavar="ID")
@statedir.option
def revoke(token_id: str, state_dir: Path) -> None:
    """Take a token back: nobody attaches with it any more. An agent that is attached stays until its link ends."""
    with statedir.registry(state_dir) as registry:
        if not registry.remove_join_token(token_id):
            raise Failed(f"there is no join token {token_id!r}: `kulvert token list` shows their ids")
    click.echo(f"join token {token_id} revoked")


def _trust(state_dir: Path) -> str:
    from gateway.state import State

    path = State(state_dir).server_ca
    return _SYSTEM if path.exists() and not path.stat().st_size else _TRUST.format(path)


def _until(expires: float, now: float) -> str:
    if expires <= now:
        return "expired"
    return datetime.fromtimestamp(expires, UTC).strftime("%Y-%m-%dT%H:%MZ")

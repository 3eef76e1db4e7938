"""`kulvert kubeconfig`: a user's way to a cluster, signed on the server's machine by the platform's CA."""

from __future__ import annotations

import os
import secrets
import time
from dataclasses import dataclass
from pathlib import Path

import click

from cli import statedir
from cli.duration import seconds, spoken
from cli.failures import Failed
from cli.kubeconfigfile import Entry, certificate, merged, other_contexts, read, text, write

DAY = 86_400.0
_STDOUT = Path("-")


@dataclass(frozen=True, slots=True)
class Wanted:
    """Who is to reach what, and how long."""

    cluster: str
    user: str
    groups: tuple[str, ...]
    server: str
    ttl: float
    token: bool


@click.command()
@click.argument("name")
@click.option("--user", default="admin", help="The user's name, as the cluster's RBAC will see it.")
@click.option(
    "--group", "groups", multiple=True, help="A group; may be repeated.  [default: none, but kulvert:admins for admin]"
)
@click.option("--server", default="https://127.0.0.1:8443", envvar="KULVERT_SERVER", show_envvar=True,
              help="The users' address of the server.")  # fmt: skip
@click.option("--certificate/--token", "by_certificate", default=True, help="A client certificate, or a signed token.")
@click.option("--ttl", type=seconds, default="24h", metavar="SPAN", help="How long it is good; a token at most 24h.")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              help="The file, or - for stdout.  [default: -, with --merge $KUBECONFIG or ~/.kube/config]")  # fmt: skip
@click.option("--merge", is_flag=True, help="Add the context to a kubeconfig that is there; its current context stays.")
@statedir.option
def kubeconfig(
    name: str, user: str, groups: tuple[str, ...], server: str, by_certificate: bool, ttl: float, output: Path | None,
    merge: bool, state_dir: Path,
) -> None:  # fmt: skip
    """Write a kubeconfig whose context NAME reaches cluster NAME, with what it must trust in it (mode 0600).

    \b
    kulvert kubeconfig edge-7 --user ada --group dev -o edge-7.yaml
    kubectl --kubeconfig edge-7.yaml get pods -A
    kulvert kubeconfig edge-7 --user ada --group dev --merge
    kubectl --context edge-7 get pods -A
    kulvert kubeconfig edge-7 --user ci --group ci --token --ttl 30m -o -

    It works on the state directory of the server, on its machine. The grants file says which users and groups reach
    which clusters; the cluster's own RBAC says what they may do there.
    """
    wanted = Wanted(name, user, groups or default_groups(user), server, ttl, not by_certificate)
    _check(wanted, state_dir)
    entry = entry_for(wanted, state_dir, time.time())
    target = output or (_own_kubeconfig() if merge else _STDOUT)
    if target == _STDOUT:
        click.echo(text(entry.document()), nl=False)
        return
    there = read(target)
    if not merge and (others := other_contexts(there, name)):
        raise Failed(
            f"{target} holds other contexts ({', '.join(others)}): add to it with --merge, or name another file"
        )
    write(target, merged(there, entry) if merge else entry.document())
    _told(wanted, target, merge)


def default_groups(user: str) -> tuple[str, ...]:
    """Nobody becomes an administrator by leaving out --group, but the user of that name."""
    return ("kulvert:admins",) if user == "admin" else ()


def entry_for(wanted: Wanted, state_dir: Path, now: float) -> Entry:
    """Signs a certificate or a token."""
    from gateway.state import State

    state = State(state_dir)
    authority = state.authority(now)
    if wanted.token:
        jti = secrets.token_hex(16)
        signed = state.signer().issue(wanted.user, wanted.groups, "", jti, now, wanted.ttl)
        credentials = {"token": signed}
    else:
        issued = authority.issue_client(wanted.user, wanted.groups, now, wanted.ttl)
        credentials = certificate(issued.certificate, issued.key)
    address = f"{wanted.server.rstrip('/')}/clusters/{wanted.cluster}"
    return Entry(wanted.cluster, address, state.trusted(now), wanted.user, credentials)


def _check(wanted: Wanted, state_dir: Path) -> None:
    from tunnel.impersonate import protected_identity

    with statedir.registry(state_dir) as registry:
        if registry.get(wanted.cluster) is None:
            known = ", ".join(one.name for one in registry.list()) or "none yet (`kulvert cluster add` makes one known)"
            raise Failed(f"there is no cluster {wanted.cluster!r}; known are: {known}")
    if reason := protected_identity(wanted.user, wanted.groups):
        raise Failed(f"{reason}; choose a --user and --group of your own, and bind them in the cluster's RBAC")
    if not wanted.server.startswith("https://"):
        raise Failed(f"--server {wanted.server!r} is not https://HOST[:PORT]")
    if wanted.token and wanted.ttl > DAY:
        raise Failed("a token is good for a day at most: shorten --ttl, or leave out --token")


def _own_kubeconfig() -> Path:
    """kubectl's own rule: the first file of $KUBECONFIG, else ~/.kube/config."""
    listed = [part for part in os.environ.get("KUBECONFIG", "").split(os.pathsep) if part]
    return Path(listed[0]) if listed else Path.home() / ".kube" / "config"


def _told(wanted: Wanted, target: Path, merge: bool) -> None:
    option = f"--kubeconfig {target} --context {wanted.cluster}" if merge else f"--kubeconfig {target}"
    click.echo(f"{target}: context {wanted.cluster}, user {wanted.user}, good for {spoken(wanted.ttl)}", err=True)
    click.echo(f"kubectl {option} get pods -A", err=True)

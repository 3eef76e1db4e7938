"""`kulvert kubeconfig`: the way to one cluster as any user, signed on the server's machine; or one's own way to all
clusters that one may reach, from anywhere.
"""

from __future__ import annotations

import os
import secrets
import time
from dataclasses import dataclass
from pathlib import Path

import click
from click.core import ParameterSource

from cli import statedir
from cli.duration import seconds, spoken
from cli.failures import Failed
from cli.kubeconfigfile import Entry, certificate, merge, text
from cli.kubeconfigtree import Kubeconfig, locked
from cli.kubeconfiguser import Asked, write_own
from cli.kubeconfigwrite import STDOUT, own_kubeconfig, saved

DAY = 86_400.0
_SIGNED = ("user", "groups", "ttl", "state_dir")
_OWN = ("prefix", "profile", "prune", "force", "use", "certificate_authority")


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
@click.argument("name", required=False)
@click.option("--server", envvar="KULVERT_SERVER", show_envvar=True, metavar="URL", help=(
    "The gateway.  [default: with NAME https://127.0.0.1:8443, else where you are signed in]"))  # fmt: skip
@click.option("--certificate/--token", "by_certificate", default=None, help=(
    "A client certificate, or a token of the gateway's.  [default: with NAME a certificate, else neither: "
    "the ID token of your login]"))  # fmt: skip
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              help="The file, or - for stdout.  [default: -, with --merge $KUBECONFIG or ~/.kube/config]")  # fmt: skip
@click.option("--merge", is_flag=True, help="Add to a kubeconfig that is there; its current context stays.")
@click.option("--context-prefix", "prefix", metavar="TEXT", help=(
    "Begins the contexts' names.  [default: kulvert/]"))  # fmt: skip
@click.option("--use", metavar="NAME", help="Make this context, or this cluster's, the current one.")
@click.option("--prune", is_flag=True, help="With --merge: remove your contexts of clusters that you reach no more.")
@click.option("--force", is_flag=True, help="Take names that are somebody else's.")
@click.option(
    "--profile",
    default="",
    show_default=False,
    metavar="NAME",
    help="Which login, where you have several at one gateway.",
)
@click.option("--certificate-authority", type=click.Path(dir_okay=False, exists=True, path_type=Path), metavar="FILE",
              help="PEM: what the gateway is trusted by.  [default: as at your login]")  # fmt: skip
@click.option("--user", default="admin", help="With NAME: the user's name, as the cluster's RBAC will see it.")
@click.option("--group", "groups", multiple=True, help=(
    "With NAME: a group; may be repeated.  [default: none, but kulvert:admins for admin]"))  # fmt: skip
@click.option("--ttl", type=seconds, default="24h", metavar="SPAN", help=(
    "With NAME: how long it is good; a token at most 24h."))  # fmt: skip
@statedir.option
@click.pass_context
def kubeconfig(
    context: click.Context, name: str | None, server: str | None, by_certificate: bool | None, output: Path | None,
    merge: bool, prefix: str | None, use: str | None, prune: bool, force: bool, profile: str,
    certificate_authority: Path | None, user: str, groups: tuple[str, ...], ttl: float, state_dir: Path,
) -> None:  # fmt: skip
    """Write a kubeconfig (mode 0600): with a context for each cluster that you may reach, or for cluster NAME alone.

    \b
    Your own, after `kulvert login`; it holds no secret, kubectl runs `kulvert credential` for that:
      kulvert kubeconfig --server https://kulvert.example.com --merge
      kubectl --context kulvert/edge-7 get pods
      kulvert kubeconfig --merge --prune --use edge-7
      kulvert kubeconfig --certificate --merge  # by a client certificate instead of the ID token

    \b
    Any user's, on the server's machine, from its state directory:
      kulvert kubeconfig edge-7 --user ada --group dev -o edge-7.yaml
      kubectl --kubeconfig edge-7.yaml get pods -A
      kulvert kubeconfig edge-7 --user ci --group ci --token --ttl 30m -o -

    Grants say who reaches which clusters; the cluster's own RBAC says what they may do there.
    """
    if name is None:
        _refuse(context, _SIGNED, "is for one cluster: name it, as in `kulvert kubeconfig edge-7 --user ada`")
        if prune and not merge:
            raise click.UsageError("--prune goes with --merge")
        asked = Asked(server, profile, by_certificate, prefix, use, prune, force, certificate_authority)
        write_own(asked, output, merge)
        return
    _refuse(context, _OWN, "is for your own contexts: leave out NAME")
    token = by_certificate is False
    wanted = Wanted(name, user, groups or default_groups(user), server or "https://127.0.0.1:8443", ttl, token)
    _check(wanted, state_dir)
    _write_signed(wanted, entry_for(wanted, state_dir, time.time()), output, merge)


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
        signed = state.signer(now).issue(wanted.user, wanted.groups, "", jti, now, wanted.ttl)
        credentials = {"token": signed}
    else:
        issued = authority.issue_client(wanted.user, wanted.groups, now, wanted.ttl)
        credentials = certificate(issued.certificate, issued.key)
    address = f"{wanted.server.rstrip('/')}/clusters/{wanted.cluster}"
    return Entry(wanted.cluster, address, state.trusted(now), wanted.user, credentials)


def _write_signed(wanted: Wanted, entry: Entry, output: Path | None, merging: bool) -> None:
    target = output or (own_kubeconfig(os.environ) if merging else STDOUT)
    if target == STDOUT:
        click.echo(text(entry.document()), nl=False)
        return
    with locked(target):
        config = Kubeconfig.read(target)
        others = [name for name in config.names("contexts") if name != wanted.cluster]
        if others and not merging:
            shown = ", ".join(others)
            raise Failed(f"{target} holds other contexts ({shown}): add to it with --merge, or name another file")
        if not merging:
            config = Kubeconfig.empty()
        merge(config, entry)
        saved(config, target)
    _told(wanted, target, merging)


def _refuse(context: click.Context, names: tuple[str, ...], why: str) -> None:
    """Options of the other way to use the command: leaving them unused would not be what was meant."""
    for one in context.command.params:
        if one.name in names and context.get_parameter_source(one.name) is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"{one.opts[0]} {why}")


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


def _told(wanted: Wanted, target: Path, merge: bool) -> None:
    option = f"--kubeconfig {target} --context {wanted.cluster}" if merge else f"--kubeconfig {target}"
    click.echo(f"{target}: context {wanted.cluster}, user {wanted.user}, good for {spoken(wanted.ttl)}", err=True)
    click.echo(f"kubectl {option} get pods -A", err=True)

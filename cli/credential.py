"""`kulvert credential`: what kubectl runs for its user's credentials, at each of its calls. So it is quick: with a good
credential in the cache, nothing of cryptography, HTTP or asyncio is imported.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass

import click

from cli.credentialexec import ExecInfo, Shown, answer, read_info
from cli.credentialplan import Step, decide
from cli.failures import Failed
from cli.login.address import gateway, origin
from cli.login.stored import Login, Minted
from cli.tokencache import CERTIFICATE, LOGIN, TOKEN, LoginKey, TokenCache, directory


@dataclass(frozen=True, slots=True)
class Wanted:
    """Whose credential, of which kind, and for whom."""

    key: LoginKey
    kind: str
    info: ExecInfo


@click.command(context_settings={"show_default": False})
@click.option("--server", required=True, envvar="KULVERT_SERVER", show_envvar=True, metavar="URL", help="The gateway.")
@click.option(
    "--issuer-url",
    default="",
    metavar="URL",
    help="The OIDC issuer.  [default: that of your login there, else the gateway is asked]",
)
@click.option(
    "--client-id", default="", metavar="ID", help="The command's name there.  [default: the gateway is asked]"
)
@click.option("--profile", default="", metavar="NAME", help="Which login, where you have several at one gateway.")
@click.option("--certificate", is_flag=True, help="A client certificate of the gateway's, renewed in place.")
@click.option("--kulvert-token", is_flag=True, help="A token of the gateway's own.")
def credential(
    server: str, issuer_url: str, client_id: str, profile: str, certificate: bool, kulvert_token: bool
) -> None:  # fmt: skip
    """Print a credential for kubectl, which runs this by itself: `kulvert kubeconfig` writes that down.

    \b
    kulvert credential --server https://kulvert.example.com
    kulvert credential --server https://kulvert.example.com | jq -r .status.token

    It is the issuer's ID token, renewed silently shortly before it expires. Where that cannot be done, it has you sign
    in, at a terminal, or tells you to.
    """
    if certificate and kulvert_token:
        raise click.UsageError("--certificate and --kulvert-token are two kinds of credential: choose one")
    kind = CERTIFICATE if certificate else TOKEN if kulvert_token else LOGIN
    info = read_info(os.environ)
    address = gateway(server)
    _check_cluster(info, address)
    cache = TokenCache(directory(os.environ), said)
    if not issuer_url and not client_id:
        issuer_url, client_id = _signed_in(cache, address, profile)
    if not issuer_url or not client_id:
        issuer_url, client_id = _asked(address, info, issuer_url, client_id)
    wanted = Wanted(LoginKey(address, issuer_url, client_id, profile), kind, info)
    click.echo(answer(info, cached(cache, wanted, time.time()) or _renewed(cache, wanted)))


def _signed_in(cache: TokenCache, server: str, profile: str) -> tuple[str, str]:
    """Issuer and client of the one login there; nothing where there is none, or several."""
    known = [one for one in cache.logins() if (one.server, one.profile) == (server, profile)]
    return (known[0].issuer, known[0].client_id) if len(known) == 1 else ("", "")


def said(text: str) -> None:
    """To the user: standard output is kubectl's."""
    click.echo(f"kulvert: {text}", err=True)


def cached(cache: TokenCache, wanted: Wanted, now: float) -> Shown | None:
    """What may be used without a further step."""
    document = cache.load(wanted.key, wanted.kind)
    if wanted.kind == LOGIN:
        login = Login.read(wanted.key, document)
        renewable = login is not None and bool(login.refresh_token)
        used = decide(login.times if login else None, now, renewable=renewable, interactive=False) is Step.USE
        return of_login(login, now) if login is not None and used else None
    held = Minted.read(wanted.kind, document)
    used = decide(held.times if held else None, now, renewable=True, interactive=False) is Step.USE
    return of_minted(held, now) if held is not None and used else None


def of_login(login: Login, now: float) -> Shown:
    """An ID token, for kubectl."""
    return Shown(login.times.until(now, bool(login.refresh_token)), token=login.id_token)


def of_minted(held: Minted, now: float) -> Shown:
    """What the gateway gave, for kubectl."""
    until = held.times.until(now, True)
    if held.kind == TOKEN:
        return Shown(until, token=held.secret)
    return Shown(until, certificate=held.certificate, key=held.secret)


def _renewed(cache: TokenCache, wanted: Wanted) -> Shown:
    import asyncio

    from cli.credentialsource import Source, ways_here

    asked = wanted.info.interactive
    interactive = sys.stdin.isatty() if asked is None else asked
    source = Source(cache, wanted.key, said, interactive, ways_here(), wanted.info.ca)
    if wanted.kind == LOGIN:
        return of_login(asyncio.run(source.login()), time.time())
    return of_minted(asyncio.run(source.minted(wanted.kind)), time.time())


def _check_cluster(info: ExecInfo, server: str) -> None:
    """A user that was put beside another's cluster, by mistake or not, would have its token sent there."""
    if info.server and origin(info.server) != server:
        raise Failed(
            f"this context's cluster is at {origin(info.server)!r}, and its user's credential for {server}: it is not "
            "handed out; `kulvert kubeconfig` writes contexts that fit (a cluster reached as NAME.DOMAIN: leave out "
            "provideClusterInfo)"
        )


def _asked(server: str, info: ExecInfo, issuer: str, client_id: str) -> tuple[str, str]:
    import asyncio

    from cli.credentialsource import configuration

    found = asyncio.run(configuration(server, info.ca, said))
    return issuer or found.issuer, client_id or found.client_id

"""`kulvert login`: sign in at the gateway's issuer, in the browser or by a code on another machine."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.failures import Failed
from cli.login.address import gateway
from cli.tokencache import LOGIN, LoginKey, TokenCache, directory

if TYPE_CHECKING:
    from cli.gatewayapi import Configuration
    from cli.login.flow import Ways
    from cli.login.stored import Client, Login

MOST_CA = 1 << 20


@dataclass(frozen=True, slots=True)
class Wanted:
    """What was said on the command line; the gateway says what was not."""

    server: str
    profile: str
    issuer: str
    client_id: str
    scopes: tuple[str, ...]
    client_secret: str = field(repr=False)
    device: bool
    no_browser: bool
    redirect_host: str
    port: int
    ca: str = field(repr=False)


@click.command(context_settings={"show_default": False})
@click.option("--server", envvar="KULVERT_SERVER", show_envvar=True, metavar="URL",
              help="The gateway.  [default: where you are signed in already, if that is one]")  # fmt: skip
@click.option("--issuer-url", default="", metavar="URL", help="The OIDC issuer.  [default: the gateway says it]")
@click.option("--client-id", default="", metavar="ID", help="The command's name there.  [default: the gateway says it]")
@click.option("--client-secret", default="", envvar="KULVERT_CLIENT_SECRET", show_envvar=True, metavar="SECRET",
              help="For an issuer that gives programs one.")  # fmt: skip
@click.option("--scope", "scopes", multiple=True, metavar="SCOPE",
              help="What to ask for; may be repeated.  [default: the gateway says it]")  # fmt: skip
@click.option("--device", is_flag=True, help="Sign in on another machine, by a code. So without a browser here.")
@click.option("--no-browser", is_flag=True, help="Print the address, and open no browser.")
@click.option("--redirect-host", type=click.Choice(["localhost", "127.0.0.1"]),
              help="This machine, in the address that the issuer sends the browser to.")  # fmt: skip
@click.option("--listen-port", type=click.IntRange(0, 65_535), default=0, metavar="PORT",
              help="The port in that address, for an issuer that wants it fixed.  [default: any free one]")  # fmt: skip
@click.option("--certificate-authority", type=click.Path(dir_okay=False, exists=True, path_type=Path), metavar="FILE",
              help="PEM: what the gateway, and beside the system's CAs the issuer, is trusted by.")  # fmt: skip
@click.option("--profile", default="", metavar="NAME", help="A name for this login, where you want several.")
def login(
    server: str | None, issuer_url: str, client_id: str, client_secret: str, scopes: tuple[str, ...], device: bool,
    no_browser: bool, redirect_host: str | None, listen_port: int, certificate_authority: Path | None, profile: str,
) -> None:  # fmt: skip
    """Sign in, so that kubectl may reach the clusters of a gateway. What comes of it is kept for you alone (mode 0600).

    \b
    kulvert login --server https://kulvert.example.com
    kulvert kubeconfig --server https://kulvert.example.com --merge
    kubectl --context kulvert/edge-7 get pods

    \b
    kulvert login --server https://kulvert.example.com --device       # over ssh: sign in on another machine
    kulvert login --server https://kulvert.example.com --profile ops  # a second login, beside the first

    It is renewed silently for as long as the issuer lets it: you come back here when it does not.
    """
    from cli.credential import said

    cache = TokenCache(directory(os.environ), said)
    ca = read_ca(certificate_authority) if certificate_authority else ""
    wanted = Wanted(
        gateway(server or the_only_server(cache)), profile, issuer_url, client_id, scopes, client_secret, device,
        no_browser, redirect_host or "", listen_port, ca,
    )  # fmt: skip
    made = _signed_in(cache, wanted, said)
    left = max(0.0, made.times.expires - time.time()) / 60
    renewal = "renewed silently" if made.refresh_token else f"for {left:.0f} min: the issuer gave no refresh token"
    click.echo(f"signed in as {made.name} at {wanted.server}, {renewal}")
    more = f" --profile {profile}" if profile else ""
    click.echo(f"contexts for your clusters: kulvert kubeconfig --server {wanted.server}{more} --merge")


def the_only_server(cache: TokenCache) -> str:
    """The gateway of the logins that are kept. :raises Failed: there is none, or more than one."""
    servers = sorted({key.server for key in cache.logins()})
    if len(servers) == 1:
        return servers[0]
    if not servers:
        raise Failed("which gateway? name it by --server https://HOST[:PORT], or KULVERT_SERVER")
    raise Failed(f"which gateway? choose by --server: {', '.join(servers)}")


def remembered_ca(cache: TokenCache, server: str) -> str:
    """What a gateway was trusted by at an earlier login; empty where there is none."""
    from cli.login.stored import Login

    logins = (Login.read(key, cache.load(key, LOGIN)) for key in cache.logins() if key.server == server)
    return next((one.ca for one in logins if one is not None and one.ca), "")


def _signed_in(cache: TokenCache, wanted: Wanted, said: Callable[[str], None]) -> Login:
    import asyncio

    from cli.credentialsource import SCOPES, Source, configuration, ways_here
    from cli.gatewayapi import Configuration
    from cli.login.stored import Login

    known = bool(wanted.issuer and wanted.client_id)
    ca = wanted.ca or remembered_ca(cache, wanted.server)
    found = Configuration() if known else asyncio.run(configuration(wanted.server, ca, said, wanted.issuer))
    key = LoginKey(wanted.server, wanted.issuer or found.issuer, wanted.client_id or found.client_id, wanted.profile)
    before = Login.read(key, cache.load(key, LOGIN))
    client = _client(wanted, found, before.client.secret if before else "", SCOPES)
    source = Source(cache, key, said, True, _ways(wanted, found, ways_here()))
    with cache.locked(key, LOGIN):
        return asyncio.run(source.sign_in(client, ca))


def _client(wanted: Wanted, found: Configuration, secret: str, scopes: tuple[str, ...]) -> Client:
    from cli.login.stored import Client

    asked = wanted.scopes or found.scopes or scopes
    if "openid" not in asked:
        asked = ("openid", *asked)
    return Client(wanted.client_id or found.client_id, asked, wanted.client_secret or secret)


def _ways(wanted: Wanted, found: Configuration, here: Ways) -> Ways:
    host = wanted.redirect_host or found.redirect_host or here.host
    return replace(here, device=wanted.device, print_only=wanted.no_browser, host=host, port=wanted.port)


def read_ca(path: Path) -> str:
    """A PEM bundle. :raises Failed: it is none."""
    try:
        return path.read_bytes()[:MOST_CA].decode("ascii")
    except UnicodeDecodeError:
        raise Failed(f"{path} is no PEM bundle of certificates: name the CA's certificate") from None

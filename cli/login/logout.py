"""`kulvert logout`: forget a login here, and have its issuer forget it too."""

from __future__ import annotations

import os
from collections.abc import Callable

import click

from cli.failures import Failed
from cli.login.address import gateway
from cli.login.stored import Login
from cli.tokencache import CERTIFICATE, LOGIN, TOKEN, LoginKey, TokenCache, directory


@click.command()
@click.option("--server", envvar="KULVERT_SERVER", show_envvar=True, metavar="URL",
              help="The gateway.  [default: where you are signed in, if that is one]")  # fmt: skip
@click.option("--profile", metavar="NAME", help="One login of several.  [default: all at that gateway]")
@click.option("--all", "everywhere", is_flag=True, help="At every gateway.")
def logout(server: str | None, profile: str | None, everywhere: bool) -> None:
    """Remove your login, and what the gateway gave you for it, from this machine. The issuer is told, if it listens.

    \b
    kulvert logout
    kulvert logout --server https://kulvert.example.com --profile ops

    An ID token or a certificate that somebody has copied stays good until it expires.
    """
    from cli.credential import said
    from cli.login.command import the_only_server

    cache = TokenCache(directory(os.environ), said)
    logins = cache.logins()
    if not logins:
        raise Failed("nobody is signed in here: `kulvert login` signs in")
    if not everywhere:
        address = gateway(server or the_only_server(cache))
        logins = [key for key in logins if key.server == address and profile in (None, key.profile)]
        if not logins:
            raise Failed(f"nobody is signed in at {address} like that: `kulvert logout --all` removes every login")
    for key in logins:
        _forget(cache, key, said)


def _forget(cache: TokenCache, key: LoginKey, said: Callable[[str], None]) -> None:
    """The files go first: whatever the issuer does, this machine forgets."""
    with cache.locked(key, LOGIN):
        login = Login.read(key, cache.load(key, LOGIN))
        for kind in (LOGIN, CERTIFICATE, TOKEN):
            cache.remove(key, kind)
    told = login is not None and bool(login.refresh_token) and _revoked(login, said)
    name = f" as {login.name}" if login else ""
    click.echo(f"signed out at {key.server}{name}" + (", and the issuer was told" if told else ""))


def _revoked(login: Login, said: Callable[[str], None]) -> bool:
    import asyncio

    from cli.credentialsource import revoke

    problem = asyncio.run(revoke(login, said))
    if problem:
        said(f"{problem}; the refresh token is gone from here, and stays good at the issuer until it expires")
    return not problem

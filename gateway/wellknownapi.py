"""The one document that the gateway shows to everybody: how people's programs sign in here. No secret is in it.

`GET /.well-known/kulvert-configuration`, public like the health paths. It says nothing that depends on who asks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

import orjson
from aiohttp import web

API_VERSION = "kulvert.dev/v1alpha1"
PATH = "/.well-known/kulvert-configuration"
_HOSTS = ("localhost", "127.0.0.1")


@dataclass(frozen=True, slots=True)
class LoginSettings:
    """How people sign in. Without an issuer nobody is told how."""

    issuer: str = ""
    """An issuer that one of the authenticators trusts, with `client_id` among its audiences."""
    client_id: str = ""
    """A public client there: it has no secret, and may be redirected to this machine's loopback."""
    scopes: tuple[str, ...] = ("openid", "profile", "email", "groups", "offline_access")
    redirect_host: str = "localhost"
    """How the loopback is called in the redirect: some issuers know `localhost` alone, some 127.0.0.1."""

    def problem(self) -> str | None:
        """What is wrong with them, for the configuration's error; None where they can be used."""
        if bool(self.issuer) is not bool(self.client_id):
            return "login.issuer and login.clientId go together: set both, or neither"
        if self.issuer and not _is_issuer(self.issuer):
            return f"login.issuer {self.issuer!r} is no https:// URL of an issuer"
        if self.issuer and "openid" not in self.scopes:
            return "login.scopes lacks openid: without it an issuer gives no ID token"
        if any(not scope or not scope.isprintable() or " " in scope for scope in self.scopes):
            return "login.scopes are words without spaces"
        if self.redirect_host not in _HOSTS:
            return f"login.redirectHost {self.redirect_host!r} is none of {', '.join(_HOSTS)}"
        return None


class WellKnown:
    """The document. It is rendered once, and the same for everybody."""

    def __init__(self, settings: LoginSettings) -> None:
        self._body = orjson.dumps(document(settings), option=orjson.OPT_APPEND_NEWLINE)

    def routes(self) -> list[web.RouteDef]:
        """For the management application."""
        return [web.get(PATH, self._show)]

    async def _show(self, request: web.Request) -> web.Response:
        return web.Response(body=self._body, content_type="application/json", headers={"Cache-Control": "max-age=60"})


def document(settings: LoginSettings) -> Mapping[str, object]:
    """What is shown."""
    head: dict[str, object] = {"apiVersion": API_VERSION, "kind": "KulvertConfiguration"}
    if not settings.issuer:
        return head
    return head | {
        "issuer": settings.issuer,
        "clientId": settings.client_id,
        "scopes": list(settings.scopes),
        "redirectHost": settings.redirect_host,
    }


def _is_issuer(url: str) -> bool:
    """https; http on this very machine, for a first look."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return False
    local = parts.scheme == "http" and host in ("localhost", "127.0.0.1", "::1")
    return bool(host) and (parts.scheme == "https" or local) and not (parts.query or parts.fragment or "@" in url)

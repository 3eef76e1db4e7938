"""An OIDC issuer's web server over real TLS, whose answers a test replaces."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

from aiohttp import web

from auth.oidc.config import KeySource
from auth.oidc.jwksfetch import HttpFetcher
from tests.support.cluster_pki import Authority
from tests.support.oidc_issuer import jwk, key_set, rsa_key

WELL_KNOWN = "/.well-known/openid-configuration"
KEYS = key_set(jwk(rsa_key(), kid="k0"))
"""What FakeIssuer signs with."""
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Site:
    """A server with two documents: `discovery` and `keys` are theirs to replace."""

    def __init__(self, url: str, authority: Authority) -> None:
        self.url = url
        self.authority = authority
        self.seen: list[web.Request] = []
        self.discovery: Handler = self._discovery
        self.keys: Handler = self._keys

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Whatever is asked."""
        self.seen.append(request)
        if request.path == WELL_KNOWN:
            return await self.discovery(request)
        return await self.keys(request) if request.path.startswith("/keys") else web.Response(status=404)

    def fetcher(self, timeout: float = 2.0, **changes: Any) -> HttpFetcher:
        """One for this site's keys, or for a slightly other source."""
        told = {"issuer": self.url, "discovery_url": self.url + WELL_KNOWN, "authorities": self.authority.pem.decode()}
        return HttpFetcher(KeySource(**{**told, **changes}), timeout)

    def document(self, **changes: Any) -> web.Response:
        """The discovery document, changed as wanted."""
        return web.json_response({"issuer": self.url, "jwks_uri": f"{self.url}/keys", **changes})

    async def _discovery(self, _: web.Request) -> web.StreamResponse:
        return self.document()

    async def _keys(self, _: web.Request) -> web.StreamResponse:
        return web.Response(body=KEYS, headers={"Cache-Control": "public, max-age=300"})


@contextlib.asynccontextmanager
async def serving(directory: Path) -> AsyncIterator[Site]:
    """A site that runs; the files of its authority go to the directory."""
    authority = Authority(directory, "site")
    pair = authority.server("server")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pair.cert, pair.key)
    site = Site("", authority)
    runner = web.ServerRunner(web.Server(site.answer), shutdown_timeout=0)  # type: ignore[arg-type]  # BaseRequest
    await runner.setup()
    try:
        tcp = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
        await tcp.start()
        site.url = f"https://127.0.0.1:{runner.addresses[0][1]}"
        yield site
    finally:
        await runner.cleanup()

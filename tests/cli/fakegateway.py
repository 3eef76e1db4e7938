"""A gateway's management API over TLS, and beside it an issuer, served from a thread: for commands that have a loop of
their own, and for real programs.
"""

from __future__ import annotations

import asyncio
import base64
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jwt
from aiohttp import web
from aiohttp.test_utils import TestServer, unused_port
from click.testing import Result
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from auth.pki import CertificateAuthority
from gateway.wellknownapi import LoginSettings, WellKnown
from tests.cli.command import PROGRAM, kulvert
from tests.cli.fakeissuer import FakeIssuer

API = "/apis/kulvert.dev/v1alpha1"
_BROWSER = """#!{python}
import sys, urllib.request
urllib.request.urlopen(sys.argv[1], timeout=10).read()
"""


@dataclass
class FakeGateway:
    """What it has, and what it was asked. Whoever shows a token of the issuer, or a certificate of ours, is known."""

    issuer: FakeIssuer
    authority: CertificateAuthority
    clusters: list[str] = field(default_factory=lambda: ["alpha", "beta"])
    certificate_life: float = 3_600.0
    token_life: float = 600.0
    settings: LoginSettings = field(default_factory=LoginSettings)
    asked: list[str] = field(default_factory=list)
    refuses: dict[str, int] = field(default_factory=dict)
    url: str = ""
    ca_file: Path = Path()

    def application(self) -> web.Application:
        """Its routes."""
        app = web.Application(middlewares=[_as_status])
        app.add_routes(WellKnown(self.settings).routes())
        app.router.add_get(f"{API}/clusters", self._clusters)
        app.router.add_post(f"{API}/certificaterequests", self._certificate)
        app.router.add_post(f"{API}/tokenrequests", self._token)
        app.router.add_get("/clusters/{name}/version", self._version)
        return app

    def _user(self, request: web.Request) -> str:
        name = request.path.rpartition("/")[2]
        self.asked.append(name)
        if code := self.refuses.get(name):
            raise _Refused(code, "refused by the test")
        if request.get_extra_info("peercert"):
            subject = dict(pair[0] for pair in request.get_extra_info("peercert")["subject"])
            return f"certificate of {subject['commonName']}"
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if token.startswith("kulvert-"):
            return token
        try:
            kid = jwt.get_unverified_header(token)["kid"]
            key = next(jwt.PyJWK(key.jwk) for key in self.issuer.keys if key.kid == kid)
            return str(jwt.decode(token, key, ["ES256"], audience="kulvert")["sub"])
        except (jwt.PyJWTError, StopIteration, KeyError):
            raise _Refused(401, "Unauthorized") from None

    async def _clusters(self, request: web.Request) -> web.Response:
        self._user(request)
        return web.json_response({"items": [{"metadata": {"name": name}} for name in self.clusters]})

    async def _version(self, request: web.Request) -> web.Response:
        return web.json_response({"user": self._user(request), "cluster": request.match_info["name"]})

    async def _certificate(self, request: web.Request) -> web.Response:
        user = self._user(request).removeprefix("certificate of ")
        body = await request.json()
        pem = base64.b64decode(body["spec"]["request"], validate=True)
        asked = x509.load_pem_x509_csr(pem)
        assert asked.is_signature_valid
        assert not list(asked.subject)
        status = {"certificate": base64.b64encode(self._signed(user, asked.public_key())).decode()}
        return web.json_response(body | {"status": status}, status=201)

    def _signed(self, user: str, key: Any) -> bytes:
        now = time.time()
        issued = self.authority.issue_client(user, ("dev",), now, self.certificate_life)
        model = x509.load_pem_x509_certificate(issued.certificate)
        builder = x509.CertificateBuilder(
            model.issuer, model.subject, key, model.serial_number, model.not_valid_before_utc, model.not_valid_after_utc
        )
        for extension in model.extensions:
            if not isinstance(extension.value, x509.SubjectKeyIdentifier):
                builder = builder.add_extension(extension.value, extension.critical)
        return builder.sign(self.authority.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    async def _token(self, request: web.Request) -> web.Response:
        user, body = self._user(request), await request.json()
        until = datetime.fromtimestamp(time.time() + self.token_life, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        status = {"token": f"kulvert-{user}", "expirationTimestamp": until}
        return web.json_response(body | {"status": status}, status=201)


@dataclass
class Town:
    """A gateway, its issuer, and somebody's home directory."""

    gateway: FakeGateway
    issuer: FakeIssuer
    home: Path

    @property
    def cache(self) -> Path:
        """Where logins are kept."""
        return self.home / "cache"

    @property
    def kubeconfig(self) -> Path:
        """Their own kubeconfig."""
        return self.home / "kubeconfig"

    def env(self, **more: str) -> dict[str, str]:
        """Of their programs. The browser is a script that follows where it is led."""
        own = {"KULVERT_CACHE_DIR": str(self.cache), "KUBECONFIG": str(self.kubeconfig), "HOME": str(self.home)}
        own |= {"BROWSER": str(self.home / "browser"), "PATH": f"{PROGRAM.parent}:/usr/bin:/bin", "KULVERT_SERVER": ""}
        return own | more

    def kulvert(self, *args: str | Path, env: Mapping[str, str] | None = None) -> Result:
        """A command, in this process."""
        return kulvert(*args, env=self.env(**(env or {})))

    def log_in(self, *more: str) -> Result:
        """In the browser."""
        return self.kulvert(
            "login", "--server", self.gateway.url, "--certificate-authority", self.gateway.ca_file, *more
        )

    def files(self, kind: str) -> list[Path]:
        """In the cache."""
        return sorted(self.cache.glob(f"*.{kind}.json"))


@contextmanager
def town(home: Path, settings: Callable[[str], LoginSettings] | None = None) -> Iterator[Town]:
    """Serves both, for the length of a block; `settings` are the gateway's, for the issuer's URL."""
    issuer = FakeIssuer(time.time)
    gateway = FakeGateway(issuer, CertificateAuthority.create("test", time.time()))
    port = unused_port()
    issuer.url = f"http://127.0.0.1:{port}"
    gateway.settings = settings(issuer.url) if settings else LoginSettings(issuer.url, "kulvert")
    gateway.ca_file = home / "ca.crt"
    gateway.ca_file.write_bytes(gateway.authority.certificate_pem)
    browser = home / "browser"
    browser.write_text(_BROWSER.format(python=sys.executable))
    browser.chmod(0o700)
    ready, loop = threading.Event(), asyncio.new_event_loop()
    done = asyncio.Event()

    async def serve() -> None:
        servers = [TestServer(issuer.application(), port=port), TestServer(gateway.application())]
        await servers[0].start_server()
        await servers[1].start_server(ssl=_tls(gateway.authority, home))
        gateway.url = f"https://127.0.0.1:{servers[1].port}"
        ready.set()
        await done.wait()
        for server in servers:
            await server.close()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), name="issuer and gateway")
    thread.start()
    try:
        assert ready.wait(10)
        yield Town(gateway, issuer, home)
    finally:
        loop.call_soon_threadsafe(done.set)
        thread.join(10)
        loop.close()


def _tls(authority: CertificateAuthority, home: Path) -> ssl.SSLContext:
    issued = authority.issue_server(["127.0.0.1"], time.time(), 3_600)
    (home / "server.pem").write_bytes(issued.certificate + issued.key)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cadata=authority.certificate_pem.decode())
    context.verify_mode = ssl.CERT_OPTIONAL
    context.load_cert_chain(home / "server.pem")
    return context


class _Refused(Exception):
    """A Status."""


@web.middleware
async def _as_status(request: web.Request, handler: Any) -> web.StreamResponse:
    try:
        found: web.StreamResponse = await handler(request)
    except _Refused as refused:
        code, message = refused.args
        return web.json_response({"kind": "Status", "message": message}, status=code)
    return found

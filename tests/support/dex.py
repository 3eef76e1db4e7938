"""A real OIDC provider on this machine: dex (tests/testbed/dex), over TLS with an authority of its own.

Everything is kept in memory, so that each start has new signing keys. Whoever logs in here is a `Person` of the test's.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import secrets
import shutil
import signal
import ssl
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlencode, urlsplit

import aiohttp

from tests.support.cluster_api import until
from tests.support.cluster_pki import Authority
from tests.support.dex_browser import Browser, Elsewhere
from tests.support.processes import Port, Process, stop

PUBLIC_CLIENT = "kulvert"
OTHER_CLIENT = "someone-else"
SCOPES = "openid profile email groups offline_access"
REDIRECT = "http://localhost:8000/callback"


@dataclass(frozen=True)
class Person:
    """Somebody whom dex knows. `id` is hidden in the token's `sub`, which names the connector too."""

    name: str
    groups: tuple[str, ...] = ()
    email: str = ""
    email_verified: bool = True
    password: str = "correct-horse"
    id: str = ""

    @property
    def record(self) -> dict[str, Any]:
        """As dex's configuration has it."""
        told = dataclasses.asdict(self)
        told["emailVerified"] = told.pop("email_verified")
        return told | {"email": self.email or f"{self.name}@example.com", "id": self.id or f"id-of-{self.name}"}


ADA = Person("ada", ("dev", "ops"))
BOB = Person("bob", (), email_verified=False)


class Dex:
    """A provider under test: an async context manager, or start() and stop().

    The port, the authority and the files are there from the beginning; hence stop() is due even without start().
    The public client may be redirected to any http://localhost:PORT/PATH (not to 127.0.0.1: a rule of dex).
    """

    def __init__(
        self, binaries: Path, *, people: Sequence[Person] = (ADA, BOB), lifetime: float = 3600.0, path: str = "/dex"
    ) -> None:
        self._binary = binaries / "dex"
        self._port = Port()
        self._process: Process | None = None
        self.directory = Path(tempfile.mkdtemp(prefix="kulvert-dex-"))
        self.authority = Authority(self.directory, "dex")
        self.ca_file = self.authority.file
        self.issuer = f"https://127.0.0.1:{self._port.number}{path}"
        self._write(people, lifetime)

    async def __aenter__(self) -> Self:
        """Starts it; a failure leaves nothing behind."""
        try:
            await self.start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops it for good."""
        await self.stop()

    async def start(self) -> None:
        """Returns when it answers; after halt(), on the same port, with other keys."""
        command: list[str | Path] = [self._binary, "-config", self.directory / "dex.json"]
        self._process = Process("dex", command, self.directory / "dex.log", {"PATH": "", "HOME": str(self.directory)})
        try:
            await until(self._ready, "dex to answer")
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n{self._process.tail()}") from error

    async def halt(self) -> None:
        """Ends the process; start() may follow."""
        if self._process:
            await stop([self._process])
            self._process = None

    async def stop(self) -> None:
        """Ends it, and leaves nothing behind."""
        try:
            await self.halt()
        finally:
            self._port.release()
            shutil.rmtree(self.directory, ignore_errors=True)

    def pause(self) -> None:
        """Freezes it: connections are taken by the kernel, and nothing answers. stop() ends it all the same."""
        assert self._process
        self._process.send(signal.SIGSTOP)

    def resume(self) -> None:
        """Ends a pause."""
        assert self._process
        self._process.send(signal.SIGCONT)

    async def discovery(self) -> dict[str, Any]:
        """The discovery document."""
        async with self._session() as session:
            return await _json(await session.get(f"{self.issuer}/.well-known/openid-configuration"))

    async def password_tokens(self, who: Person, client: str = PUBLIC_CLIENT, scope: str = SCOPES) -> dict[str, Any]:
        """A token answer (id_token, refresh_token ...) by the password grant: the shortest way to one."""
        form = {"grant_type": "password", "username": who.name, "password": who.password, "scope": scope}
        return await self._token(form, client)

    async def refresh(self, refresh_token: str, client: str = PUBLIC_CLIENT) -> dict[str, Any]:
        """A token answer for a refresh token, which is used up by this."""
        return await self._token({"grant_type": "refresh_token", "refresh_token": refresh_token}, client)

    async def code_tokens(self, who: Person, client: str = PUBLIC_CLIENT, scope: str = SCOPES) -> dict[str, Any]:
        """A token answer by authorisation code and PKCE, with the login page filled in."""
        verifier = secrets.token_urlsafe(48)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        asked = {
            "client_id": client,
            "redirect_uri": REDIRECT,
            "response_type": "code",
            "scope": scope,
            "state": "the-state",
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        answer = parse_qs(urlsplit(await self.log_in(f"{self.issuer}/auth?{urlencode(asked)}", who)).query)
        form = {"grant_type": "authorization_code", "code": answer["code"][0], "code_verifier": verifier}
        return await self._token(form | {"redirect_uri": REDIRECT}, client)

    async def log_in(self, authorization_url: str, who: Person) -> str:
        """Opens an authorisation request as a browser would, and logs in. Gives the URL to which dex sends the browser
        then (with code and state), without opening it.
        """
        async with self._session() as session:
            browser = Browser(session, self.issuer)
            try:
                await browser.open(authorization_url)
                await browser.submit(login=who.name, password=who.password)
            except Elsewhere as found:
                return found.url
            raise AssertionError(f"the login led nowhere:\n{browser.page}")

    async def approve_device(self, verification_uri_complete: str, who: Person) -> None:
        """Opens the page that a device has shown (with its user_code), and logs in for it."""
        async with self._session() as session:
            browser = Browser(session, self.issuer)
            await browser.open(verification_uri_complete)
            await browser.submit()
            await browser.submit(login=who.name, password=who.password)
            assert "Login Successful" in browser.page, browser.page

    async def start_device(self, client: str = PUBLIC_CLIENT, scope: str = SCOPES) -> dict[str, Any]:
        """What a device gets to show: device_code, user_code, verification_uri_complete ..."""
        async with self._session() as session:
            form = {"client_id": client, "scope": scope}
            return await _json(await session.post(f"{self.issuer}/device/code", data=form))

    async def device_tokens(self, device_code: str, client: str = PUBLIC_CLIENT) -> dict[str, Any]:
        """The token answer for a device that somebody has approved."""
        grant = "urn:ietf:params:oauth:grant-type:device_code"
        return await self._token({"grant_type": grant, "device_code": device_code}, client)

    async def _token(self, form: dict[str, str], client: str) -> dict[str, Any]:
        async with self._session() as session:
            return await _json(await session.post(f"{self.issuer}/token", data=form | {"client_id": client}))

    async def _ready(self) -> bool:
        assert self._process
        if self._process.exited is not None:
            raise TimeoutError(f"dex ended at once\n{self._process.tail()}")
        try:
            return bool(await self.discovery())
        except aiohttp.ClientConnectionError:
            return False

    def _session(self) -> aiohttp.ClientSession:
        context = ssl.create_default_context(cafile=self.ca_file)
        jar = aiohttp.CookieJar(unsafe=True)  # cookies of an address, too
        return aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context), cookie_jar=jar)

    def _write(self, people: Sequence[Person], lifetime: float) -> None:
        pair = self.authority.server("server")
        settings = {
            "issuer": self.issuer,
            "listen": f"127.0.0.1:{self._port.number}",
            "certificate": str(pair.cert),
            "key": str(pair.key),
            "idTokenLifetime": lifetime,
            "clients": [{"id": one, "name": one, "public": True} for one in (PUBLIC_CLIENT, OTHER_CLIENT)],
            "people": {"people": [one.record for one in people]},
        }
        (self.directory / "dex.json").write_text(json.dumps(settings))


async def _json(answer: aiohttp.ClientResponse) -> dict[str, Any]:
    text = await answer.text()
    assert answer.ok, f"{answer.status}: {text}"
    found: dict[str, Any] = json.loads(text)
    return found

"""Where credentials come from when the cached one will not do: the issuer, the gateway, or their user, at a terminal.

One call at a time renews one credential, under its lock, and looks again first: another may have done it meanwhile.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit

from cli import gatewayapi
from cli.clientkeys import good_until, new_key
from cli.credentialplan import Step, decide, failed, obtained
from cli.failures import Failed
from cli.gatewayapi import GatewayApi
from cli.login import browser, web
from cli.login.attempt import Random
from cli.login.deviceflow import Sleep
from cli.login.flow import Tools, Ways, renewed, revoked, sign_in
from cli.login.stored import CERTIFICATE_SHARE, Client, Login, Minted
from cli.login.web import Unreachable, Web
from cli.tokencache import CERTIFICATE, LOGIN, TOKEN, LoginKey, TokenCache

LIFETIME = 86_400.0
"""Seconds for which a certificate or a token of the gateway is asked; the gateway may give less."""
SCOPES: tuple[str, ...] = ("openid", "profile", "email", "groups", "offline_access")


def ways_here() -> Ways:
    """The ways to sign in on this machine."""
    words = browser.command(os.environ, sys.platform)
    return Ways((lambda url: browser.open_url(words, url)) if words else None)


@dataclass(frozen=True, slots=True)
class Source:
    """The credentials of one login. `ca` is what the gateway is trusted by, where the login does not know."""

    cache: TokenCache
    key: LoginKey
    show: Callable[[str], None]
    interactive: bool
    ways: Ways
    ca: str = field(default="", repr=False)
    clock: Callable[[], float] = time.time
    random: Random = os.urandom
    sleep: Sleep = asyncio.sleep

    async def login(self) -> Login:
        """A login whose token may be used now. :raises Failed: there is none; the text says what to do."""
        login = self._login()
        if self._step(login) is not Step.USE:
            with self.cache.locked(self.key, LOGIN):
                login = await self._afresh(self._login())
        assert login is not None
        return login

    async def minted(self, kind: str) -> Minted:
        """A certificate or a token of the gateway that may be used now. :raises Failed: there is none."""
        with self.cache.locked(self.key, kind):
            held = Minted.read(kind, self.cache.load(self.key, kind))
            step = decide(held.times if held else None, self.clock(), renewable=True, interactive=False)
            if step is Step.RENEW:
                held = await self._minted_afresh(kind, held)
                step = decide(held.times, self.clock(), renewable=True, interactive=False)
        if step is not Step.USE or held is None:
            raise Failed(f"the gateway {self.key.server} gave nothing, a moment ago: try again in a minute")
        return held

    @asynccontextmanager
    async def gateway(self, bearer: str = "", shown: Minted | None = None) -> AsyncIterator[GatewayApi]:
        """The gateway's API, as a bearer, or by a certificate."""
        login = self._login()
        tls = gatewayapi.trust((login.ca if login else "") or self.ca)
        if shown is not None:
            gatewayapi.show_certificate(tls, shown.certificate, shown.secret)
        async with Web(tls, self.show) as client:
            yield GatewayApi(client, self.key.server, bearer)

    # --- logins

    def tools(self, web: Web) -> Tools:
        """What a flow needs."""
        return Tools(web, self.clock, self.random, self.sleep, self.show)

    def _login(self) -> Login | None:
        return Login.read(self.key, self.cache.load(self.key, LOGIN))

    def _step(self, login: Login | None) -> Step:
        times = login.times if login else None
        renewable = login is not None and bool(login.refresh_token)
        return decide(times, self.clock(), renewable=renewable, interactive=self.interactive)

    def _keep(self, login: Login) -> None:
        self.cache.save(self.key, LOGIN, login.document())

    async def _afresh(self, login: Login | None) -> Login:
        step = self._step(login)
        if step is Step.RENEW and login is not None:
            login = await self._renewed(login)
            step = self._step(login)
        if step is Step.SIGN_IN:
            login = await self._signed_in(login)
            step = self._step(login)
        if step is Step.USE and login is not None:
            return login
        raise Failed(_why(self.key, step))

    async def _renewed(self, login: Login) -> Login:
        async with Web(web.trust(login.ca), self.show) as client:
            login = await renewed(self.tools(client), login, self._keep)
        self._keep(login)
        return login

    async def _signed_in(self, login: Login | None) -> Login:
        """As before; what was not said then, and where the browser is sent, the gateway says."""
        found = gatewayapi.Configuration()
        with suppress(Failed, Unreachable):
            async with self.gateway() as gateway:
                found = await gateway.configuration()
        client = login.client if login else Client(self.key.client_id, found.scopes or SCOPES)
        source = replace(self, ways=replace(self.ways, host=found.redirect_host or self.ways.host))
        return await source.sign_in(client, login.ca if login else self.ca)

    async def sign_in(self, client: Client, ca: str) -> Login:
        """Have the user sign in, and keep the login. Who calls it holds the lock. :raises Failed: it came to none."""
        async with Web(web.trust(ca), self.show) as open_web:
            login = await sign_in(self.tools(open_web), self.key, client, self.ways, ca)
        self._keep(login)
        return login

    # --- what the gateway gives for them

    async def _minted_afresh(self, kind: str, held: Minted | None) -> Minted:
        """:raises Failed: there is none, and the one before is of no use any more."""
        try:
            made = await self._mint(kind, held)
        except (Failed, Unreachable) as error:
            if held is None:
                raise Failed(str(error)) from None
            made = held.at(failed(held.times, self.clock()))
            if not made.times.usable(self.clock()):
                self.cache.save(self.key, kind, made.document())
                raise Failed(str(error)) from None
            self.show(f"{error}; going on with what there is")
        self.cache.save(self.key, kind, made.document())
        return made

    async def _mint(self, kind: str, held: Minted | None) -> Minted:
        """By the login, for the issuer then vouches for the user; silently by what is held where there is none; and
        with the user's help at last.
        """
        try:
            login = await replace(self, interactive=False).login()
        except Failed:
            if held is not None and held.times.usable(self.clock()):
                return await (self._certificate("", held) if kind == CERTIFICATE else self._token(held.secret))
            if not self.interactive:
                raise
            login = await self.login()
        return await (self._certificate(login.id_token, None) if kind == CERTIFICATE else self._token(login.id_token))

    async def _certificate(self, bearer: str, shown: Minted | None) -> Minted:
        made = new_key()
        async with self.gateway(bearer, shown) as gateway:
            chain = await gateway.certificate(made.request, LIFETIME)
        now = self.clock()
        times = obtained(now, good_until(chain, made.key, now), CERTIFICATE_SHARE)
        return Minted(CERTIFICATE, times, made.key.decode(), chain.decode("ascii", "replace"))

    async def _token(self, bearer: str) -> Minted:
        now = self.clock()
        async with self.gateway(bearer) as gateway:
            token, lifetime = await gateway.token(LIFETIME, now)
        return Minted(TOKEN, obtained(now, now + lifetime), token)


def command_line(key: LoginKey) -> str:
    """The `kulvert login` that renews a login."""
    known = f"--issuer-url {key.issuer} --client-id {key.client_id}"
    profile = f" --profile {key.profile}" if key.profile else ""
    return f"kulvert login --server {key.server} {known}{profile}"


def _why(key: LoginKey, step: Step) -> str:
    if step is Step.WAIT:
        return f"the issuer {key.issuer} gave no new token, a moment ago: try again in a minute"
    return f"not signed in at {urlsplit(key.server).netloc}: run `{command_line(key)}`"


async def configuration(
    server: str, ca: str, show: Callable[[str], None], issuer: str = ""
) -> gatewayapi.Configuration:
    """How people sign in at a gateway. :raises Failed: it cannot be asked, or does not know (an `issuer` that was named
    is not the gateway's to know, but then nor is the client).
    """
    try:
        async with Web(gatewayapi.trust(ca), show) as client:
            found = await GatewayApi(client, server).configuration()
    except Unreachable as error:
        raise Failed(f"{error}; --issuer-url and --client-id do without asking it") from None
    if issuer and issuer != found.issuer:
        raise Failed(f"the gateway {server} knows no client of the issuer {issuer}: name it by --client-id")
    if not found.issuer or not found.client_id:
        raise Failed(
            f"the gateway {server} has no sign-in: its administrator sets login.issuer and login.clientId, "
            "or you name them by --issuer-url and --client-id"
        )
    return found


async def revoke(login: Login, show: Callable[[str], None]) -> str:
    """Have the issuer forget a login. What went wrong, or nothing."""
    try:
        async with Web(web.trust(login.ca), show) as client:
            tools = Tools(client, time.time, os.urandom, asyncio.sleep, show)
            done = await revoked(tools, login)
    except (Failed, Unreachable) as error:
        return str(error)
    return "" if done else f"the issuer {login.key.issuer} takes no revocations"

"""Dials the stub: the configured addresses in turn, through a proxy where the environment names one, always
by verified TLS.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from agent.address import Address, Allowed
from agent.connect import ConnectProtocol
from agent.proxies import Proxies, Proxy
from tunnel import sockets
from tunnel.errors import TunnelError

P = TypeVar("P", bound=asyncio.Protocol)
Factory = Callable[[str], P]
"""Makes the protocol for a connection to a host; it is told the name that is dialled, as in `str(Address)`.
"""


class DialFailed(TunnelError):
    """No address could be reached; the text says for each why."""


@dataclass(frozen=True, slots=True)
class DialSettings:
    """`server_name` is what certificates must say, where that is not the dialled name (an IP address, a
    split DNS).
    """

    allowed: Allowed
    proxies: Proxies = field(default_factory=Proxies)
    proxy_tls: ssl.SSLContext | None = field(default=None, repr=False)
    server_name: str | None = None
    timeout: float = 10.0


class Dialler:
    """Begins each time with the address that worked last, then takes the others in their order. Its TLS changes with
    what the agent trusts, and who it is (`use`).
    """

    def __init__(self, settings: DialSettings, tls: ssl.SSLContext) -> None:
        self._tls = tls
        self._settings = settings
        self._first = 0
        self._proxy_tls = settings.proxy_tls
        if self._proxy_tls is None and settings.proxies.proxy is not None and settings.proxies.proxy.tls:
            self._proxy_tls = ssl.create_default_context()

    def use(self, tls: ssl.SSLContext) -> None:
        """From the next connection on."""
        self._tls = tls

    async def dial(self, factory: Factory[P], name: str | None = None) -> tuple[asyncio.Transport, P]:
        """Connect a protocol of `factory`; `name` asks for that address alone.

        :raises DialFailed: when none answered as it should.
        :raises BadAddress: for a name that the configuration does not allow.
        """
        if name is not None:
            return await self._attempt(factory, self._settings.allowed.check(Address.parse(name)), {})
        failures: dict[str, str] = {}
        servers = self._settings.allowed.servers
        for step in range(len(servers)):
            index = (self._first + step) % len(servers)
            try:
                connected = await self._attempt(factory, servers[index], failures)
            except DialFailed:
                continue
            self._first = index
            return connected
        raise DialFailed("; ".join(f"{server}: {why}" for server, why in failures.items()))

    def rotate(self) -> None:
        """The address that answered is no good (its stub refused): begin with the next one."""
        self._first = (self._first + 1) % len(self._settings.allowed.servers)

    async def _attempt(
        self, factory: Factory[P], address: Address, failures: dict[str, str]
    ) -> tuple[asyncio.Transport, P]:
        try:
            async with asyncio.timeout(self._settings.timeout):
                transport, protocol = await self._connect(factory, address)
        except (OSError, ValueError, TunnelError) as error:
            failures[str(address)] = explained(error)
            raise DialFailed(f"{address}: {failures[str(address)]}") from error
        sockets.tune(transport)
        return transport, protocol

    async def _connect(self, factory: Factory[P], address: Address) -> tuple[asyncio.Transport, P]:
        settings = self._settings
        server_name = settings.server_name or address.host
        proxy = settings.proxies.for_address(address)
        if proxy is None:
            loop = asyncio.get_running_loop()
            return await loop.create_connection(
                lambda: factory(str(address)),
                address.host,
                address.port,
                ssl=self._tls,
                server_hostname=server_name,
                ssl_handshake_timeout=settings.timeout,
                ssl_shutdown_timeout=5.0,
            )
        raw = await self._through(proxy, address)
        try:
            return await self._start_tls(raw, factory(str(address)), server_name)
        except BaseException:
            raw.abort()
            raise

    async def _through(self, proxy: Proxy, target: Address) -> asyncio.Transport:
        """A connection that the proxy has joined to the target."""
        loop = asyncio.get_running_loop()
        opened: asyncio.Future[None] = loop.create_future()
        transport, _ = await loop.create_connection(
            lambda: ConnectProtocol(target, proxy, opened),
            proxy.address.host,
            proxy.address.port,
            ssl=self._proxy_tls if proxy.tls else None,
            server_hostname=proxy.address.host if proxy.tls else None,
        )
        try:
            await opened
        except BaseException:
            transport.abort()
            raise
        return transport

    async def _start_tls(self, raw: asyncio.Transport, protocol: P, server_name: str) -> tuple[asyncio.Transport, P]:
        """TLS with the target, inside. The protocol is told in the same turn, before a byte can come."""
        loop = asyncio.get_running_loop()
        transport = await loop.start_tls(
            raw,
            protocol,
            self._tls,
            server_hostname=server_name,
            ssl_handshake_timeout=self._settings.timeout,
            ssl_shutdown_timeout=5.0,
        )
        if transport is None:
            raise ConnectionResetError("the connection was closed during the TLS handshake")
        protocol.connection_made(transport)
        return transport, protocol


def explained(error: Exception) -> str:
    """What went wrong, in words for whoever installed the agent."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate was refused: {error.verify_message} (is caFile the right CA, and the name right?)"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {getattr(error, 'reason', None) or 'handshake'}"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError):
        return error.strerror or str(error) or type(error).__name__
    return str(error)

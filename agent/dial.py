"""Dials the stub: one of the places where it may be, through a proxy where the environment names one, always by
verified TLS.
"""

from __future__ import annotations

import asyncio
import random
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from agent.address import Address, Allowed, Target
from agent.connect import ConnectProtocol
from agent.proxies import Proxies, Proxy
from tunnel import sockets
from tunnel.errors import TunnelError

PROTOCOL = "http/1.1"
"""What is spoken, by ALPN. A hint comes behind it: it is offered, and never chosen. It stays with the TLS context, for
later connections find the same process by it, and one that it leads astray is told or passed on by the server.
"""
MOST_IPS = 16
"""So many addresses of one name are looked at."""
P = TypeVar("P", bound=asyncio.Protocol)
Factory = Callable[[str], P]
"""Makes the protocol for a connection to a host; it is told the name that is dialled, as in `str(Address)`.
"""


class DialFailed(TunnelError):
    """A target could not be reached; the text says why."""


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
    """Knows the places, and connects to one. Its TLS changes with what the agent trusts, and who it is (`use`).
    `uniform` gives numbers of [0, 1).
    """

    def __init__(
        self, settings: DialSettings, tls: ssl.SSLContext, uniform: Callable[[], float] = random.random
    ) -> None:
        self._tls = tls
        self._settings = settings
        self._uniform = uniform
        self._first = 0
        self._proxy_tls = settings.proxy_tls
        if self._proxy_tls is None and settings.proxies.proxy is not None and settings.proxies.proxy.tls:
            self._proxy_tls = ssl.create_default_context()

    def use(self, tls: ssl.SSLContext) -> None:
        """From the next connection on."""
        self._tls = tls

    @property
    def allowed(self) -> Allowed:
        """Where it may go."""
        return self._settings.allowed

    async def targets(self) -> list[Target]:
        """Every IP address of every configured server, in the order in which to try them: the server that was good
        last comes first, and the IP addresses of a name (as a headless Service has) in any order, each family for
        itself.
        """
        servers = self.allowed.servers
        found: list[Target] = []
        for step in range(len(servers)):
            found += await self._resolved(servers[(self._first + step) % len(servers)])
        return found

    async def _resolved(self, address: Address) -> list[Target]:
        """A name that has no address now, or that a proxy looks up, is one target: dialling it says what is wrong."""
        if self._settings.proxies.for_address(address) is not None:
            return [Target(address)]
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._settings.timeout):
                found = await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):  # a timeout is an OSError
            return [Target(address)]
        families = list(dict.fromkeys(one[0] for one in found))
        ips = dict.fromkeys((one[0], str(one[4][0])) for one in found[:MOST_IPS])
        order = sorted(ips, key=lambda one: (families.index(one[0]), self._uniform()))
        return [Target(address, ip) for _, ip in order]

    def good(self, target: Target) -> None:
        """Begin with its server the next time, if it is a configured one."""
        if target.address in self.allowed.servers:
            self._first = self.allowed.servers.index(target.address)

    def rotate(self) -> None:
        """The server that was good is so no more: begin with the next one."""
        self._first = (self._first + 1) % len(self.allowed.servers)

    async def dial(self, factory: Factory[P], target: Target) -> tuple[asyncio.Transport, P]:
        """Connect a protocol of `factory`.

        :raises DialFailed: when nobody answered there as a server should.
        """
        try:
            async with asyncio.timeout(self._settings.timeout):
                transport, protocol = await self._connect(factory, target)
        except (OSError, ValueError, TunnelError) as error:
            raise DialFailed(f"{target}: {explained(error)}") from error
        sockets.tune(transport)
        return transport, protocol

    async def _connect(self, factory: Factory[P], target: Target) -> tuple[asyncio.Transport, P]:
        settings, address = self._settings, target.address
        server_name = target.server_name or settings.server_name or address.host
        if target.hint:
            self._tls.set_alpn_protocols([PROTOCOL, target.hint])
        proxy = settings.proxies.for_address(address)
        if proxy is None:
            loop = asyncio.get_running_loop()
            return await loop.create_connection(
                lambda: factory(str(address)),
                target.ip or address.host,
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

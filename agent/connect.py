"""The CONNECT exchange with a proxy (RFC 9110 §9.3.6), strict and bounded: after its answer the connection
is the tunnel's.
"""

from __future__ import annotations

import asyncio

from agent.address import Address
from agent.proxies import Proxy
from tunnel.errors import HeadError, TunnelError
from tunnel.head import ResponseReader
from tunnel.limits import KIB, HeadLimits

LIMITS = HeadLimits(head_bytes=16 * KIB, headers=100)


class ProxyRefused(TunnelError):
    """The proxy did not connect us. The text says why, and holds no credential."""


def request(target: Address, proxy: Proxy) -> bytes:
    """The CONNECT, with the port always: proxies want it."""
    host = f"[{target.host}]" if ":" in target.host else target.host
    authority = f"{host}:{target.port}"
    lines = [f"CONNECT {authority} HTTP/1.1", f"Host: {authority}"]
    if proxy.authorization is not None:
        lines.append(f"Proxy-Authorization: {proxy.authorization}")
    return "\r\n".join([*lines, "", ""]).encode("ascii")


class ConnectProtocol(asyncio.Protocol):
    """Asks a proxy for a tunnel; `opened` is done when the connection is the target's, with not a byte of
    it read.
    """

    def __init__(self, target: Address, proxy: Proxy, opened: asyncio.Future[None]) -> None:
        self._request = request(target, proxy)
        # As for a HEAD: whatever lengths the answer to a CONNECT names mean nothing.
        self._reader = ResponseReader(LIMITS, b"HEAD")
        self._opened = opened
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask."""
        self._transport = transport  # type: ignore[assignment]
        self._transport.write(self._request)  # type: ignore[union-attr]

    def data_received(self, data: bytes) -> None:
        """A 2xx head and not a byte more: the target speaks only when it is spoken to, so more would be the
        proxy's own.
        """
        try:
            head = self._reader.feed(data)
            while head is not None and head.status < 200:
                head = self._reader.feed(self._reader.rest)
        except HeadError as error:
            self._fail(ProxyRefused(f"the proxy's answer to CONNECT is malformed: {error}"))
            return
        if head is None:
            return
        if not 200 <= head.status < 300:
            self._fail(ProxyRefused(_explained(head.status)))
        elif self._reader.rest:
            self._fail(ProxyRefused("the proxy sent bytes that nobody asked for after its answer to CONNECT"))
        elif not self._opened.done():
            self._opened.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """The proxy closed."""
        self._fail(ProxyRefused("the proxy closed the connection instead of answering CONNECT"))

    def _fail(self, error: ProxyRefused) -> None:
        if not self._opened.done():
            self._opened.set_exception(error)
        if self._transport is not None:
            self._transport.abort()


def _explained(status: int) -> str:
    if status == 407:
        return "the proxy wants (another) user and password (407): set them in HTTPS_PROXY"
    if status == 403:
        return "the proxy forbids the connection (403): ask for an exception, or add the server to NO_PROXY"
    return f"the proxy refused CONNECT with status {status}"

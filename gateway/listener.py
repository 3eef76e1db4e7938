"""The users' listener: TLS, sockets and their options, the sweep's timer, and the graceful end."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from gateway.connection import ClientConnection
from gateway.door import Door
from tunnel.sockets import tune_socket

_SHUTDOWN = 3600.0
"""uvloop gives its TLS shutdown one time in all, bytes that are still to be written included: that cuts off whoever
reads slowly. A client without progress is ended by the sweep (`gateway.connection`), long before.
"""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files: the server's chain and key, and the authorities of clients' certificates."""

    certificate: Path
    key: Path
    client_ca: Path | None = None


def server_context(files: TlsFiles, client_cas: bytes = b"") -> ssl.SSLContext:
    """TLS 1.2 or newer; client certificates are optional, but one that is shown must be of a known authority:
    `files.client_ca` and the PEM in `client_cas`.

    Raises OSError or ssl.SSLError where a file cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(files.certificate, files.key)
    if files.client_ca is not None:
        context.load_verify_locations(files.client_ca)
    if client_cas:
        context.load_verify_locations(cadata=client_cas.decode("ascii"))
    if files.client_ca is not None or client_cas:
        context.verify_mode = ssl.CERT_OPTIONAL
    context.set_alpn_protocols(["http/1.1"])
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    return context


def replaceable(context: ssl.SSLContext, newest: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
    """The context, for a listener to hold; each handshake takes certificate and authorities from the newest one.

    A context's authorities only grow, so that one which was removed would be trusted until the next start. Both must
    ask for client certificates alike: that much is fixed when a handshake begins.
    """

    def choose(tls: ssl.SSLSocket | ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        tls.context = newest()

    context.sni_callback = choose  # called without a server name, too
    return context


def listening_socket(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """A bound socket whose connections inherit its options: no Nagle, keep-alive.

    No TCP_USER_TIMEOUT: it would also cut off a user who is there and does not read, a pager over `kubectl logs` or
    a stopped terminal (its window is closed, and it answers every probe). One that has vanished is found by keep-alive,
    or where bytes are under way by Linux's own 15 minutes; until then it holds what any slow reader holds.

    `shared`: several processes listen on the port (SO_REUSEPORT). Raises OSError.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        tune_socket(sock, stalls=True)
        sock.bind((host, port))
    except OSError:
        sock.close()
        raise
    return sock


class Listener:
    """One listening socket and its door."""

    def __init__(self, door: Door, sock: socket.socket, tls: ssl.SSLContext | None, clock: Callable[[], float]) -> None:
        self.door = door
        self._sock = sock
        self._tls = tls
        self._clock = clock
        self._server: asyncio.Server | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._sock.getsockname()[1])

    async def start(self) -> None:
        """Accept connections."""
        loop = asyncio.get_running_loop()
        handshake = self.door.timeouts.handshake if self._tls else None
        self._server = await loop.create_server(
            lambda: ClientConnection(self.door),
            sock=self._sock,
            ssl=self._tls,
            backlog=1024,
            ssl_handshake_timeout=handshake,
            ssl_shutdown_timeout=_SHUTDOWN if self._tls else None,
        )
        self._arm(loop)

    async def drain(self, patience: float) -> None:
        """Accept nothing more, let current answers finish, then end what is left."""
        if self._server is not None:
            self._server.close()
        self.door.drain()
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await self.door.empty.wait()
        self.door.abort()

    async def stop(self) -> None:
        """Stop at once (after `drain`: what is left of the sockets and the timer)."""
        await self.drain(0.0)
        if self._timer is not None:
            self._timer.cancel()
        if self._server is not None:
            await self._server.wait_closed()

    def _arm(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = loop.call_later(self.door.timeouts.sweep, self._sweep, loop)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        self._arm(loop)
        self.door.sweep(self._clock())

"""A connection to another replica: dialled, verified, greeted."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Any

from stub.ownership import Replica
from stub.peers.address import PeerAddress
from stub.peers.carriage import RecordCarriage
from stub.peers.hello import ADOPT, MAX_GREETING, OWN, SESSION, PeerHello, PeerWelcome
from stub.peers.identity import PeerIdentityError, named_by
from stub.peers.limits import PeerLimits
from tunnel.adapter import Carried, LinkConnection
from tunnel.batch import Batch
from tunnel.errors import ProtocolError, TunnelError
from tunnel.frames import CONTROL, HEADER, HEADER_SIZE, encode
from tunnel.handshake import Refused
from tunnel.messages import parse_message
from tunnel.sockets import tune

Admit = Callable[[LinkConnection, PeerWelcome], Carried]
"""Attaches what the connection carries from its welcome on, within the same input: what comes behind is that's."""


class PeerFailed(TunnelError):
    """The other replica was not reached, or is not the one that was meant; the text says why."""


class DialCounts:
    """Since the beginning, by what the connection was to become."""

    def __init__(self) -> None:
        self.begun = dict.fromkeys((SESSION, OWN, ADOPT), 0)
        self.failed = dict.fromkeys((SESSION, OWN, ADOPT), 0)


class PeerDialler:
    """Dials from the replica `identity`. `tls` is None where all addresses are Unix sockets."""

    def __init__(self, identity: str, tls: ssl.SSLContext | None, batch: Batch, limits: PeerLimits) -> None:
        self.identity = identity
        self.batch = batch
        self.limits = limits
        self.counts = DialCounts()
        self._tls = tls

    async def dial(self, replica: Replica, hello: PeerHello, admit: Admit) -> LinkConnection:
        """Connect, greet, and have `admit` attach. Raises TunnelError (Refused, PeerFailed, ...), OSError or
        TimeoutError; the connection is then gone.
        """
        self.counts.begun[hello.link] += 1
        try:
            return await self._dial(replica, hello, admit)
        except Exception:  # what is cancelled has not failed
            self.counts.failed[hello.link] += 1
            raise

    async def _dial(self, replica: Replica, hello: PeerHello, admit: Admit) -> LinkConnection:
        greeting = _Greeting(hello, admit)
        connection = _Dialled(greeting, replica.identity, self)
        try:
            async with asyncio.timeout(self.limits.dial):
                await self._connect(PeerAddress.parse(replica.peer_address), connection)
                await greeting.attached
        except BaseException:
            connection.abort("not attached")
            if greeting.attached.done() and not greeting.attached.cancelled():
                greeting.attached.exception()
            raise
        return connection

    async def _connect(self, address: PeerAddress, connection: LinkConnection) -> None:
        loop = asyncio.get_running_loop()
        if address.path:
            address.check_private()
            await loop.create_unix_connection(lambda: connection, address.path)
            return
        if self._tls is None:
            raise PeerFailed("other machines are reached by TLS only, and this process has no certificate for it")
        await loop.create_connection(
            lambda: connection,
            address.host,
            address.port,
            ssl=self._tls,
            server_hostname="",
            ssl_handshake_timeout=self.limits.dial,
            ssl_shutdown_timeout=5.0,
        )


class _Dialled(LinkConnection):
    """Says nothing to anybody but the replica that was meant."""

    def __init__(self, greeting: _Greeting, expected: str, dialler: PeerDialler) -> None:
        limits = dialler.limits
        super().__init__(RecordCarriage(dials=True), greeting, dialler.batch, limits.link, limits.timing)
        self._greeting = greeting
        self._expected = expected

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        try:
            check_identity(transport, self._expected)
        except PeerIdentityError as error:
            self._greeting.fail(error)
            self.abort(str(error))
        tune(transport)
        super().connection_made(transport)
        self._greeting.begin(self)


class _Greeting:
    """The greeter of the end that dials: hello, then the answer."""

    def __init__(self, hello: PeerHello, admit: Admit) -> None:
        self._hello = hello
        self._admit = admit
        self._held = b""
        self._carried: Carried | None = None
        self.attached: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def begin(self, connection: LinkConnection) -> None:
        """The connection is there, and may have been given up already."""
        if not self.attached.done():
            connection.send(encode(CONTROL, payload=self._hello.encode()))

    def fail(self, error: Exception) -> None:
        """There will be nothing to attach."""
        if not self.attached.done():
            self.attached.set_exception(error)

    def on_open(self, connection: LinkConnection) -> None:
        """The other side has answered; its words come by `on_bytes`."""

    def on_lost(self, connection: LinkConnection, reason: str) -> None:
        self.fail(PeerFailed(f"the connection ended before it was attached: {reason}"))

    def on_bytes(self, connection: LinkConnection, data: bytes) -> None:
        if self.attached.done():
            raise ProtocolError("nobody waits for this link any more")
        self._held += data
        payload = self._cut()
        if payload is None:
            return
        try:
            welcome = PeerWelcome.parse(parse_message(payload, MAX_GREETING), session=self._hello.link == SESSION)
            self._carried = self._admit(connection, welcome)
        except (Refused, PeerFailed, ProtocolError) as error:
            self.fail(error)
            connection.end(str(error))
            return
        self.attached.set_result(None)
        if self._held:
            rest, self._held = self._held, b""
            self._carried.receive(rest)

    def _cut(self) -> bytes | None:
        if len(self._held) < HEADER_SIZE:
            return None
        kind, _, length, _ = HEADER.unpack_from(self._held)
        if kind != CONTROL or length > MAX_GREETING:
            raise ProtocolError("the replica says something else than a welcome")
        end = HEADER_SIZE + length
        if len(self._held) < end:
            return None
        payload, self._held = self._held[HEADER_SIZE:end], self._held[end:]
        return payload


def shown_identity(transport: asyncio.BaseTransport) -> str | None:
    """Whose certificate TLS has verified; None on a Unix socket, where nobody shows one. Raises PeerIdentityError."""
    tls: Any = transport.get_extra_info("ssl_object")
    if tls is None:
        return None
    der: bytes | None = tls.getpeercert(binary_form=True)
    if der is None:
        raise PeerIdentityError("the other side showed no certificate")
    return named_by(der)


def check_identity(transport: asyncio.BaseTransport, expected: str) -> None:
    """Raises PeerIdentityError where TLS says that it is another replica."""
    shown = shown_identity(transport)
    if shown is not None and shown != expected:
        raise PeerIdentityError(f"replica {shown} answers at the address of {expected}")

"""One connection to a replica's door, from its first byte until it is a link: the certificate, and hello."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Protocol

import structlog

from stub.peers.carriage import RecordCarriage
from stub.peers.dial import shown_identity
from stub.peers.hello import MAX_GREETING, OWN, SESSION, Adopted, PeerHello, PeerWelcome
from stub.peers.identity import PeerIdentityError
from tunnel.adapter import LinkConnection
from tunnel.errors import ProtocolError
from tunnel.frames import CONTROL, HEADER_SIZE, FrameReader, encode
from tunnel.handshake import Refused
from tunnel.messages import Message, parse_message
from tunnel.sockets import tune

if TYPE_CHECKING:
    from stub.peers.door import PeersDoor

log = structlog.get_logger("kulvert.stub")
RETRY_AFTER: Final = 1
"""Seconds after which an agent that was refused here should try again."""


class Acceptance(Protocol):
    """Takes an agent's hello as the agents' door does (stub.attaching.Attaching). One that was adopted is never passed
    on again.
    """

    def accept(self, connection: LinkConnection, message: Message, peer: bytes | None, address: str) -> None:
        """Take, refuse or let wait: the agent is told in each case. `peer` is its certificate in TLS, if any. Raises
        ProtocolError.
        """

    def on_lost(self, connection: LinkConnection, reason: str) -> None:
        """The connection has ended before it was a link."""


class PeerConnection(LinkConnection):
    """One that was accepted, and may become a link."""

    def __init__(self, door: PeersDoor) -> None:
        self._door = door
        self._greeting = _Greeter(door)
        limits = door.setting.limits
        super().__init__(RecordCarriage(dials=False), self._greeting, door.batch, limits.link, limits.timing)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not self._door.admit(self):
            self.abort("too many greetings are under way")
            super().connection_made(transport)
            return
        try:
            shown = shown_identity(transport)
        except PeerIdentityError as error:
            log.warning("a connection to the replicas' port is refused", reason=str(error))
            self.abort(str(error))
            shown = None
        tune(transport)
        self._greeting.begin(self, shown)
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._greeting.closed(self)
        super().connection_lost(exc)


class _Greeter:
    """The greeter of one connection: it reads hello, whose identity has to be the certificate's."""

    def __init__(self, door: PeersDoor) -> None:
        self._door = door
        self._reader = FrameReader(MAX_GREETING)
        self._shown: str | None = None
        self._received = 0
        self._done = False
        self._deadline: asyncio.TimerHandle | None = None
        self._adopting: Acceptance | None = None
        self._adopted = False

    def begin(self, connection: LinkConnection, shown: str | None) -> None:
        """`shown`: the identity in the certificate; None where there is no TLS. Hello has to come in time."""
        self._shown = shown
        late = self._door.setting.limits.timing.hello
        self._deadline = asyncio.get_running_loop().call_later(late, connection.abort, "no hello in time")

    def on_open(self, connection: LinkConnection) -> None:
        """The other side speaks first."""

    def on_lost(self, connection: LinkConnection, reason: str) -> None:
        adopting, self._adopting = self._adopting, None
        if adopting is not None:
            adopting.on_lost(connection, reason)
        self._finish(connection)

    def closed(self, connection: LinkConnection) -> None:
        """The connection is gone."""
        if self._deadline is not None:
            self._deadline.cancel()
        if self._adopted:
            self._door.setting.closed(connection)

    def _finish(self, connection: LinkConnection) -> None:
        self._done = True
        self._door.greeted(connection)
        if self._deadline is not None:
            self._deadline.cancel()

    def on_bytes(self, connection: LinkConnection, data: bytes) -> None:
        self._received += len(data)
        if self._done or self._received > MAX_GREETING + HEADER_SIZE:
            raise ProtocolError("more than hello before the welcome")
        frames = self._reader.feed(data)
        if not frames:
            return
        if frames[0].type != CONTROL or self._received > HEADER_SIZE + len(frames[0].payload):
            raise ProtocolError("something else than hello before the welcome")
        hello = PeerHello.parse(parse_message(frames[0].payload, MAX_GREETING))
        try:
            self._accept(connection, hello)
        except Refused as refused:
            log.info("a replica is refused", replica=hello.identity, reason=refused.reason, message=refused.message)
            connection.send(encode(CONTROL, payload=refused.encode()))
            connection.end(refused.message)

    def _accept(self, connection: LinkConnection, hello: PeerHello) -> None:
        door, setting = self._door, self._door.setting
        if self._shown is not None and hello.identity != self._shown:
            raise Refused("identity", f"the certificate is not of replica {hello.identity!r}")
        if hello.to != setting.identity:
            raise Refused("identity", f"this is replica {setting.identity!r}, not {hello.to!r}")
        version = hello.version()
        if door.draining:
            raise Refused("draining", "this replica is shutting down", retry_after=RETRY_AFTER)
        if hello.link == SESSION:
            self._finish(connection)
            door.open_session(connection, hello, version)
        elif hello.link == OWN:
            self._accept_own(connection, hello, version)
        elif hello.adopted is not None:
            self._adopt(connection, hello.adopted, hello.identity, version)

    def _accept_own(self, connection: LinkConnection, hello: PeerHello, version: int) -> None:
        session = self._door.sessions.get(hello.session)
        if session is None:
            raise Refused("session", "this replica has no such session")
        why = session.refuses(hello)
        if why:
            raise Refused("link", why)
        self._finish(connection)
        connection.send(encode(CONTROL, payload=PeerWelcome(version).encode()))
        session.attach_own(hello.link_id, connection)

    def _adopt(self, connection: LinkConnection, adopted: Adopted, via: str, version: int) -> None:
        make = self._door.setting.acceptance
        if make is None:
            raise Refused("standby", "this replica takes no agents", retry_after=RETRY_AFTER)
        self._finish(connection)
        self._adopted = True
        connection.send(encode(CONTROL, payload=PeerWelcome(version).encode()))
        self._adopting = make(adopted.challenge, via)
        self._adopting.accept(connection, adopted.hello, adopted.certificate, adopted.address)

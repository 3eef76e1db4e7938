"""The door of a replica for the others: it listens, and keeps the sessions that ask here."""

from __future__ import annotations

import asyncio
import secrets
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import structlog

from stub.peers.address import PeerAddress
from stub.peers.greeting import Acceptance, PeerConnection
from stub.peers.hello import PeerHello
from stub.peers.holding import HoldingSession
from stub.peers.limits import PeerLimits
from stub.peers.load import Load, load_of
from stub.peers.relay import Opener
from tunnel.adapter import LinkConnection
from tunnel.batch import Batch
from tunnel.frames import CONTROL, encode
from tunnel.handshake import Challenge

log = structlog.get_logger("kulvert.stub")
MAX_GREETING_AT_ONCE: Final = 1_000
"""Connections that may be on their way to a link at a time."""


@dataclass(frozen=True, slots=True)
class PeersSetting:
    """What every connection of the peers' door needs. `opener` opens on this replica's own sessions (see
    `stub.peers.holding.held_here`); `acceptance` makes who takes an agent's hello that answers a challenge of another
    replica's, whose identity it is given, too (None: no agents are adopted here); `closed` hears of each adopted
    connection that has ended.
    """

    identity: str
    opener: Opener = field(repr=False)
    acceptance: Callable[[Challenge, str], Acceptance] | None = None
    closed: Callable[[LinkConnection], None] = lambda _connection: None
    limits: PeerLimits = field(default_factory=PeerLimits)
    clock: Callable[[], float] = time.monotonic
    randomness: Callable[[int], bytes] = secrets.token_bytes


class PeersDoor:
    """Listens, greets, and keeps the sessions. `tls` is for HOST:PORT; a Unix socket has none."""

    def __init__(self, setting: PeersSetting, batch: Batch, tls: ssl.SSLContext | None) -> None:
        self.setting = setting
        self.batch = batch
        self.sessions: dict[str, HoldingSession] = {}
        self.draining = False
        self._tls = tls
        self._server: asyncio.AbstractServer | None = None
        self._address = PeerAddress()
        self._greeting: set[LinkConnection] = set()
        self._timer: asyncio.TimerHandle | None = None

    # --- listening

    async def start(self, host: str, port: int) -> int:
        """Listen on TCP, by TLS; gives the port. Raises OSError."""
        if self._tls is None:
            raise ValueError("other machines are served by TLS only")
        server = await asyncio.get_running_loop().create_server(
            self._connection, host, port, ssl=self._tls, backlog=256, ssl_handshake_timeout=self.setting.limits.dial
        )
        self._server = server
        self._sweep_later()
        bound: int = server.sockets[0].getsockname()[1]
        return bound

    async def start_unix(self, address: str) -> None:
        """Listen on unix:/PATH, whose directory has to be private. Raises BadPeerAddress, OSError."""
        self._address = PeerAddress.parse(address)
        self._address.check_private()
        self._address.remove_stale()
        self._server = await asyncio.get_running_loop().create_unix_server(self._connection, self._address.path)
        self._sweep_later()

    def _connection(self) -> asyncio.Protocol:
        """Not counted yet: nobody tells of a connection whose TLS handshake fails."""
        return PeerConnection(self)

    def drain(self) -> None:
        """Take nothing new: the other replicas are told, and what is under way finishes."""
        self.draining = True
        for session in tuple(self.sessions.values()):
            session.drain()

    @property
    def busy(self) -> int:
        """Exchanges of other replicas that are under way: for a drain to wait for."""
        return self.load.exchanges

    @property
    def load(self) -> Load:
        """What the others ask."""
        return load_of(session.mux for session in self.sessions.values())

    async def stop(self) -> None:
        """Listen no more, and end every session. Adopted links end with their agents' sessions."""
        if self._server is not None:
            self._server.close()
        if self._address.path:
            self._address.remove_stale()
        if self._timer is not None:
            self._timer.cancel()
        for connection in tuple(self._greeting):
            connection.abort("the server is stopping")
        for session in tuple(self.sessions.values()):
            session.mux.close("the replica is stopping")

    # --- connections

    def admit(self, connection: LinkConnection) -> bool:
        """A connection's TLS is up, and its greeting begins. False: there are too many."""
        if len(self._greeting) >= MAX_GREETING_AT_ONCE:
            return False
        self._greeting.add(connection)
        return True

    def greeted(self, connection: LinkConnection) -> None:
        """A connection that was admitted is a link, or gone."""
        self._greeting.discard(connection)

    def open_session(self, connection: LinkConnection, hello: PeerHello, version: int) -> None:
        """Welcome a replica that asks."""
        setting = self.setting
        session = HoldingSession(hello, setting.opener, setting.limits, setting.clock, setting.randomness, _tell_bug)

        def detached(reason: str) -> None:
            self.sessions.pop(session.id, None)
            log.info("another replica has left", replica=session.replica, reason=reason)

        self.sessions[session.id] = session
        connection.send(encode(CONTROL, payload=session.welcome(version).encode()))
        session.attach_shared(connection, detached)
        log.info("another replica asks here", replica=session.replica)

    # --- time

    def _sweep_later(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self.setting.limits.timing.sweep, self._sweep)

    def _sweep(self) -> None:
        """What fails in one session ends that one; the next sweep comes in any case."""
        self._sweep_later()
        now = self.setting.clock()
        for session in tuple(self.sessions.values()):
            try:
                session.sweep(now)
            except Exception as error:
                _tell_bug(None, error)
                session.mux.close("internal error")


def _tell_bug(_exchange: object, error: BaseException) -> None:
    log.error("internal error in an exchange of another replica", exc_info=error)

"""The agents' door: a TLS listener whose connections become links.

Whoever knocks has proved nothing yet, and a handshake costs about a millisecond, as much as ten requests of users. So
handshakes begin one by one, with a pause in which the loop serves everybody else, however many wait; those wait in the
kernel's queue, where they cost nothing. Who stands in the door without getting on makes room for others when it is
full, the longest there first: an agent takes a second, and a thousand strangers who say nothing must not keep it out.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl

import structlog

from stub.attaching import Attaching
from stub.attachment import Attachment
from stub.tls import TlsConnection
from tunnel.adapter import LinkConnection
from tunnel.batch import Batch
from tunnel.carriage import WebSocketServer
from tunnel.sockets import tune_socket

log = structlog.get_logger("kulvert.stub")

MAX_GREETING = 1_000
"""Connections that may be on their way to a link at a time, their TLS handshake included."""
PAUSE = 0.002
"""Seconds from one handshake's beginning to the next one's, at least."""
GRACE = 2.0
"""Seconds that each may stand in the door, however many want to come in."""
HANDSHAKE = 10.0
"""Seconds for TLS; then `Timing.hello` begins."""
BACKLOG = 2_048
"""Who waits in the kernel's queue: as many as get their turn in half of what an agent is patient for."""
AGAIN = 0.05
"""Seconds until the next look at a door that was full, or at a process without descriptors."""
_OUT_OF_DESCRIPTORS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class AgentsDoor:
    """Listens, and greets. The sessions live on in `setting.sessions`."""

    def __init__(self, setting: Attachment, batch: Batch, tls: ssl.SSLContext) -> None:
        self.setting = setting
        self.batch = batch
        tls.num_tickets = 0  # agents resume no session, and a ticket would hold all of their certificate
        self._tls = tls
        self._sockets: list[socket.socket] = []
        self._channels: set[socket.socket] = set()
        self._pauses: dict[socket.socket, asyncio.TimerHandle] = {}
        self._standing: dict[Standing, float] = {}
        self._opening: set[asyncio.Task[object]] = set()
        self._short = False

    @property
    def standing(self) -> int:
        """Connections that are no links yet."""
        return len(self._standing)

    async def start(self, host: str, port: int) -> int:
        """Listen; gives the port. Raises OSError."""
        self._sockets += await listening(host, port)
        for sock in self._sockets:
            self._listen(sock)
        bound: int = self._sockets[0].getsockname()[1]
        return bound

    def receive(self, channel: socket.socket) -> None:
        """Take connections that another process has accepted: each message of the channel (SOCK_SEQPACKET) has one.
        They wait there for their turn, as others do in a listening socket's queue.
        """
        channel.setblocking(False)
        self._channels.add(channel)
        self._sockets.append(channel)
        self._listen(channel)

    # --- who comes in

    def _listen(self, sock: socket.socket) -> None:
        self._pauses.pop(sock, None)
        asyncio.get_running_loop().add_reader(sock, self._knock, sock)

    def _pause(self, sock: socket.socket, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(sock)
        self._pauses[sock] = loop.call_later(seconds, self._listen, sock)

    def _knock(self, sock: socket.socket) -> None:
        if not self._room():
            self._pause(sock, AGAIN)
            return
        try:
            accepted = _received(sock) if sock in self._channels else sock.accept()[0]
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError as error:
            self._tell_short(error)
            self._pause(sock, AGAIN)
            return
        self._short = False
        if accepted is None:
            self._forget(sock)
            return
        accepted.setblocking(False)
        self._pause(sock, PAUSE)
        self._admit(accepted)

    def _forget(self, channel: socket.socket) -> None:
        """The other end is closed: nobody comes in by it any more."""
        asyncio.get_running_loop().remove_reader(channel)
        self._sockets.remove(channel)
        self._channels.discard(channel)
        channel.close()

    def _tell_short(self, error: OSError) -> None:
        """Once each time: it is tried many times a second."""
        if not self._short:
            self._short = True
            enough = error.errno in _OUT_OF_DESCRIPTORS
            log.error("agents cannot be let in", error=error.strerror, hint="raise LimitNOFILE" if enough else "")

    def _room(self) -> bool:
        """See that there is a place, and say whether there is."""
        if len(self._standing) < MAX_GREETING:
            return True
        first, since = next(iter(self._standing.items()))
        if asyncio.get_running_loop().time() - since < GRACE:
            return False
        first.leave("others want to come in")
        return len(self._standing) < MAX_GREETING

    def _admit(self, accepted: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        standing = Standing(self)
        self._standing[standing] = loop.time()
        opening = loop.connect_accepted_socket(lambda: standing.tls, accepted)
        task: asyncio.Task[object] = loop.create_task(opening, name="agents' door: a connection")
        self._opening.add(task)
        task.add_done_callback(self._opened)

    def _opened(self, task: asyncio.Task[object]) -> None:
        self._opening.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("a connection could not be opened", error=str(error))

    def gone(self, standing: Standing) -> None:
        """It is a link, or gone. Harmless when that was said before."""
        self._standing.pop(standing, None)

    @property
    def tls(self) -> ssl.SSLContext:
        """What handshakes go by."""
        return self._tls

    async def stop(self) -> None:
        """Take no new connections, and let go of those that are no links yet; links are the sessions' to end."""
        self._close()
        for task in tuple(self._opening):
            task.cancel()
        for standing in tuple(self._standing):
            standing.leave("the server is stopping")

    def _close(self) -> None:
        for sock in self._sockets:
            if (pause := self._pauses.pop(sock, None)) is not None:
                pause.cancel()
            else:
                asyncio.get_running_loop().remove_reader(sock)
            sock.close()
        self._sockets.clear()
        self._channels.clear()


def _received(channel: socket.socket) -> socket.socket | None:
    """None where there is none, and will be none. Raises OSError."""
    said, descriptors, _, _ = socket.recv_fds(channel, 1, 1)
    if descriptors:
        return socket.socket(fileno=descriptors[0])
    if said:
        raise ConnectionAbortedError  # it has ended meanwhile, or this process has no descriptor for it
    return None


async def listening(host: str, port: int) -> list[socket.socket]:
    """Sockets at all addresses of a name, that listen. Raises OSError."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    made: list[socket.socket] = []
    try:
        for family, *_, address in dict.fromkeys(found):
            made.append(_listening(family, address))
    except OSError:
        for sock in made:
            sock.close()
        raise
    return made


def _listening(family: int, address: tuple[object, ...]) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        tune_socket(sock, stalls=False)
        sock.bind(address)
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


class Standing:
    """One that stands in the door: first its TLS handshake, then its greeting, each within its time."""

    __slots__ = ("_connection", "_deadline", "_door", "tls")

    def __init__(self, door: AgentsDoor) -> None:
        self._door = door
        self._connection: _AgentConnection | None = None
        self.tls = TlsConnection(door.tls, self._greet, self.done)
        self._deadline = asyncio.get_running_loop().call_later(HANDSHAKE, self.tls.abort)

    def _greet(self) -> asyncio.Protocol:
        """TLS is up: the greeting has a deadline of its own."""
        self._deadline.cancel()
        self._connection = _AgentConnection(self._door, self)
        return self._connection

    def done(self) -> None:
        """It is a link, or gone."""
        self._deadline.cancel()
        self._door.gone(self)

    def leave(self, reason: str) -> None:
        """End it."""
        if self._connection is not None:
            self._connection.abort(reason)
        self.tls.abort()
        self.done()


class _AgentConnection(LinkConnection):
    def __init__(self, door: AgentsDoor, standing: Standing) -> None:
        self._links = door.setting.links
        self._attaching: Attaching | None = Attaching(door.setting)
        self._standing: Standing | None = standing
        super().__init__(WebSocketServer(), self._attaching, door.batch, door.setting.limits, door.setting.timing)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self._attaching is not None:
            self._attaching.begin(self, self._greeted)
        super().connection_made(transport)

    def _greeted(self) -> None:
        """What greeting took is let go of: the link may live for months."""
        standing, self._standing, self._attaching = self._standing, None, None
        if standing is not None:
            standing.done()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._links.discard(self)
        super().connection_lost(exc)

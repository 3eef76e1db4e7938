"""Replicas of one installation on loopback: doors, dialled sessions, and whatever stands behind them."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Self

from auth.pki import CertificateAuthority
from stub.errors import NoAgent
from stub.ownership import Replica
from stub.peers.carriage import RecordCarriage
from stub.peers.dial import PeerDialler
from stub.peers.door import PeersDoor, PeersSetting
from stub.peers.hello import SESSION, PeerHello
from stub.peers.identity import AUTHORITY, PeerIdentity
from stub.peers.limits import PeerLimits
from stub.peers.peers import Peers
from tests.support.attached import HOST, QUICK, eventually
from tunnel.batch import Batch
from tunnel.errors import ExchangeReset
from tunnel.frames import CONTROL, Frame, FrameReader, encode
from tunnel.limits import KIB
from tunnel.messages import Message, parse_message
from tunnel.ports import Exchange, Headers, RequestBlock, ResponseBlock, ResponseSink

CLUSTER = "alpha"
LIMITS = PeerLimits(timing=QUICK, tidy=0.2, first=0.02, most=0.1, pause=0.05, dial=1.0)


def authority(name: str = AUTHORITY) -> bytes:
    """A new authority (PEM, with its key)."""
    return CertificateAuthority.create(name, time.time()).to_pem()


def nobody(cluster: str, _head: RequestBlock, _sink: ResponseSink) -> Exchange:
    """Has no agents."""
    raise NoAgent(cluster, f"no agent of cluster {cluster!r} is connected: see to its kulvert agent")


class Server:
    """One replica. An async context, unless it is only dialled from. `ca` None: Unix sockets alone."""

    def __init__(
        self, identity: str, ca: bytes | None, opener: Any = nobody, limits: PeerLimits = LIMITS, **setting: Any
    ) -> None:
        loop = asyncio.get_running_loop()
        self.identity = identity
        self.tls = PeerIdentity(ca, identity, time.time) if ca is not None else None
        self.batch = Batch(loop.call_soon)
        self.door = PeersDoor(
            PeersSetting(identity, opener, limits=limits, clock=loop.time, **setting),
            self.batch,
            self.tls.server if self.tls else None,
        )
        self.dialler = PeerDialler(identity, self.tls.client if self.tls else None, self.batch, limits)
        self.peers = Peers(self.dialler, loop.time)
        self.address = ""
        self._task: asyncio.Task[None] | None = None

    async def listen(self, address: str = "") -> Self:
        """Listen, on loopback or at unix:/PATH."""
        if address:
            await self.door.start_unix(address)
        else:
            address = f"{HOST}:{await self.door.start(HOST, 0)}"
        self.address = address
        return self

    @property
    def record(self) -> Replica:
        """As others know it."""
        return Replica(self.identity, self.address)

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self.peers.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self.door.stop()
        await asyncio.sleep(0.05)

    async def attached(self, *others: Server) -> None:
        """Tell it of others, and wait for the links."""
        self.peers.tell([self.record, *[one.record for one in others]])
        await eventually(lambda: all(self.peers.ready(one.identity) for one in others))


@asynccontextmanager
async def two(opener: Any, ca: bytes | None = None, **options: Any) -> AsyncIterator[tuple[Server, Server]]:
    """The replica that asks (r), and the holder (o), with a link between them."""
    ca = ca or authority()
    async with AsyncExitStack() as stack:
        o = await stack.enter_async_context(await Server("o", ca, opener, **options).listen())
        r = await stack.enter_async_context(Server("r", ca, nobody, **options))
        await r.attached(o)
        yield r, o


# --- a user at the replica that asks


@dataclass
class User:
    """A `ResponseSink` with everything it was told; it reads by itself while `reading`."""

    reading: bool = True
    heads: list[ResponseBlock] = field(default_factory=list)
    body: bytearray = field(default_factory=bytearray)
    unread: int = 0
    trailers: Headers | None = None
    reset: ExchangeReset | None = None
    writable: int = 0
    exchange: Exchange | None = None

    @property
    def over(self) -> bool:
        """The answer is whole, or will never be."""
        return self.trailers is not None or self.reset is not None

    def on_response(self, head: ResponseBlock) -> None:
        self.heads.append(head)
        if head.ended:
            self.trailers = []

    def on_data(self, data: bytes) -> None:
        self.body += data
        self.unread += len(data)
        if self.reading:
            self.read()

    def read(self) -> None:
        """Take what has come."""
        unread, self.unread = self.unread, 0
        if self.exchange is not None and unread:
            self.exchange.consumed(unread)

    def on_end(self, trailers: Headers) -> None:
        self.trailers = trailers

    def on_reset(self, error: ExchangeReset) -> None:
        self.reset = error

    def on_writable(self) -> None:
        self.writable += 1


def ask(server: Server, head: RequestBlock, holder: str = "o", cluster: str = CLUSTER, **user: Any) -> User:
    """A request of a user's at a replica. Raises StubError."""
    asked = User(**user)
    asked.exchange = server.peers.open(holder, cluster, replace(head), asked)
    return asked


async def send(exchange: Exchange, user: User, data: bytes, piece: int = 16 * KIB) -> None:
    """All of it, as fast as it is taken."""
    for at in range(0, len(data), piece):
        before = user.writable
        if not exchange.send_data(data[at : at + piece]):
            await eventually(lambda before=before: user.writable > before or user.over, 20.0)  # type: ignore[misc]  # bound


async def until(question: Callable[[], object], timeout: float = 10.0) -> None:
    """See `eventually`."""
    await eventually(question, timeout)


class RawPeer:
    """A connection to a replica's door, byte by byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._carriage = RecordCarriage(dials=True)
        self._frames = FrameReader(64 * KIB)
        self._waiting: list[Frame] = []

    @classmethod
    async def open(cls, server: Server, tls: ssl.SSLContext | None, *, preamble: bool = True) -> Self:
        """Connect; `tls` None: by the Unix socket."""
        if tls is None:
            streams = await asyncio.open_unix_connection(server.address.removeprefix("unix:"))
        else:
            host, _, port = server.address.rpartition(":")
            streams = await asyncio.open_connection(host, int(port), ssl=tls, server_hostname="")
        raw = cls(*streams)
        if preamble:
            raw.write(raw._carriage.begin())
        return raw

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.transport.abort()
        await asyncio.sleep(0.02)

    def write(self, data: bytes) -> None:
        """Bytes of the connection."""
        self._writer.write(data)

    def say(self, data: bytes) -> None:
        """Bytes of the stream."""
        self.write(self._carriage.wrap([data]))

    def tell(self, hello: PeerHello) -> None:
        """A hello."""
        self.say(encode(CONTROL, payload=hello.encode()))

    async def message(self) -> Message:
        """The next control message. Raises EOFError at the end."""
        async with asyncio.timeout(3.0):
            while True:
                while not self._waiting:
                    await self._read()
                found = self._waiting.pop(0)
                if found.type == CONTROL:
                    return parse_message(found.payload, 64 * KIB)

    async def _read(self) -> None:
        try:
            data = await self._reader.read(65_536)
        except OSError:
            data = b""
        if not data:
            raise EOFError
        for piece in self._carriage.receive(data):
            self._waiting += self._frames.feed(piece)

    async def ended(self, timeout: float = 3.0) -> None:
        """Waits for the end of the connection."""
        async with asyncio.timeout(timeout):
            try:
                while True:
                    await self._read()
            except EOFError:
                return


def session_hello(identity: str = "r", to: str = "o", **changes: Any) -> PeerHello:
    """A hello as it should be, but for `changes`."""
    return replace(PeerHello(identity, to, SESSION, credit=64 * KIB), **changes)

"""A stub that a real `kulvert agent` dials, and that then says whatever frames a test wants.

It does not know the join token, and need not: the agent proves itself to the stub, the stub by its certificate alone.
It enrols whoever asks.
"""

from __future__ import annotations

import asyncio
import secrets
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from tests.support.agentauthority import Book
from tests.support.hostile_agent import PATIENCE, Gone
from tunnel import proof
from tunnel.carriage import WebSocketServer
from tunnel.enrolment import LINK, EnrolHello, Issued
from tunnel.errors import ProtocolError
from tunnel.frames import CONTROL, HEAD, PING, PONG, RESET, Frame, FrameReader, encode
from tunnel.handshake import Challenge, Hello, Welcome
from tunnel.messages import parse_message

EPOCH = 7
END = 0x01
UPGRADE = 0x10


class StubLink:
    """One connection of an agent's."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._carriage = WebSocketServer()
        self._frames = FrameReader(1 << 20)
        self._queue: list[Frame] = []
        self.hello: Hello | EnrolHello | None = None

    def say(self, *frames: bytes) -> None:
        """All of them in one message."""
        self._writer.write(self._carriage.wrap([b"".join(frames)]))

    async def greet(self, book: Book) -> Hello | EnrolHello:
        """Challenge the agent, and welcome it whatever it proves."""
        while not self._carriage.open:
            await self._read()
        challenge = Challenge(proof.encode(secrets.token_bytes(32)), (1,), EPOCH, "hostile")
        self.say(encode(CONTROL, payload=challenge.encode()))
        message = parse_message((await self.next()).payload, 65536)
        hello = self.hello = EnrolHello.parse(message) if message["link"] == LINK else Hello.parse(message)
        self.say(encode(CONTROL, payload=_welcome(hello, book).encode()))
        return hello

    async def next(self) -> Frame:
        """The next frame that is no PING. Raises Gone."""
        async with asyncio.timeout(PATIENCE):
            while True:
                while self._queue:
                    frame = self._queue.pop(0)
                    if frame.type != PING:
                        return frame
                    self.say(encode(PONG, 0, 0, frame.payload))
                await self._read()

    async def answer(self, exchange: int) -> Frame:
        """What an exchange is answered: its next HEAD or RESET. Raises Gone."""
        while (frame := await self.next()).exchange != exchange or frame.type not in (HEAD, RESET):
            pass
        return frame

    async def _read(self) -> None:
        data = b""
        with suppress(ConnectionError, ssl.SSLError):
            data = await self._reader.read(65536)
        if not data:
            raise Gone
        try:
            for piece in self._carriage.receive(data):
                self._queue += self._frames.feed(piece)
        except ProtocolError as error:
            raise Gone from error
        finally:
            self._writer.write(self._carriage.pending())

    async def close(self) -> None:
        """Drop it."""
        self._writer.transport.abort()
        with suppress(ConnectionError, ssl.SSLError, TimeoutError):
            await self._writer.wait_closed()


def _welcome(hello: Hello | EnrolHello, book: Book) -> Welcome | Issued:
    if isinstance(hello, EnrolHello):
        return Issued(book.sign(hello.csr, hello.cluster, hello.cluster_id))
    shared = Welcome(1, secrets.token_hex(16), proof.encode(secrets.token_bytes(32)), 65536, 1000)
    return shared if hello.link == "shared" else Welcome(1)


@dataclass
class HostileStub:
    """Listens; `shared` gives the shared link of the next session. Own links are welcomed, and left alone."""

    port: int = 0
    refused: int = 0
    """Connections that ended before a hello: TLS that the agent did not accept, for one."""
    hellos: int = 0
    _shared: asyncio.Queue[StubLink] = field(default_factory=asyncio.Queue)
    _links: list[StubLink] = field(default_factory=list)
    _book: Book = field(default_factory=Book)
    _closed: bool = False

    async def shared(self) -> StubLink:
        """The next shared link."""
        async with asyncio.timeout(15):
            return await self._shared.get()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A connection."""
        link = StubLink(reader, writer)
        if self._closed:
            await link.close()
            return
        self._links.append(link)
        try:
            hello = await link.greet(self._book)
        except (Gone, TimeoutError, ConnectionError):
            self.refused += 1
            return
        self.hellos += 1
        if isinstance(hello, Hello) and hello.link == "shared":
            self._shared.put_nowait(link)

    async def close(self) -> None:
        """Drop every link."""
        self._closed = True
        for link in self._links:
            await link.close()


@asynccontextmanager
async def hostile_stub(tls: ssl.SSLContext) -> AsyncIterator[HostileStub]:
    """A stub on a free port of 127.0.0.1."""
    stub = HostileStub()
    server = await asyncio.start_server(stub.accept, "127.0.0.1", 0, ssl=tls, ssl_shutdown_timeout=0.5)
    stub.port = server.sockets[0].getsockname()[1]
    try:
        yield stub
    finally:
        server.close()
        await stub.close()
        await server.wait_closed()
        # Connections that were still in their TLS handshake are nobody's yet: the loop must see their peers' end.
        for _ in range(10):
            await asyncio.sleep(0.02)


def request(
    exchange: int, *lines: bytes, first: bytes = b"GET /probe", mode: int = 0, flags: int = END, epoch: int = EPOCH
) -> bytes:
    """A request's HEAD, with its lines as they are."""
    block = struct.pack("!QB", epoch, mode) + b"".join(line + b"\r\n" for line in (first, *lines))
    return encode(HEAD, flags, exchange, block)

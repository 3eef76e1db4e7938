"""A tap on the wire between an agent and its server: TLS ends here, and everything that a link carries is kept.

It stands where a load balancer that ends TLS stands: the agent trusts the tap's CA, the tap the server's. WebSocket
frames are unmasked and cut into the link's frames, so that a secret cannot hide behind a mask or a border of frames.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from tunnel.frames import HEAD, Frame, FrameReader
from tunnel.websocket import WebSocketReader

UP, DOWN = "up", "down"
_HEAD_END = b"\r\n\r\n"
_MODE = 8
"""Where a request's HEAD says whether it passes a credential through: behind the epoch."""


@dataclass(frozen=True)
class Stream:
    """What one frame type carried, one way, for one exchange of one connection (0: the link itself), put together."""

    connection: int
    way: str
    exchange: int
    kind: int
    data: bytes = field(repr=False)

    @property
    def passes_through(self) -> bool:
        """Whether it is the HEAD of a request with the user's own credential."""
        return self.kind == HEAD and self.way == DOWN and self.data[_MODE : _MODE + 1] == b"\x01"

    @property
    def target(self) -> bytes:
        """A request's, if this is a HEAD of one."""
        return self.data[_MODE + 1 :].split(b"\r\n", 1)[0].split(b" ")[-1]


class _Half:
    """One direction of one connection: an HTTP head, then WebSocket messages."""

    def __init__(self, way: str) -> None:
        self.way = way
        self.raw = bytearray()
        """All bytes, as TLS carried them."""
        self.head = b""
        self.frames: list[Frame] = []
        self._rest = b""
        self._messages = WebSocketReader(masked=way == UP, max_message=1 << 20, answer=lambda _opcode, _data: None)
        self._reader = FrameReader(1 << 20)

    def take(self, data: bytes) -> None:
        """More bytes. Raises tunnel.errors.ProtocolError where they are no link's."""
        self.raw += data
        if not self.head:
            self._rest += data
            if _HEAD_END not in self._rest:
                return
            head, _, data = self._rest.partition(_HEAD_END)
            self.head, self._rest = head + _HEAD_END, b""
        for piece in self._messages.feed(data):
            self.frames += self._reader.feed(piece)


class Wiretap:
    """An async context. `port` is where the agent goes; `server` and `client` are the TLS of its two sides."""

    def __init__(self, target: int, server: ssl.SSLContext, client: ssl.SSLContext) -> None:
        self._target = target
        self._tls = server, client
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.connections: list[dict[str, _Half]] = []

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self._tls[0], limit=1 << 18)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0.05)

    @property
    def port(self) -> int:
        """Where it listens."""
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def streams(self) -> Iterator[Stream]:
        """All that links carried, put together by what it belongs to."""
        for number, halves in enumerate(self.connections):
            for way, half in halves.items():
                found: defaultdict[tuple[int, int], bytearray] = defaultdict(bytearray)
                for frame in half.frames:
                    found[frame.exchange, frame.type] += frame.payload
                for (exchange, kind), data in found.items():
                    yield Stream(number, way, exchange, kind, bytes(data))

    def bare(self) -> Iterator[tuple[str, bytes]]:
        """What is no frame: the heads of the upgrades, and the bytes as they were, masks and all."""
        for number, halves in enumerate(self.connections):
            for way, half in halves.items():
                yield f"head {way} of connection {number}", half.head
                yield f"bytes {way} of connection {number}", bytes(half.raw)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._own(self._join(reader, writer))

    def _own(self, work: object) -> None:
        assert asyncio.iscoroutine(work)
        task: asyncio.Task[None] = asyncio.create_task(work, name="wiretap")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            near, far = await asyncio.open_connection(
                "127.0.0.1", self._target, ssl=self._tls[1], server_hostname="localhost", limit=1 << 18
            )
        except OSError:
            writer.transport.abort()
            return
        halves = {UP: _Half(UP), DOWN: _Half(DOWN)}
        self.connections.append(halves)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_copy(reader, far, halves[UP]))
                group.create_task(_copy(near, writer, halves[DOWN]))
        finally:
            for one in (writer, far):
                one.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, half: _Half) -> None:
    try:
        while data := await reader.read(1 << 16):
            half.take(data)
            writer.write(data)
            await writer.drain()
    except (ConnectionError, ssl.SSLError):
        pass
    writer.close()

"""A users' connection without sockets, and scripted clusters behind it: tests read as transcripts of bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from stub.errors import StubError
from tunnel.errors import ExchangeReset, Hop, Reason
from tunnel.ports import Headers, RequestBlock, ResponseBlock, ResponseSink


class FakeExchange:
    """Records what the gateway sends, and answers as the test says."""

    agent = "agent-1"

    def __init__(self, cluster: str, head: RequestBlock, sink: ResponseSink) -> None:
        self.cluster = cluster
        self.head = head
        self.sink = sink
        self.sent = b""
        self.ended = head.ended
        self.paid = 0
        self.cancelled: tuple[Hop, Reason, str] | None = None
        self.room = True

    # --- the gateway's calls

    def send_data(self, data: bytes) -> bool:
        assert not self.ended
        assert data
        self.sent += data
        return self.room

    def send_end(self, trailers: bytes = b"") -> None:
        assert not self.ended
        self.ended = True

    def consumed(self, count: int) -> None:
        assert count > 0
        self.paid += count

    def cancel(self, hop: Hop, reason: Reason, message: str) -> None:
        assert self.cancelled is None
        self.cancelled = (hop, reason, message)

    # --- the test's calls

    def header(self, name: bytes) -> list[bytes]:
        return [value for found, value in self.head.headers if found == name]

    def respond(self, status: int = 200, headers: Headers | None = None, body: bytes = b"") -> None:
        fields = list(headers or [])
        if body:
            fields.append((b"content-length", b"%d" % len(body)))
        self.sink.on_response(ResponseBlock(status, fields, ended=not body))
        if body:
            self.sink.on_data(body)
            self.sink.on_end([])

    def begin(self, status: int = 200, headers: Headers | None = None, *, ended: bool = False) -> None:
        self.sink.on_response(ResponseBlock(status, list(headers or []), ended=ended))

    def switch(self, protocol: bytes = b"websocket", headers: Headers | None = None) -> None:
        fields = [(b"upgrade", protocol), *(headers or [])]
        self.sink.on_response(ResponseBlock(101, fields, upgrade=True))

    def reset(self, hop: Hop, reason: Reason, message: str = "it failed") -> None:
        self.sink.on_reset(ExchangeReset(hop, reason, message))


@dataclass
class FakeClusters:
    """The port towards the stub. `refuse` are raised by the next opens, in turn; `script` answers each exchange."""

    opened: list[FakeExchange] = field(default_factory=list)
    refuse: list[StubError] = field(default_factory=list)
    agent: str = FakeExchange.agent
    """Empty: another replica knows it."""

    def open(self, cluster: str, head: RequestBlock, sink: ResponseSink) -> FakeExchange:
        if self.refuse:
            raise self.refuse.pop(0)
        exchange = FakeExchange(cluster, head, sink)
        exchange.agent = self.agent
        self.opened.append(exchange)
        return exchange

    @property
    def last(self) -> FakeExchange:
        return self.opened[-1]


class Wire(asyncio.Transport):
    """The client's end: what it sends goes straight in, what it gets is in `received`."""

    def __init__(self, make: Callable[[], asyncio.Protocol], high: int | None = None, **extra: Any) -> None:
        super().__init__({"peername": ("192.0.2.7", 40_000), **extra})
        self.received = b""
        self.writes = 0
        self.closed = False
        self.aborted = False
        self.reading = True
        self.high = high
        self.stalled = False
        self.protocol = make()
        self.protocol.connection_made(self)

    # --- the test's calls

    def send(self, data: bytes) -> None:
        self.protocol.data_received(data)

    def take(self) -> bytes:
        taken, self.received = self.received, b""
        return taken

    def eof(self) -> None:
        if not self.protocol.eof_received():
            self.lose()

    def lose(self, error: Exception | None = None) -> None:
        self.closed = True
        self.protocol.connection_lost(error)

    def stall(self) -> None:
        self.stalled = True
        self.protocol.pause_writing()

    def unstall(self) -> None:
        self.stalled = False
        self.protocol.resume_writing()

    # --- the protocol's calls

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.closed
        self.writes += 1
        self.received += bytes(data)

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = self.aborted = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        assert self.reading
        self.reading = False

    def resume_reading(self) -> None:
        assert not self.reading
        self.reading = True

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.high = high

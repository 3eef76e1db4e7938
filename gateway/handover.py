"""Hands single requests to an aiohttp application in this process, and reads its answers as strictly as anybody's.

A connection that is given to aiohttp serves the next request there too, whatever its path (tried and seen). So a
*request* is handed over: aiohttp's own server protocol gets it through an in-memory transport, rendered anew, and one
such pair lives for one request. To the connection this is an `Exchange` like a cluster's.

Who asks travels beside the request, as extra information of the transport: there is no header that could be forged.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

from aiohttp import web

from auth.identity import Identity
from tunnel.body import LAST_CHUNK, Body, body_for, encode_chunk
from tunnel.errors import ExchangeReset, HeadError, Hop, Reason
from tunnel.head import FramingKind, RequestHead, ResponseHead, ResponseReader, end_to_end, render_request_head
from tunnel.limits import HeadLimits
from tunnel.ports import Exchange, ResponseBlock, ResponseSink

_CALLER = "kulvert.caller"
_WINDOW = 64 * 1024
_NOT_HANDED_OVER = frozenset((b"authorization", b"expect", b"content-length", b"cookie"))


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks the application. `identity` is None on the public paths alone. `notes` are what the audit record is to
    say besides, under `kulvert.dev/…`.
    """

    identity: Identity | None
    address: str
    audit_id: str
    notes: dict[str, str] = field(default_factory=dict, compare=False)


_KEPT = web.RequestKey("kept", Caller)


def caller_of(request: web.BaseRequest) -> Caller:
    """Whom the gateway has authenticated for this request. Raises LookupError where it came another way."""
    caller = request.get(_KEPT) or request.get_extra_info(_CALLER)
    if not isinstance(caller, Caller):
        raise LookupError("a request that did not come through the gateway")
    request[_KEPT] = caller  # the transport goes with its client, and what was begun is finished
    return caller


class ManagementPort(Protocol):
    """What the pipeline hands requests to that are for no cluster: `Handover`, or what leads to another replica's."""

    def open(self, head: RequestHead, caller: Caller, sink: ResponseSink) -> Exchange:
        """Hand one request over. The sink is not called before this returns. Raises `gateway.failures.Refused`."""
        ...


class Handover:
    """Opens exchanges with an application. `make` is aiohttp's protocol factory (`web.AppRunner.server`)."""

    def __init__(self, make: Callable[[], asyncio.Protocol], loop: asyncio.AbstractEventLoop) -> None:
        self._make = make
        self._loop = loop
        self._limits = HeadLimits()

    def open(self, head: RequestHead, caller: Caller, sink: ResponseSink) -> AppExchange:
        """Hand one request over. The sink is not called before this returns."""
        exchange = AppExchange(self._make(), self._loop, self._limits, sink, head)
        exchange.start(head, caller)
        return exchange


class AppExchange:
    """One request at the application (tunnel.ports.Exchange)."""

    agent = ""

    def __init__(
        self,
        protocol: asyncio.Protocol,
        loop: asyncio.AbstractEventLoop,
        limits: HeadLimits,
        sink: ResponseSink,
        head: RequestHead,
    ) -> None:
        self._protocol = protocol
        self._loop = loop
        self._limits = limits
        self._sink: ResponseSink | None = sink
        self._reader = ResponseReader(limits, head.method)
        self._chunked = head.framing.kind is FramingKind.CHUNKED
        self._body: Body | None = None
        self._unconsumed = 0
        self._lost = self._stalled = False
        self.paused = False

    def start(self, head: RequestHead, caller: Caller) -> None:
        """Connect the pair, and write the request's head."""
        self._protocol.connection_made(AppTransport(self, {_CALLER: caller, "peername": (caller.address, 0)}))
        headers = [pair for pair in end_to_end(head.headers) if pair[0] not in _NOT_HANDED_OVER]
        if self._chunked:
            headers.append((b"transfer-encoding", b"chunked"))
        elif head.framing.kind is FramingKind.LENGTH:
            headers.append((b"content-length", b"%d" % head.framing.length))
        headers.append((b"connection", b"close"))
        self._protocol.data_received(render_request_head(head.method, head.target, headers))

    # --- the connection's calls (tunnel.ports.Exchange)

    def send_data(self, data: bytes) -> bool:
        if not self._lost:
            self._protocol.data_received(encode_chunk(data) if self._chunked else data)
        return not self.paused

    def send_end(self, trailers: bytes = b"") -> None:
        if self._chunked and not self._lost:
            self._protocol.data_received(LAST_CHUNK)

    def consumed(self, count: int) -> None:
        self._unconsumed -= count
        if self._stalled and self._unconsumed <= _WINDOW and not self._lost:
            self._stalled = False
            self._protocol.resume_writing()

    def cancel(self, hop: Hop, reason: Reason, message: str) -> None:
        self._over()  # aiohttp's protocol must have begun before it can end

    # --- the transport's calls

    def answered(self, data: bytes) -> None:
        """Bytes that the application wrote."""
        try:
            while data and self._sink is not None:
                data = self._read_body(data) if self._body is not None else self._read_head(data)
        except HeadError as error:
            self._fail(str(error))

    def closed(self) -> None:
        """The application closed its side: the end of an answer that has no length, or of one that is not whole."""
        try:
            if self._body is None:
                self._fail("no answer")
            elif self._sink is not None:
                self._body.eof()
                self._finish(self._body)
        except HeadError as error:
            self._fail(str(error))
        self._lose()

    def writable(self) -> None:
        """The application reads again."""
        self.paused = False
        if self._sink is not None:
            self._sink.on_writable()

    # --- the answer

    def _read_head(self, data: bytes) -> bytes:
        head = self._reader.feed(data)
        if head is None:
            return b""
        rest = self._reader.rest
        if head.framing.kind is FramingKind.UPGRADE:
            raise HeadError("the application changed the protocol", 502)
        interim = head.status < 200
        if not interim:
            self._body = body_for(head.framing, self._limits)
        sink = cast(ResponseSink, self._sink)
        ended = not interim and head.framing.empty
        if ended:
            self._over()
        sink.on_response(_block(head, interim, ended))
        return rest

    def _read_body(self, data: bytes) -> bytes:
        body = cast(Body, self._body)
        for piece in body.feed(data):
            if self._sink is None:
                return b""
            self._unconsumed += len(piece)
            self._sink.on_data(piece)
        if body.done:
            self._finish(body)
        elif self._unconsumed > _WINDOW and not self._stalled and not self._lost:
            self._stalled = True
            self._protocol.pause_writing()
        return b""

    def _finish(self, body: Body) -> None:
        sink = self._sink
        self._over()
        if sink is not None:
            sink.on_end(body.trailers)

    def _fail(self, message: str) -> None:
        sink = self._sink
        self._over()
        if sink is not None:
            sink.on_reset(ExchangeReset(Hop.GATEWAY, Reason.INTERNAL, f"the management API failed: {message}"))

    def _over(self) -> None:
        """The sink gets nothing more; the pair ends in the next turn, not beneath the application's feet."""
        self._sink = None
        self._loop.call_soon(self._lose)

    def _lose(self) -> None:
        if not self._lost:
            self._lost = True
            self._protocol.connection_lost(None)


def _block(head: ResponseHead, interim: bool, ended: bool) -> ResponseBlock:
    headers = [pair for pair in end_to_end(head.headers) if pair[0] != b"server"]
    return ResponseBlock(head.status, headers, interim=interim, ended=ended)


class AppTransport(asyncio.Transport):
    """The transport that aiohttp's protocol sees."""

    def __init__(self, exchange: AppExchange, extra: dict[str, Any]) -> None:
        super().__init__(extra)
        self._exchange = exchange
        self._closing = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self._closing:
            self._exchange.answered(bytes(data))

    def writelines(self, pieces: Any) -> None:
        self.write(b"".join(pieces))

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self._exchange.closed()

    def abort(self) -> None:
        self.close()

    def pause_reading(self) -> None:
        self._exchange.paused = True

    def resume_reading(self) -> None:
        self._exchange.writable()

    def can_write_eof(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """The window is the exchange's."""

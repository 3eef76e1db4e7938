"""How a link's bytes travel: WebSocket binary messages (docs/protocol.md, 1), with the handshake of `websockets`.

A carriage takes bytes from a connection and gives the stream of the link, and wraps what the link writes. Borders mean
nothing.
"""

from __future__ import annotations

from typing import Protocol

from websockets.client import ClientProtocol
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from tunnel import websocket
from tunnel.errors import HeadError, ProtocolError
from tunnel.handshake import PATH, SUBPROTOCOL
from tunnel.head import RequestReader
from tunnel.limits import KIB, HeadLimits
from tunnel.websocket import BINARY, CLOSE, NORMAL, WebSocketFailed, WebSocketReader

MAX_MESSAGE = 64 * KIB
MAX_HANDSHAKE = 16 * KIB
_SUBPROTOCOLS = [Subprotocol(SUBPROTOCOL)]
_HEAD_END = b"\r\n\r\n"


class Carriage(Protocol):
    """Bytes of a connection ↔ the stream of a link."""

    @property
    def open(self) -> bool:
        """Whether the link's stream flows."""

    @property
    def ended(self) -> bool:
        """Whether the peer has said its last. After our own `close` it is waited for: then all that we sent arrived."""

    def begin(self) -> bytes:
        """What to write first."""

    def receive(self, data: bytes) -> list[bytes]:
        """Pieces of the link's stream. Raises ProtocolError. Afterwards `pending` may have something to write."""

    def wrap(self, pieces: list[bytes]) -> bytes:
        """Bytes to write that carry these pieces."""

    def pending(self) -> bytes:
        """Bytes that the carriage itself has to write (its handshake, a pong, a close)."""

    def close(self) -> bytes:
        """What to write last."""


class _WebSocket:
    """What both ends share: the library's handshake, then frames of our own making."""

    def __init__(self, handshake: ClientProtocol | ServerProtocol, *, masks: bool) -> None:
        self.open = False
        self._closing = False
        self._handshake: ClientProtocol | ServerProtocol | None = handshake
        self._masks = masks
        self._head = bytearray()
        self._pending: list[bytes] = []
        self._reader = WebSocketReader(masked=not masks, max_message=MAX_MESSAGE, answer=self._answer)

    def begin(self) -> bytes:
        return b""

    @property
    def ended(self) -> bool:
        return self._reader.closed

    def receive(self, data: bytes) -> list[bytes]:
        if self._closing:
            return self._receive_last(data)
        if not self.open:
            data = self._shake_hands(data)
        try:
            pieces = self._reader.feed(data) if self.open else []
        except WebSocketFailed as failed:
            self._end(failed.code)
            self._reader.closed = True
            raise
        if self._reader.closed:
            self.open = False
        return pieces

    def _receive_last(self, data: bytes) -> list[bytes]:
        """We have closed: of what still comes, only the peer's own close matters."""
        try:
            self._reader.feed(data)
        except WebSocketFailed:
            self._reader.closed = True
        return []

    def _shake_hands(self, data: bytes) -> bytes:
        """Feed the handshake; what comes behind it is given back."""
        if self._reader.closed or self._handshake is None:
            return b""
        before = len(self._head)
        self._head += data
        end = self._head.find(_HEAD_END, max(0, before - 3))
        own = len(data) if end < 0 else end + len(_HEAD_END) - before
        if min(len(self._head), before + own) > MAX_HANDSHAKE:
            raise ProtocolError("a WebSocket handshake without an end")
        try:
            self._feed_handshake(data[:own])
        finally:
            self._pending += self._handshake.data_to_send()
        if end < 0:
            return b""
        self.open = True
        self._forget_handshake()
        return data[own:]

    def _feed_handshake(self, data: bytes) -> None:
        raise NotImplementedError

    def _forget_handshake(self) -> None:
        """The library's parsers and heads are several kB, and a link may live for months."""
        self._handshake = None
        self._head = bytearray()

    def _answer(self, opcode: int, payload: bytes) -> None:
        if not self._closing:
            self._pending.append(websocket.encode(opcode, payload, masked=self._masks))

    def _end(self, code: int) -> None:
        self._answer(CLOSE, code.to_bytes(2, "big"))
        self._closing = True
        self.open = False

    def wrap(self, pieces: list[bytes]) -> bytes:
        data = b"".join(pieces)
        if len(data) <= MAX_MESSAGE:
            return websocket.encode(BINARY, data, masked=self._masks)
        cuts = range(0, len(data), MAX_MESSAGE)
        return b"".join([websocket.encode(BINARY, data[at : at + MAX_MESSAGE], masked=self._masks) for at in cuts])

    def pending(self) -> bytes:
        if not self._pending:
            return b""
        data = b"".join(self._pending)
        self._pending.clear()
        return data

    def close(self) -> bytes:
        if self.open:
            self._end(NORMAL)
        return self.pending()


class WebSocketClient(_WebSocket):
    """The agent's side. `host` is the name (and port) that it dialled."""

    def __init__(self, host: str) -> None:
        self._client = ClientProtocol(parse_uri(f"wss://{host}{PATH}"), subprotocols=_SUBPROTOCOLS)
        super().__init__(self._client, masks=True)

    def begin(self) -> bytes:
        self._client.send_request(self._client.connect())
        return b"".join(self._client.data_to_send())

    def _feed_handshake(self, data: bytes) -> None:
        client = self._client
        client.receive_data(data)
        answers = [event for event in client.events_received() if isinstance(event, Response)]
        if client.handshake_exc is not None:
            raise ProtocolError(f"no WebSocket at this address: {client.handshake_exc}")
        if not answers and _HEAD_END in self._head:
            raise ProtocolError("no WebSocket at this address: " + bytes(self._head[:40]).decode("ascii", "replace"))
        if answers and client.subprotocol != SUBPROTOCOL:
            raise ProtocolError("the server does not speak the link protocol")

    def _forget_handshake(self) -> None:
        super()._forget_handshake()
        del self._client


class WebSocketServer(_WebSocket):
    """The stub's side. Anything but the one path and subprotocol is refused by an HTTP answer."""

    def __init__(self) -> None:
        self._server = ServerProtocol(subprotocols=_SUBPROTOCOLS)
        self._strict = RequestReader(HeadLimits())
        super().__init__(self._server, masks=False)

    def _feed_handshake(self, data: bytes) -> None:
        """The library takes heads that a load balancer could read otherwise (two Hosts): ours has to agree first."""
        try:
            self._strict.feed(data)
        except HeadError as refused:
            self._refuse(400, f"{refused}\n")
        self._server.receive_data(data)
        for event in self._server.events_received():
            assert isinstance(event, Request)
            self._accept(event)
        if self._server.handshake_exc is not None:
            raise ProtocolError(f"no WebSocket handshake: {self._server.handshake_exc}")

    def _forget_handshake(self) -> None:
        super()._forget_handshake()
        del self._server, self._strict

    def _accept(self, request: Request) -> None:
        if request.path != PATH:
            self._refuse(404, "this is the agents' door of a Kulvert server; agents connect to " + PATH + "\n")
        offered = ",".join(request.headers.get_all("Sec-WebSocket-Protocol"))
        if SUBPROTOCOL not in [token.strip() for token in offered.split(",")]:
            self._refuse(400, f"the subprotocol {SUBPROTOCOL} must be offered\n")
        self._server.send_response(self._server.accept(request))

    def _refuse(self, status: int, message: str) -> None:
        self._server.send_response(self._server.reject(status, message))
        raise ProtocolError(message.strip())

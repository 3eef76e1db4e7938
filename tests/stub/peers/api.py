"""A scripted API server behind an agent: what it does is said by the path."""

from __future__ import annotations

from tests.support.attached import Answering
from tunnel.block import encode_trailers
from tunnel.errors import ExchangeReset
from tunnel.ports import AgentExchange, Headers, RequestBlock, RequestSink, ResponseBlock

PIECE = bytes(range(256)) * 64
TRAILERS: Headers = [(b"x-checksum", b"abc")]


class Api(Answering):
    """The handler of an agent. `seen` has everything that was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Asked] = []

    def __call__(self, exchange: AgentExchange, head: RequestBlock) -> RequestSink:
        asked = Asked(exchange, head)
        self.seen.append(asked)
        asked.begin()
        return asked


class Asked:
    """One request, as the API server has it."""

    def __init__(self, exchange: AgentExchange, head: RequestBlock) -> None:
        self.exchange = exchange
        self.head = head
        self.body = bytearray()
        self.ended = head.ended
        self.trailers: Headers = []
        self.reset: ExchangeReset | None = None
        self.sent = self.owed = 0
        self.left = 0
        self.full = False
        self.reads = True

    def begin(self) -> None:
        """Answer at once where the path says so."""
        path = self.head.target
        if path == b"/small":
            self._whole(b"hello")
        elif path == b"/interim":
            for name in (b"a", b"b"):
                self.exchange.send_response(ResponseBlock(103, [(b"link", b"</%b>" % name)], interim=True))
            self._whole(b"after")
        elif path.startswith(b"/big/"):
            self.exchange.send_response(ResponseBlock(200, []))
            self.left = int(path[5:])
            self._pump()
        elif path.startswith(b"/exec"):
            self.reads = path != b"/exec/deaf"
            self.exchange.send_response(ResponseBlock(101, [(b"upgrade", b"spdy/3.1")], upgrade=True))
        elif path == b"/forbidden":
            self._whole(b"no", 403)

    def _whole(self, body: bytes, status: int = 200) -> None:
        self.exchange.send_response(ResponseBlock(status, [(b"content-length", b"%d" % len(body))]))
        self.exchange.send_data(body)
        self.exchange.send_end()

    def _pump(self) -> None:
        while self.left and not self.full:
            piece = PIECE[: min(self.left, len(PIECE))]
            self.left -= len(piece)
            self.sent += len(piece)
            self.full = not self.exchange.send_data(piece)
        if not self.left:
            self.exchange.send_end()

    # --- RequestSink

    def on_data(self, data: bytes) -> None:
        if not self.reads:
            return
        if not self.head.upgrade:
            self.body += data
            self.exchange.consumed(len(data))
        elif self.exchange.send_data(data):
            self.exchange.consumed(len(data))
        else:  # an echo takes no more than it gets rid of
            self.owed += len(data)

    def on_end(self, trailers: Headers) -> None:
        self.ended, self.trailers = True, trailers
        if self.head.upgrade:
            self.exchange.send_end()
        elif self.head.target == b"/echo":
            self.exchange.send_response(ResponseBlock(201, [(b"x-first", b"1")]))
            self.exchange.send_data(bytes(self.body))
            self.exchange.send_end(encode_trailers(TRAILERS))

    def on_reset(self, error: ExchangeReset) -> None:
        self.reset = error
        self.exchange.released()

    def on_writable(self) -> None:
        self.full = False
        owed, self.owed = self.owed, 0
        self.exchange.consumed(owed)
        if self.head.target.startswith(b"/big/"):
            self._pump()

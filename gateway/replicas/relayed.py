"""Watches that other replicas' users have through this one's agents: they end whole, between two events, when this
replica is left, so that those users go on elsewhere at once, while what else is under way has its time.
"""

from __future__ import annotations

from tunnel.errors import ExchangeReset, Hop, Reason
from tunnel.events import Events
from tunnel.ports import Exchange, Headers, RequestBlock, ResponseBlock, ResponseSink
from tunnel.requestinfo import request_info


class RelayedWatches:
    """Those that are open."""

    def __init__(self) -> None:
        self._open: set[_Watch] = set()

    def __len__(self) -> int:
        return len(self._open)

    def sink(self, head: RequestBlock, sink: ResponseSink) -> ResponseSink:
        """What to open the exchange with."""
        return _Watch(sink, self._open) if is_watch(head) else sink

    def opened(self, sink: ResponseSink, exchange: Exchange) -> Exchange:
        """It was opened with that."""
        if isinstance(sink, _Watch):
            sink.exchange = exchange
            self._open.add(sink)
        return exchange

    def end(self) -> None:
        """Those that may end now: to be called again while there are any."""
        for watch in tuple(self._open):
            watch.end()


def is_watch(head: RequestBlock) -> bool:
    """Whether it asks for a watch."""
    path, _, query = head.target.partition(b"?")
    return head.long and not head.upgrade and request_info(head.method.decode("ascii"), path, query).verb == "watch"


class _Watch:
    def __init__(self, sink: ResponseSink, among: set[_Watch]) -> None:
        self._sink = sink
        self._among = among
        self._events: Events | None = None
        self.exchange: Exchange | None = None
        self.on_writable = sink.on_writable

    def on_response(self, head: ResponseBlock) -> None:
        if head.ended:
            self._among.discard(self)
        elif not head.interim:
            self._events = Events(head.headers)
        self._sink.on_response(head)

    def on_data(self, data: bytes) -> None:
        if self._events is not None:
            self._events.take(data)
        self._sink.on_data(data)

    def on_end(self, trailers: Headers) -> None:
        self._among.discard(self)
        self._sink.on_end(trailers)

    def on_reset(self, error: ExchangeReset) -> None:
        self._among.discard(self)
        self._sink.on_reset(error)

    def end(self) -> None:
        if self._events is None or not self._events.look():
            return
        self._among.discard(self)
        if self.exchange is not None:
            self.exchange.cancel(Hop.STUB, Reason.DRAINING, "the replica that has the agents is shutting down")
        self._sink.on_end([])  # behind all that was told: a reset would overtake it

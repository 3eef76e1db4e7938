"""Watches of other replicas' users: they end whole when this replica is left, and nothing else does."""

from __future__ import annotations

import pytest

from gateway.replicas.relayed import RelayedWatches, is_watch
from tests.gateway.wire import FakeExchange
from tunnel.errors import ExchangeReset, Hop, Reason
from tunnel.ports import Headers, RequestBlock, ResponseBlock


class Sink:
    def __init__(self) -> None:
        self.heard: list[object] = []

    def on_response(self, head: ResponseBlock) -> None:
        self.heard.append(head.status)

    def on_data(self, data: bytes) -> None:
        self.heard.append(data)

    def on_end(self, trailers: Headers) -> None:
        self.heard.append("end")

    def on_reset(self, error: ExchangeReset) -> None:
        self.heard.append((error.hop, error.reason))

    def on_writable(self) -> None: ...


def block(target: bytes, *, long: bool = True, upgrade: bool = False) -> RequestBlock:
    return RequestBlock(b"GET", target, [], True, long, upgrade, False)


WATCH = block(b"/api/v1/pods?watch=1")


def opened(watches: RelayedWatches, head: RequestBlock) -> tuple[Sink, FakeExchange]:
    sink = Sink()
    told = watches.sink(head, sink)
    exchange = FakeExchange("a", head, told)
    watches.opened(told, exchange)
    told.on_response(ResponseBlock(200, [(b"content-type", b"application/json")]))
    return sink, exchange


@pytest.mark.parametrize(
    ("head", "watch"),
    [
        (WATCH, True),
        (block(b"/api/v1/watch/pods"), True),
        (block(b"/api/v1/pods", long=False), False),
        (block(b"/api/v1/namespaces/x/pods/p/log?follow=1"), False),
        (block(b"/api/v1/namespaces/x/pods/p/exec?command=sh", upgrade=True), False),
    ],
    ids=["watch", "old watch", "list", "log", "exec"],
)
def test_only_watches_are_ended(head: RequestBlock, watch: bool) -> None:
    assert is_watch(head) is watch
    watches = RelayedWatches()
    sink, exchange = opened(watches, head)
    watches.end()
    assert sink.heard == ([200, "end"] if watch else [200])
    assert (exchange.cancelled is not None) is watch
    assert not len(watches)


@pytest.mark.parametrize("how", ["end", "reset", "ended head"])
def test_one_that_is_over_is_forgotten(how: str) -> None:
    watches = RelayedWatches()
    sink, exchange = opened(watches, WATCH)
    assert len(watches) == 1
    if how == "end":
        exchange.sink.on_end([])
    elif how == "reset":
        exchange.sink.on_reset(ExchangeReset(Hop.AGENT, Reason.LINK_LOST, "x"))
    else:
        exchange.sink.on_response(ResponseBlock(410, [], ended=True))
    assert not len(watches)
    watches.end()
    assert exchange.cancelled is None
    assert len(sink.heard) == 2


async def test_one_whose_event_is_under_way_waits_for_its_end() -> None:
    watches = RelayedWatches()
    sink, exchange = opened(watches, WATCH)
    exchange.sink.on_data(b'{"type":')
    watches.end()
    assert len(watches) == 1
    exchange.sink.on_data(b'"ADDED"}\n')
    watches.end()
    assert sink.heard[-1] == "end"
    assert not len(watches)

"""A hijacked stream: opaque bytes both ways, its ends, and what becomes of an upgrade that failed."""

from __future__ import annotations

import pytest

from tests.gateway.answers import read
from tests.gateway.gate import gate, settle
from tests.gateway.test_answering import UPGRADE, request

ACCEPT = [(b"sec-websocket-accept", b"yes"), (b"sec-websocket-protocol", b"v5.channel.k8s.io")]


async def test_bytes_in_the_segment_of_an_upgrade_arrive_both_ways() -> None:
    async with gate() as g:
        wire = g.connect()
        wire.send(UPGRADE + b"early")
        exchange = g.clusters.last
        assert exchange.head.upgrade
        assert exchange.head.long
        assert exchange.header(b"upgrade") == [b"websocket"]
        assert exchange.sent == b""  # nothing behind the head until the 101
        with g.door.batch:
            exchange.switch(headers=ACCEPT)
            exchange.sink.on_data(b"\x00banner")
        assert exchange.sent == b"early"
        head, _, rest = wire.take().partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
        assert b"connection: Upgrade" in head
        assert b"upgrade: websocket" in head
        assert b"sec-websocket-accept: yes" in head
        assert b"content-length" not in head
        assert b"transfer-encoding" not in head
        assert rest == b"\x00banner"
        wire.send(request())
        assert exchange.sent.endswith(request())  # opaque: no request is read any more
        assert len(g.clusters.opened) == 1


async def test_the_end_of_the_cluster_ends_the_client_after_flushing() -> None:
    async with gate() as g:
        wire = g.connect()
        wire.send(UPGRADE)
        exchange = g.clusters.last
        exchange.switch(headers=ACCEPT)
        exchange.sink.on_data(b"last words")
        exchange.sink.on_end([])
        await settle()
        assert wire.take().endswith(b"last words")
        assert exchange.ended
        assert exchange.cancelled is None
        assert wire.closed


async def test_the_end_of_the_client_lets_its_last_bytes_arrive() -> None:
    async with gate() as g:
        wire = g.connect()
        wire.send(UPGRADE)
        exchange = g.clusters.last
        exchange.switch(headers=ACCEPT)
        wire.send(b"last words")
        wire.eof()
        assert exchange.sent == b"last words"
        assert exchange.ended
        assert exchange.cancelled is None
        exchange.sink.on_data(b"nobody reads this")
        await settle()
        assert exchange.paid  # or the agent's end would wait for credit
        exchange.sink.on_end([])
        assert not g.door.connections
        assert g.traffic.in_flight == 0


async def test_an_ended_hijack_that_the_cluster_does_not_end_is_cancelled_in_time() -> None:
    async with gate() as g:
        wire = g.connect()
        wire.send(UPGRADE)
        exchange = g.clusters.last
        exchange.switch(headers=ACCEPT)
        wire.eof()
        g.pass_time(11.0)
        assert exchange.cancelled is not None
        assert not g.door.connections


async def test_a_broken_client_cancels_a_hijack_at_once() -> None:
    async with gate() as g:
        wire = g.connect()
        wire.send(UPGRADE)
        exchange = g.clusters.last
        exchange.switch(headers=ACCEPT)
        wire.lose(ConnectionResetError())
        assert exchange.cancelled is not None
        assert not g.door.connections


@pytest.mark.parametrize("status", [200, 400, 403, 404, 302])
async def test_a_failed_upgrade_ends_the_connection_whatever_was_pipelined(status: int) -> None:
    """CVE-2018-1002105: the next request must never be read as the tunnel's, nor reach the API server as the agent."""
    async with gate() as g:
        wire = g.connect()
        wire.send(UPGRADE + request())
        g.clusters.last.respond(status, body=b"no")
        await settle()
        (got,) = read(wire.take())
        assert (got.status, got.headers["connection"]) == (status, "close")
        assert g.clusters.last.sent == b""
        wire.send(request())
        assert len(g.clusters.opened) == 1
        g.pass_time(3.0)
        assert wire.closed


async def test_what_comes_before_a_101_is_bounded() -> None:
    async with gate() as g:
        wire = g.connect()
        wire.send(UPGRADE)
        wire.send(b"x" * 65_536)
        assert wire.reading
        wire.send(b"x")
        assert not wire.reading
        g.clusters.last.switch(headers=ACCEPT)
        assert wire.reading
        assert len(g.clusters.last.sent) == 65_537

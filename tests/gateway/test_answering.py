"""The answer's framing is the gateway's own: no cluster can leave bytes on a user's connection, nor fake a whole
answer.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.gateway.answers import read
from tests.gateway.gate import HEADS, Gate, gate, settle
from tests.gateway.wire import FakeExchange, Wire
from tunnel.errors import Hop, Reason
from tunnel.ports import ResponseBlock

UPGRADE = (
    b"GET /clusters/a/api/v1/namespaces/n/pods/p/exec?command=sh HTTP/1.1\r\n" + HEADS + b"Connection: Upgrade\r\n"
    b"Upgrade: websocket\r\nSec-WebSocket-Key: a2V5\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def request(method: bytes = b"GET", target: bytes = b"/clusters/a/api/v1/pods") -> bytes:
    return method + b" " + target + b" HTTP/1.1\r\n" + HEADS + b"\r\n"


def asked(g: Gate, method: bytes = b"GET") -> tuple[Wire, FakeExchange]:
    wire = g.connect()
    wire.send(request(method))
    return wire, g.clusters.last


async def test_a_known_length_is_kept() -> None:
    async with gate() as g:
        wire, exchange = asked(g)
        exchange.begin(200, [(b"content-length", b"5")])
        exchange.sink.on_data(b"hel")
        exchange.sink.on_data(b"lo")
        exchange.sink.on_end([])
        await settle()
        (got,) = read(wire.take())
        assert (got.body, got.headers["content-length"]) == (b"hello", "5")


async def test_an_unknown_length_is_chunked() -> None:
    async with gate() as g:
        wire, exchange = asked(g)
        exchange.begin(200)
        await settle()
        assert b"transfer-encoding: chunked" in wire.received  # at once: a watch's head waits for nothing
        exchange.sink.on_data(b"hello")
        await settle()
        assert wire.received.endswith(b"5\r\nhello\r\n")
        exchange.sink.on_end(
            [(b"x-checksum", b"1"), (b"content-length", b"9"), (b"set-cookie", b"x"), (b"location", b"/")]
        )
        await settle()
        (got,) = read(wire.take())
        assert (got.body, got.trailers) == (b"hello", {"x-checksum": "1"})
        assert not wire.closed


async def test_a_body_that_looks_like_chunks_and_answers_stays_a_body() -> None:
    evil = b"0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
    async with gate() as g:
        wire, exchange = asked(g)
        exchange.begin(200)
        exchange.sink.on_data(evil)
        exchange.sink.on_end([])
        wire.send(request())
        g.clusters.last.respond(200, body=b"good")
        await settle()
        assert [got.body for got in read(wire.take(), "GET", "GET")] == [evil, b"good"]


@pytest.mark.parametrize("status", [204, 304])
async def test_statuses_without_a_body_have_none(status: int) -> None:
    async with gate() as g:
        wire, exchange = asked(g)
        exchange.begin(status, [(b"etag", b'"1"')], ended=True)
        wire.send(request())
        g.clusters.last.respond(200, body=b"next")
        await settle()
        first, second = read(wire.take(), "GET", "GET")
        assert (first.status, first.body, second.body) == (status, b"", b"next")
        assert "content-length" not in first.headers
        assert "transfer-encoding" not in first.headers


async def test_an_answer_to_head_has_its_length_and_no_body() -> None:
    async with gate() as g:
        wire, exchange = asked(g, b"HEAD")
        exchange.begin(200, [(b"content-length", b"500")], ended=True)
        wire.send(request())
        g.clusters.last.respond(200, body=b"next")
        await settle()
        first, second = read(wire.take(), "HEAD", "GET")
        assert (first.headers["content-length"], second.body) == ("500", b"next")


async def test_a_refused_head_has_no_body_either() -> None:
    async with gate() as g:
        wire = g.connect()
        wire.send(b"HEAD /clusters/a/api HTTP/1.1\r\nHost: x\r\n\r\n" + request())
        g.clusters.last.respond(200, body=b"next")
        await settle()
        first, second = read(wire.take(), "HEAD", "GET")
        assert (first.status, second.body) == (401, b"next")
        assert int(first.headers["content-length"]) > 0


async def test_an_ended_head_without_a_length_is_empty() -> None:
    async with gate() as g:
        wire, exchange = asked(g)
        exchange.begin(201, ended=True)
        await settle()
        (got,) = read(wire.take())
        assert got.headers["content-length"] == "0"


def surplus(exchange: FakeExchange) -> None:
    exchange.begin(200, [(b"content-length", b"3")])
    exchange.sink.on_data(b"toolong")


def short(exchange: FakeExchange) -> None:
    exchange.begin(200, [(b"content-length", b"9")])
    exchange.sink.on_data(b"short")
    exchange.sink.on_end([])


def body_on_204(exchange: FakeExchange) -> None:
    exchange.begin(204)
    exchange.sink.on_data(b"HTTP/1.1 200 OK\r\n\r\n")


def body_on_304(exchange: FakeExchange) -> None:
    exchange.begin(304, [(b"content-length", b"5")])
    exchange.sink.on_data(b"hello")


def second_answer(exchange: FakeExchange) -> None:
    exchange.begin(200)
    exchange.begin(200)


def lost(exchange: FakeExchange) -> None:
    exchange.begin(200)
    exchange.sink.on_data(b"half")
    exchange.reset(Hop.STUB, Reason.LINK_LOST)


def late_switch(exchange: FakeExchange) -> None:
    exchange.begin(200)
    exchange.switch()


@pytest.mark.parametrize("hostile", [surplus, short, body_on_204, body_on_304, second_answer, lost, late_switch])
async def test_an_answer_that_breaks_its_framing_cuts_the_connection(hostile: Callable[[FakeExchange], None]) -> None:
    async with gate() as g:
        wire, exchange = asked(g)
        wire.send(request())  # held; it must never be answered on this connection
        hostile(exchange)
        await settle()
        assert wire.closed
        assert len(g.clusters.opened) == 1
        for end in (b"\r\n0\r\n\r\n", b"toolong", b"half\r\n0"):
            assert not wire.received.endswith(end)
        assert b"HTTP/1.1" not in wire.received[8:]
        if hostile is not lost:
            assert exchange.cancelled is not None
        wire.lose()
        assert not g.door.connections


@pytest.mark.parametrize(
    "headers",
    [
        [(b"content-length", b"5"), (b"content-length", b"5")],
        [(b"content-length", b"+5")],
        [(b"content-length", b"5, 5")],
        [(b"content-length", b"")],
        [(b"content-length", b"9" * 19)],
    ],
)
async def test_a_malformed_length_is_a_502(headers: list[tuple[bytes, bytes]]) -> None:
    async with gate() as g:
        wire, exchange = asked(g)
        exchange.begin(200, headers)
        await settle()
        (got,) = read(wire.take())
        assert got.status == 502
        assert exchange.cancelled is not None
        assert exchange.cancelled[1] is Reason.BAD_RESPONSE


async def test_a_length_without_a_body_is_a_502() -> None:
    async with gate() as g:
        wire, exchange = asked(g)
        exchange.begin(200, [(b"content-length", b"5")], ended=True)
        await settle()
        assert read(wire.take())[0].status == 502


async def test_a_switch_that_nobody_asked_for_is_a_502() -> None:
    async with gate() as g:
        wire, exchange = asked(g)
        exchange.switch()
        await settle()
        assert read(wire.take())[0].status == 502


async def test_an_end_without_a_head_is_a_502() -> None:
    async with gate() as g:
        wire, exchange = asked(g)
        exchange.sink.on_end([])
        await settle()
        assert read(wire.take())[0].status == 502


async def test_interim_answers_pass_but_for_100() -> None:
    async with gate() as g:
        wire, exchange = asked(g)
        exchange.sink.on_response(ResponseBlock(100, [], interim=True))
        exchange.sink.on_response(ResponseBlock(103, [(b"link", b"</x>"), (b"set-cookie", b"a=b")], interim=True))
        exchange.respond(200, body=b"x")
        await settle()
        assert b"set-cookie" not in wire.received
        (got,) = read(wire.take())
        assert (got.status, got.interims) == (200, [103])


async def test_a_header_that_cannot_be_written_is_a_502() -> None:
    """The link's decoder refuses it as well; here nothing relies on that."""
    async with gate() as g:
        wire, exchange = asked(g)
        exchange.begin(200, [(b"x", b"a\r\nSet-Cookie: evil")], ended=True)
        await settle()
        (got,) = read(wire.take())
        assert got.status == 502
        assert b"evil" not in got.body


@pytest.mark.parametrize("theirs", [b"spdy/3.1", b"h2c", b"websocket, h2c"])
async def test_a_101_to_another_protocol_is_a_502(theirs: bytes) -> None:
    async with gate() as g:
        wire = g.connect()
        wire.send(UPGRADE)
        g.clusters.last.switch(theirs)
        await settle()
        (got,) = read(wire.take())
        assert (got.status, got.headers["connection"]) == (502, "close")
        assert g.clusters.last.cancelled is not None

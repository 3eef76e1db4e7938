"""One connection, any requests in any order: each is routed and authenticated by itself, and gets its own answer."""

from __future__ import annotations

import itertools

import pytest

from gateway.limits import DoorLimits, DoorTimeouts
from tests.gateway.answers import read
from tests.gateway.gate import ALICE, HEADS, Gate, gate, settle
from tests.gateway.wire import Wire
from tunnel.ports import ResponseBlock

A = b"GET /clusters/a/api/v1/pods HTTP/1.1\r\n" + HEADS + b"\r\n"
B = b"GET /clusters/b/api/v1/pods HTTP/1.1\r\n" + HEADS + b"\r\n"
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: gateway\r\n\r\n"
LIST = b"GET /apis/kulvert.dev/v1alpha1/clusters HTTP/1.1\r\n" + HEADS + b"\r\n"
NOBODY = b"GET /clusters/a/api HTTP/1.1\r\nHost: gateway\r\n\r\n"
FORBIDDEN = b"GET /clusters/other/api HTTP/1.1\r\n" + HEADS + b"\r\n"
ODD_PATH = b"GET /clusters/a/../b HTTP/1.1\r\n" + HEADS + b"\r\n"
POST = b"POST /clusters/a/api/v1/pods HTTP/1.1\r\n" + HEADS + b"Content-Length: 5\r\n\r\nhello"
KINDS = {
    "a": (A, 200),
    "b": (B, 200),
    "health": (HEALTH, 200),
    "list": (LIST, 200),
    "nobody": (NOBODY, 401),
    "forbidden": (FORBIDDEN, 403),
    "odd": (ODD_PATH, 400),
    "post": (POST, 200),
}


async def exchange(g: Gate, wire: Wire, kind: str) -> None:
    request, status = KINDS[kind]
    before = len(g.clusters.opened)
    wire.send(request)
    if len(g.clusters.opened) > before:
        assert g.clusters.last.cluster == ("b" if kind == "b" else "a")
        assert g.clusters.last.header(b"impersonate-user") == [b"alice"]
        g.clusters.last.respond(200, body=kind.encode())
    await settle()
    (got,) = read(wire.take(), "POST" if kind == "post" else "GET")
    assert got.status == status
    if kind in ("a", "b", "post"):
        assert got.body == kind.encode()
    assert "connection" not in got.headers


@pytest.mark.parametrize("order", list(itertools.permutations(KINDS, 2)), ids="-".join)
async def test_keep_alive_in_every_order(order: tuple[str, str]) -> None:
    async with gate() as g:
        wire = g.connect()
        for kind in (*order, *order):
            await exchange(g, wire, kind)
        assert not wire.closed


async def test_a_pipeline_is_answered_in_order_and_nothing_is_parsed_ahead() -> None:
    async with gate() as g:
        wire = g.connect()
        wire.send(A + B + HEALTH + NOBODY + POST + A)
        assert len(g.clusters.opened) == 1
        assert wire.received == b""
        g.clusters.last.respond(200, body=b"first")
        await settle()
        assert len(g.clusters.opened) == 2
        g.clusters.last.respond(200, body=b"second")
        await settle()
        assert len(g.clusters.opened) == 3
        assert g.clusters.last.sent == b"hello"
        g.clusters.last.respond(201, body=b"fifth")
        await settle()
        assert len(g.clusters.opened) == 4
        g.clusters.last.respond(200, body=b"sixth")
        await settle()
        answers = read(wire.take(), "GET", "GET", "GET", "GET", "POST", "GET")
        assert [got.status for got in answers] == [200, 200, 200, 401, 201, 200]
        assert [got.body for got in answers if got.status < 300] == [b"first", b"second", b"ok", b"fifth", b"sixth"]


async def test_many_refused_requests_in_a_pipeline_do_not_recurse() -> None:
    async with gate() as g:
        wire = g.connect()
        wire.send(A)
        wire.send(NOBODY * 900)
        g.clusters.last.respond(200, body=b"x")
        await settle()
        assert len(read(wire.take(), *["GET"] * 901)) == 901


async def test_one_byte_at_a_time() -> None:
    async with gate() as g:
        wire = g.connect()
        answered = 0
        for octet in POST + CHUNKED + A:
            wire.send(bytes([octet]))
            if len(g.clusters.opened) > answered and g.clusters.last.ended:
                g.clusters.last.respond(200, body=b"yes")
                answered += 1
                await settle()
        assert [exchange.sent for exchange in g.clusters.opened] == [b"hello", b"hello world", b""]
        assert [got.body for got in read(wire.take(), "POST", "POST", "GET")] == [b"yes"] * 3


CHUNKED = (
    b"POST /clusters/a/api/v1/pods HTTP/1.1\r\n" + HEADS + b"Transfer-Encoding: chunked\r\n\r\n"
    b"5\r\nhello\r\n6\r\n world\r\n0\r\nX-Trailer: dropped\r\n\r\n"
)


async def test_a_chunked_body_arrives_decoded_and_its_trailers_do_not() -> None:
    async with gate() as g:
        wire = g.connect()
        wire.send(CHUNKED + A)
        assert g.clusters.last.sent == b"hello world"
        assert g.clusters.last.ended
        assert g.clusters.last.header(b"transfer-encoding") == []
        assert g.clusters.last.header(b"content-length") == []
        assert g.clusters.last.head.long
        g.clusters.last.respond(201)
        assert len(g.clusters.opened) == 2


async def test_a_body_after_its_answer_began_still_flows() -> None:
    """Both directions are pumped independently (an application behind a proxy may answer while it reads)."""
    async with gate() as g:
        wire = g.connect()
        wire.send(b"POST /clusters/a/api HTTP/1.1\r\n" + HEADS + b"Content-Length: 10\r\n\r\nhello")
        first = g.clusters.last
        first.begin(200, [(b"content-length", b"3")])
        wire.send(b"world")
        assert first.sent == b"helloworld"
        assert first.ended
        first.sink.on_data(b"yes")
        first.sink.on_end([])
        await settle()
        (got,) = read(wire.take(), "POST")
        assert got.headers["connection"] == "close"
        assert wire.closed
        assert first.cancelled is None


async def test_100_continue_is_sent_when_the_exchange_is_open() -> None:
    async with gate() as g:
        wire = g.connect()
        wire.send(b"POST /clusters/a/api HTTP/1.1\r\n" + HEADS + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        assert wire.take() == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert g.clusters.last.header(b"expect") == []
        wire.send(b"hello")
        g.clusters.last.sink.on_response(ResponseBlock(100, [], interim=True))
        g.clusters.last.respond(201)
        await settle()
        (got,) = read(wire.take(), "POST")
        assert (got.status, got.interims) == (201, [])
        wire.send(A)
        assert len(g.clusters.opened) == 2


async def test_no_100_continue_for_a_request_that_is_refused() -> None:
    async with gate() as g:
        wire = g.connect()
        wire.send(b"POST /clusters/a/api HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        (got,) = read(wire.take(), "POST")
        assert (got.status, got.interims, got.headers["connection"]) == (401, [], "close")


async def test_no_100_continue_when_the_body_is_here_already() -> None:
    async with gate() as g:
        wire = g.connect()
        wire.send(b"POST /clusters/a/api HTTP/1.1\r\n" + HEADS + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\nhi")
        assert wire.take() == b""
        assert g.clusters.last.sent == b"hi"


async def test_a_refused_request_whose_body_is_here_keeps_the_connection() -> None:
    async with gate() as g:
        wire = g.connect()
        wire.send(b"POST /clusters/a/api HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello" + A)
        assert len(g.clusters.opened) == 1
        g.clusters.last.respond(200, body=b"x")
        await settle()
        assert [got.status for got in read(wire.take(), "POST", "GET")] == [401, 200]


async def test_http_10_gets_one_answer_delimited_by_the_close() -> None:
    async with gate() as g:
        wire = g.connect()
        wire.send(b"GET /clusters/a/api HTTP/1.0\r\nConnection: keep-alive\r\n" + ALICE + b"\r\n")
        g.clusters.last.begin(200)
        g.clusters.last.sink.on_data(b"hello")
        g.clusters.last.sink.on_end([])
        await settle()
        assert wire.closed
        assert not wire.aborted
        (got,) = read(wire.take(), closed=True)
        assert got.body == b"hello"
        assert "transfer-encoding" not in got.headers
        assert got.headers["connection"] == "close"


async def test_connection_close_is_honoured() -> None:
    async with gate() as g:
        wire = g.connect()
        wire.send(A[:-2] + b"Connection: close\r\n\r\n")
        g.clusters.last.respond(200, body=b"x")
        await settle()
        (got,) = read(wire.take())
        assert got.headers["connection"] == "close"
        assert wire.closed


# --- time


async def test_a_slow_head_is_given_up() -> None:
    async with gate() as g:
        wire = g.connect()
        wire.send(A[:10])
        for _ in range(9):
            g.pass_time(1.0)
            wire.send(A[10:11])
        assert not wire.take()
        g.pass_time(1.5)
        (got,) = read(wire.take())
        assert (got.status, got.headers["connection"]) == (408, "close")
        g.pass_time(3.0)
        assert wire.closed


async def test_an_idle_connection_is_closed() -> None:
    async with gate(timeouts=DoorTimeouts(idle=60.0)) as g:
        fresh, used = g.connect(), g.connect()
        used.send(A)
        g.pass_time(59.0)
        g.clusters.last.respond(200, body=b"x")
        g.pass_time(2.0)
        assert fresh.closed
        assert not used.closed
        g.pass_time(60.0)
        assert used.closed


async def test_who_was_never_authenticated_may_not_idle() -> None:
    async with gate() as g:
        fresh, stranger, user = g.connect(), g.connect(), g.connect()
        stranger.send(NOBODY)
        user.send(A)
        g.clusters.last.respond(200, body=b"x")
        g.pass_time(9.0)
        assert not fresh.closed
        assert not stranger.closed
        g.pass_time(1.5)
        assert fresh.closed
        assert stranger.closed
        assert not user.closed
        g.pass_time(160.0)
        assert not user.closed
        g.pass_time(10.0)
        assert user.closed


async def test_waiting_for_an_answer_is_not_idle() -> None:
    async with gate() as g:
        wire = g.connect()
        wire.send(A)
        g.pass_time(10_000.0)
        assert not wire.closed


async def test_a_body_without_progress_is_given_up() -> None:
    async with gate() as g:
        wire = g.connect()
        wire.send(b"POST /clusters/a/api HTTP/1.1\r\n" + HEADS + b"Content-Length: 9\r\n\r\n")
        for _ in range(3):
            g.pass_time(50.0)
            wire.send(b"x")
        g.pass_time(61.0)
        await settle()
        (got,) = read(wire.take(), "POST")
        assert (got.status, got.headers["connection"]) == (408, "close")
        assert g.clusters.last.cancelled is not None
        assert not g.clusters.last.ended


async def test_a_body_that_we_do_not_read_makes_no_progress_by_our_own_fault() -> None:
    async with gate() as g:
        wire = g.connect()
        wire.send(b"POST /clusters/a/api HTTP/1.1\r\n" + HEADS + b"Content-Length: 9\r\n\r\n")
        g.clusters.last.room = False
        wire.send(b"x")
        assert not wire.reading
        g.pass_time(500.0)
        assert not wire.take()
        g.clusters.last.sink.on_writable()
        assert wire.reading
        g.pass_time(61.0)
        await settle()
        assert read(wire.take(), "POST")[0].status == 408


# --- bounds and ends


async def test_too_many_connections_are_not_taken_in() -> None:
    async with gate(limits=DoorLimits(connections=2)) as g:
        first, _ = g.connect(), g.connect()
        refused = g.connect()
        assert refused.aborted
        refused.send(A)
        refused.lose()
        assert not g.clusters.opened
        first.lose()
        assert not g.connect().aborted
        assert (g.door.counts.accepted, g.door.counts.refused) == (3, 1)


async def test_draining_closes_idle_connections_and_others_after_their_answer() -> None:
    async with gate() as g:
        idle, busy, streaming = g.connect(), g.connect(), g.connect()
        busy.send(A)
        first = g.clusters.last
        streaming.send(A)
        second = g.clusters.last
        second.begin(200)
        g.door.drain()
        assert idle.closed
        assert g.connect().aborted
        first.respond(200, body=b"x")
        second.sink.on_data(b"y")
        second.sink.on_end([])
        await settle()
        assert read(busy.take())[0].headers["connection"] == "close"
        assert read(streaming.take())[0].body == b"y"
        assert busy.closed
        assert not streaming.closed, "nobody has told it of the end"
        g.pass_time(1)
        assert streaming.closed


async def test_everything_of_a_turn_leaves_in_one_write() -> None:
    async with gate() as g:
        wire = g.connect()
        wire.send(NOBODY * 3)
        assert wire.writes == 1
        wire.send(A)
        with g.door.batch:
            g.clusters.last.begin(200)
            for _ in range(5):
                g.clusters.last.sink.on_data(b"x")
            g.clusters.last.sink.on_end([])
        assert wire.writes == 2


# --- smuggling and limits


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"POST /clusters/a/x HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"POST /clusters/a/x HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", 400),
        (b"POST /clusters/a/x HTTP/1.1\r\nHost: x\r\nContent-Length: 5, 5\r\n\r\n", 400),
        (b"POST /clusters/a/x HTTP/1.1\r\nHost: x\r\nContent-Length: +5\r\n\r\n", 400),
        (b"POST /clusters/a/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n", 400),
        (b"POST /clusters/a/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked\r\n\r\n", 400),
        (b"POST /clusters/a/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, identity\r\n\r\n", 400),
        (b"GET /clusters/a/x HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400),
        (b"GET /clusters/a/x HTTP/1.1\r\n\r\n", 400),
        (b"GET /clusters/a/x HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n", 400),
        (b"GET /clusters/a/x HTTP/1.1\r\nHost: x\r\nA b: c\r\n\r\n", 400),
        (b"GET /clusters/a/x HTTP/1.1\nHost: x\n\n", 400),
        (b"GET /clusters/a/x HTTP/2.0\r\nHost: x\r\n\r\n", 505),
        (b"CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n", 501),
        (b"TRACE / HTTP/1.1\r\nHost: x\r\n\r\n", 501),
        (b"GET http://x/clusters/a HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: a\x00b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 1\r\n\r\n", 400),
        (b"GET /" + b"x" * 17_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 70_000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 250 + b"\r\n", 431),
        (b"\x16\x03\x01\x02\x00", 400),
    ],
)
async def test_what_could_be_read_in_two_ways_ends_the_connection(request_: bytes, status: int) -> None:
    async with gate() as g:
        wire = g.connect()
        wire.send(request_ + A)
        (got,) = read(wire.take())
        assert (got.status, got.headers["connection"]) == (status, "close")
        assert got.json["kind"] == "Status"
        wire.send(A)
        assert not g.clusters.opened
        assert not wire.take()
        g.pass_time(3.0)
        assert wire.closed


@pytest.mark.parametrize(
    "body",
    [b"5;ext=1\r\nhello\r\n0\r\n\r\n", b"5\nhello\n0\n\n", b"0x5\r\nhello\r\n0\r\n\r\n", b"5\r\nhello!\r\n0\r\n\r\n"],
)
async def test_a_malformed_chunk_never_ends_a_body_upstream(body: bytes) -> None:
    async with gate() as g:
        wire = g.connect()
        wire.send(b"POST /clusters/a/api HTTP/1.1\r\n" + HEADS + b"Transfer-Encoding: chunked\r\n\r\n" + body + A)
        assert len(g.clusters.opened) == 1
        assert not g.clusters.last.ended
        assert g.clusters.last.cancelled is not None
        (got,) = read(wire.take(), "POST")
        assert (got.status, got.headers["connection"]) == (400, "close")

"""What comes while nobody takes it is held up to a bound, and then not read; nothing of it is lost for that."""

from __future__ import annotations

from typing import Any

from gateway.connection import ClientConnection
from gateway.limits import DoorLimits, DoorTimeouts
from tests.gateway.answers import read
from tests.gateway.gate import HEADS, gate, settle
from tests.gateway.test_answering import request
from tests.gateway.test_connection import NOBODY, POST, A
from tests.gateway.wire import Wire


async def test_what_is_pipelined_is_bounded() -> None:
    async with gate(limits=DoorLimits(held=1000)) as g:
        wire = g.connect()
        wire.send(A)
        wire.send(NOBODY * 10)
        assert wire.reading
        wire.send(NOBODY * 20)
        assert not wire.reading
        g.clusters.last.respond(200, body=b"x")
        await settle()
        assert wire.reading
        assert len(read(wire.take(), *["GET"] * 31)) == 31


async def test_an_exchange_that_is_full_stops_the_reading_of_its_client() -> None:
    async with gate() as g:
        wire = g.connect()
        wire.send(b"POST /clusters/a/api HTTP/1.1\r\n" + HEADS + b"Content-Length: 1000000\r\n\r\n")
        exchange = g.clusters.last
        exchange.room = False
        wire.send(b"x" * 100)
        assert not wire.reading
        exchange.room = True
        exchange.sink.on_writable()
        assert wire.reading
        wire.send(b"x" * 100)
        assert len(exchange.sent) == 200


async def test_a_full_exchange_that_ends_does_not_leave_its_connection_deaf() -> None:
    async with gate() as g:
        wire = g.connect()
        wire.send(b"POST /clusters/a/api HTTP/1.1\r\n" + HEADS + b"Content-Length: 3\r\n\r\n")
        exchange = g.clusters.last
        exchange.room = False
        wire.send(b"xyz")
        assert not wire.reading
        exchange.respond(200, body=b"ok")
        assert wire.reading
        wire.send(request())
        assert len(g.clusters.opened) == 2


# --- a transport that is full


class Narrow(Wire):
    """A transport that is full at its high-water mark."""

    def write(self, data: Any) -> None:
        super().write(data)
        if len(self.received) >= (self.high or 0) and not self.stalled:
            self.stall()


async def test_the_next_request_waits_for_a_client_that_does_not_read() -> None:
    async with gate() as g:
        wire = g.connect()
        wire.send(NOBODY)
        wire.stall()
        wire.send(NOBODY + A + NOBODY)
        assert len(read(wire.take(), *["GET"] * 2)) == 2  # one that had begun, as it were
        assert not g.clusters.opened
        assert not wire.reading
        wire.unstall()
        assert wire.reading
        assert len(g.clusters.opened) == 1
        g.clusters.last.respond(200, body=b"x")
        await settle()
        assert [got.status for got in read(wire.take(), "GET", "GET")] == [200, 401]


async def test_a_body_that_is_skipped_waits_too() -> None:
    async with gate() as g:
        wire = g.connect()
        wire.stall()
        wire.send(b"POST /clusters/a/api HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello" + POST)
        assert not g.clusters.opened
        wire.unstall()
        assert g.clusters.last.sent == b"hello"


async def test_answers_of_one_input_are_gathered_up_to_a_bound() -> None:
    async with gate() as g:
        wire = Narrow(lambda: ClientConnection(g.door))
        wire.send(NOBODY * 2000)
        assert len(wire.received) < 3 * 64 * 1024
        assert not wire.reading
        answers = b""
        for _ in range(200):
            answers += wire.take()
            if not wire.stalled:
                break
            wire.unstall()
        assert wire.reading
        assert answers.count(b"HTTP/1.1 401 ") == 2000


async def test_a_client_that_never_reads_on_is_closed_in_time() -> None:
    async with gate(timeouts=DoorTimeouts(idle=60.0)) as g:
        stranger, user = g.connect(), g.connect()
        stranger.stall()
        stranger.send(NOBODY * 2)
        user.send(A)
        user.stall()
        g.clusters.last.respond(200, body=b"x")
        assert not stranger.reading
        assert not user.reading
        g.pass_time(9.0)
        assert not stranger.closed
        g.pass_time(1.5)
        assert stranger.closed
        g.pass_time(49.0)
        assert not user.closed
        g.pass_time(1.0)
        assert user.closed

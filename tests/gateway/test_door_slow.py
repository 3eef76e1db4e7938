"""Clients that do not read, or are not read: what waits for them is bounded, and nothing of theirs is lost for it."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from gateway.connection import ClientConnection
from gateway.limits import DoorTimeouts
from tests.gateway.answers import read
from tests.gateway.gate import HEADS, gate, settle
from tests.gateway.test_connection import NOBODY, POST, A
from tests.gateway.wire import Wire

UPGRADE = b"GET /clusters/a/api/v1/x HTTP/1.1\r\n" + HEADS + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
ESTABLISHED, CLOSE, CLOSE_WAIT = 1, 7, 8


class Kernel:
    """A socket whose TCP_INFO is the test's."""

    def __init__(self) -> None:
        self.state, self.unacked, self.acked, self.unsent = ESTABLISHED, 0, 0, 0

    def getsockopt(self, level: int, option: int, size: int) -> bytes:
        fields = struct.pack("=B23xI92xQ16xI", self.state, self.unacked, self.acked, self.unsent)
        return (fields + bytes(64))[:size]


class Narrow(Wire):
    """A transport that is full at its high-water mark."""

    def write(self, data: Any) -> None:
        super().write(data)
        if len(self.received) >= (self.high or 0) and not self.stalled:
            self.stall()


# --- a transport that is full


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


# --- strangers


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


# --- the tail of what was written


async def test_a_tail_lasts_as_long_as_it_is_read() -> None:
    async with gate() as g:
        kernel = Kernel()
        kernel.unsent = 100
        wire = g.connect(socket=kernel)
        wire.send(A[:-2] + b"Connection: close\r\n\r\n")
        g.clusters.last.respond(200, body=b"x")
        await settle()
        assert wire.closed
        for _ in range(5):
            kernel.acked += 1
            for _ in range(29):
                g.pass_time(1.0)
        assert not wire.aborted
        g.pass_time(1.0)
        g.pass_time(1.0)
        assert wire.aborted


async def test_who_has_all_of_it_and_does_not_close_is_ended_sooner() -> None:
    async with gate() as g:
        wire = g.connect(socket=Kernel())
        wire.send(A[:-2] + b"Connection: close\r\n\r\n")
        g.clusters.last.respond(200, body=b"x")
        await settle()
        g.pass_time(1.0)
        g.pass_time(1.0)
        assert not wire.aborted
        g.pass_time(1.0)
        assert wire.aborted


# --- the end of a client that is not read


@pytest.mark.parametrize("state", [CLOSE, CLOSE_WAIT])
async def test_the_end_of_a_paused_client_takes_its_exchange_with_it(state: int) -> None:
    async with gate() as g:
        kernel = Kernel()
        wire = g.connect(socket=kernel)
        wire.send(b"POST /clusters/a/api HTTP/1.1\r\n" + HEADS + b"Content-Length: 9\r\n\r\n")
        g.clusters.last.room = False
        wire.send(b"x")
        g.pass_time(1.0)
        assert g.clusters.last.cancelled is None
        kernel.state = state
        g.pass_time(1.0)
        assert g.clusters.last.cancelled is not None
        assert wire.aborted
        wire.lose()
        assert not g.door.connections


async def test_the_last_bytes_of_a_hijacked_stream_go_on_while_somebody_takes_them() -> None:
    async with gate() as g:
        kernel = Kernel()
        wire = g.connect(socket=kernel)
        wire.send(UPGRADE)
        stream = g.clusters.last
        stream.switch()
        stream.room = False
        wire.send(b"x")
        assert not wire.reading
        kernel.state = CLOSE_WAIT
        g.pass_time(1.0)
        g.pass_time(9.0)
        stream.sink.on_writable()
        assert wire.reading
        wire.send(b"y")
        assert not wire.reading
        g.pass_time(9.0)
        assert stream.cancelled is None
        assert stream.sent == b"xy"
        g.pass_time(1.5)
        assert stream.cancelled is not None
        assert wire.aborted


async def test_a_reset_ends_a_hijacked_stream_at_once() -> None:
    async with gate() as g:
        kernel = Kernel()
        wire = g.connect(socket=kernel)
        wire.send(UPGRADE)
        g.clusters.last.switch()
        g.clusters.last.room = False
        wire.send(b"x")
        kernel.state = CLOSE
        g.pass_time(1.0)
        assert g.clusters.last.cancelled is not None

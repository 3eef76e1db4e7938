"""How connections end, from either side: what was written is read first, and nothing is left behind."""

from __future__ import annotations

import struct

import pytest

from gateway.limits import DoorLimits
from tests.gateway.answers import read
from tests.gateway.gate import ALICE, HEADS, gate, settle
from tests.gateway.test_connection import HEALTH, POST, A
from tests.gateway.wire import Wire
from tunnel.errors import Hop, Reason

UPGRADE = b"GET /clusters/a/api/v1/x HTTP/1.1\r\n" + HEADS + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
ESTABLISHED, CLOSE, CLOSE_WAIT = 1, 7, 8


async def test_an_early_413_stops_the_upload_and_reaches_the_client() -> None:
    async with gate(limits=DoorLimits(discarded=1000)) as g:
        wire = g.connect()
        wire.send(b"POST /clusters/a/api HTTP/1.1\r\n" + HEADS + b"Content-Length: 1000000\r\n\r\n" + b"x" * 500)
        first = g.clusters.last
        first.respond(413, body=b"too large")
        await settle()
        assert first.cancelled is not None
        assert first.cancelled[:2] == (Hop.GATEWAY, Reason.STOPPED)
        (got,) = read(wire.take(), "POST")
        assert (got.status, got.body, got.headers["connection"]) == (413, b"too large", "close")
        assert not wire.closed  # closing now could lose the answer
        wire.send(b"x" * 1000 + A)
        assert first.sent == b"x" * 500
        assert len(g.clusters.opened) == 1
        assert wire.closed


async def test_lingering_ends_in_time() -> None:
    async with gate() as g:
        wire = g.connect()
        wire.send(b"POST /clusters/a/api HTTP/1.1\r\n" + HEADS + b"Content-Length: 9\r\n\r\n")
        g.clusters.last.respond(413)
        await settle()
        g.pass_time(1.0)
        assert not wire.closed
        g.pass_time(1.5)
        assert wire.closed


@pytest.mark.parametrize("request_", [A, POST[:-2], HEALTH], ids=["waiting", "in its body", "management"])
async def test_a_client_that_goes_takes_its_exchange_with_it(request_: bytes) -> None:
    async with gate() as g:
        for leave in (Wire.eof, Wire.lose):
            wire = g.connect()
            wire.send(request_)
            leave(wire)
            if g.clusters.opened:
                assert g.clusters.last.cancelled is not None
                assert g.clusters.last.cancelled[:2] == (Hop.CLIENT, Reason.CANCELLED)
        await settle()
        assert not g.door.connections
        assert g.traffic.in_flight == 0


async def test_a_body_until_close_that_broke_off_is_no_clean_close() -> None:
    async with gate() as g:
        wire = g.connect()
        wire.send(b"GET /clusters/a/api HTTP/1.0\r\n" + ALICE + b"\r\n")
        g.clusters.last.begin(200)
        g.clusters.last.sink.on_data(b"hel")
        g.clusters.last.reset(Hop.STUB, Reason.LINK_LOST)
        assert wire.aborted


async def test_aborting_cancels_what_is_left() -> None:
    async with gate() as g:
        wire = g.connect()
        wire.send(A)
        g.door.abort()
        assert g.clusters.last.cancelled is not None
        assert wire.aborted


# --- the tail of what was written


class Kernel:
    """A socket whose TCP_INFO is the test's."""

    def __init__(self) -> None:
        self.state, self.unacked, self.acked, self.unsent = ESTABLISHED, 0, 0, 0

    def getsockopt(self, level: int, option: int, size: int) -> bytes:
        fields = struct.pack("=B23xI92xQ16xI", self.state, self.unacked, self.acked, self.unsent)
        return (fields + bytes(64))[:size]


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

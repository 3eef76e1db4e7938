"""A server that leaves: its clients are told before their connections are closed, and no request meets a close."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from gateway.passage import KEPT
from stub.errors import Draining
from stub.peers.errors import NotOpened
from tests.gateway.answers import read
from tests.gateway.gate import Gate, gate, settle
from tests.gateway.test_pipeline import get
from tunnel.errors import Hop, Reason

POD = b"/clusters/a/api/v1/namespaces/x/pods/p"
JSON = [(b"content-type", b"application/json")]


@pytest.fixture
async def g() -> AsyncIterator[Gate]:
    async with gate(transient=(Draining,), awaited=15.0) as made:
        yield made


async def test_each_answer_says_so_while_everybody_is_served_still(g: Gate) -> None:
    idle, wire = g.connect(), g.connect()
    g.door.leave()
    wire.send(get(POD))
    g.clusters.last.respond(200, body=b"x")
    await settle()
    assert read(wire.received)[0].headers["connection"] == "close"
    assert wire.closed
    assert not idle.closed
    late = g.connect()
    late.send(get(POD))
    g.clusters.last.respond(200, body=b"x")
    await settle()
    assert read(late.received)[0].status == 200


async def test_who_was_not_told_is_served_once_more(g: Gate) -> None:
    """A watch that is ended: its client asks again on the same connection, at once."""
    wire = g.connect()
    wire.send(get(b"/clusters/a/api/v1/pods?watch=1"))
    g.clusters.last.begin(headers=JSON)
    g.door.drain()
    g.pass_time(1)
    await settle()
    assert wire.take().endswith(b"0\r\n\r\n")
    wire.send(get(POD))
    g.clusters.last.respond(200, body=b"x")
    await settle()
    assert read(wire.received)[0].headers["connection"] == "close"
    assert wire.closed


def _given_back(g: Gate) -> None:
    g.clusters.last.sink.on_reset(NotOpened(Hop.STUB, Reason.DRAINING, "not sent"))


async def test_a_body_that_another_replica_gives_back_is_sent_again_whole(g: Gate) -> None:
    wire = g.connect()
    g.clusters.agent = ""  # which one serves it, the other replica will tell
    wire.send(get(POD, method=b"PUT", more=b"Content-Length: 8\r\n") + b"body")
    wire.send(b"body")
    _given_back(g)
    await settle()
    assert not wire.received
    g.arrivals.moved()
    await settle()
    again = g.clusters.last
    assert (again.sent, again.ended, again.head.ended) == (b"bodybody", True, False)
    again.respond(200, body=b"x")
    await settle()
    assert read(wire.received, "PUT")[0].status == 200
    assert len(g.clusters.opened) == 2


@pytest.mark.parametrize("size", [8, 2 * KEPT], ids=["not all of it has come", "too long to be kept"])
async def test_another_body_is_the_clients_to_send_again(size: int, g: Gate) -> None:
    wire = g.connect()
    g.clusters.agent = ""
    wire.send(get(POD, method=b"PUT", more=b"Content-Length: %d\r\n" % size) + b"x" * (size if size > KEPT else 4))
    _given_back(g)
    await settle()
    (got,) = read(wire.received, "PUT")
    assert (got.status, got.headers["retry-after"]) == (503, "1")
    assert len(g.clusters.opened) == 1

"""A server that leaves: its clients are told before their connections are closed, and no request meets a close."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from stub.errors import Draining
from tests.gateway.answers import read
from tests.gateway.gate import Gate, gate, settle
from tests.gateway.test_pipeline import get

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

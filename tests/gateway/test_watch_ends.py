"""A server that shuts down ends watches between two events, so that clients go on elsewhere with nothing missed."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.gateway.answers import read
from tests.gateway.gate import Gate, gate, settle
from tests.gateway.test_pipeline import get
from tunnel.errors import Hop, Reason

WATCH = get(b"/clusters/a/api/v1/pods?watch=1")
LOGS = get(b"/clusters/a/api/v1/namespaces/x/pods/p/log?follow=1")


@pytest.fixture
async def g() -> AsyncIterator[Gate]:
    async with gate() as made:
        yield made


async def test_a_quiet_watch_ends_whole_when_the_server_drains(g: Gate) -> None:
    wire = g.connect()
    wire.send(WATCH)
    g.clusters.last.begin()
    g.clusters.last.sink.on_data(b'{"type":"ADDED"}\n')
    g.door.drain()
    g.pass_time(1)
    assert not wire.received.endswith(b"0\r\n\r\n")  # something came since the last look
    g.pass_time(1)
    await settle()
    (got,) = read(wire.received)
    assert got.body == b'{"type":"ADDED"}\n'
    assert g.clusters.last.cancelled is not None
    g.pass_time(1)
    assert wire.closed


async def test_a_watch_whose_event_is_under_way_goes_on(g: Gate) -> None:
    wire = g.connect()
    wire.send(WATCH)
    g.clusters.last.begin()
    g.door.drain()
    for _ in range(3):
        g.clusters.last.sink.on_data(b"half an event")
        g.pass_time(1)
    assert not wire.closed


async def test_a_busy_watch_ends_behind_a_whole_line(g: Gate) -> None:
    wire = g.connect()
    wire.send(WATCH)
    g.clusters.last.begin(headers=[(b"content-type", b"application/json")])
    g.door.drain()
    for half in (b'{"type"', b':"ADDED"}\n'):
        g.clusters.last.sink.on_data(half)
        g.pass_time(1)
    await settle()
    (got,) = read(wire.received)
    assert got.body == b'{"type":"ADDED"}\n'
    g.pass_time(1)
    assert wire.closed


async def test_half_an_event_of_a_replica_that_drains_does_not_pass_for_whole(g: Gate) -> None:
    wire = g.connect()
    wire.send(WATCH)
    g.clusters.last.begin(headers=[(b"content-type", b"application/json")])
    g.clusters.last.sink.on_data(b'{"type":"AD')
    g.clusters.last.reset(Hop.STUB, Reason.DRAINING)
    await settle()
    assert not wire.received.endswith(b"0\r\n\r\n")
    assert wire.closed


async def test_followed_logs_and_what_has_not_begun_go_on(g: Gate) -> None:
    logs, waiting = g.connect(), g.connect()
    logs.send(LOGS)
    g.clusters.last.begin()
    waiting.send(WATCH)
    g.door.drain()
    g.pass_time(1)
    g.pass_time(1)
    assert not logs.closed
    assert not waiting.closed


async def test_a_watch_through_a_replica_that_drains_ends_whole(g: Gate) -> None:
    wire = g.connect()
    wire.send(WATCH)
    g.clusters.last.begin()
    g.clusters.last.sink.on_data(b'{"type":"ADDED"}\n')
    g.clusters.last.reset(Hop.STUB, Reason.DRAINING)
    await settle()
    (got,) = read(wire.received)
    assert got.body == b'{"type":"ADDED"}\n'
    assert not wire.closed


@pytest.mark.parametrize("hop", [Hop.AGENT, Hop.APISERVER])
async def test_an_agents_word_for_it_cuts_it(g: Gate, hop: Hop) -> None:
    wire = g.connect()
    wire.send(WATCH)
    g.clusters.last.begin()
    g.clusters.last.reset(hop, Reason.DRAINING)
    await settle()
    assert not wire.received.endswith(b"0\r\n\r\n")
    assert wire.closed or wire.aborted

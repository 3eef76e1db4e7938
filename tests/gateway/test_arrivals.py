"""Requests for clusters whose agents are on their way: who waits, for how long, and what those get who may not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from auth.grants.grants import Decisions, Grants
from gateway import arrivals
from stub.errors import Draining, NoAgent, Unheld
from stub.peers.errors import NotOpened
from tests.gateway.answers import read
from tests.gateway.gate import Gate, gate, settle
from tests.gateway.test_pipeline import get
from tunnel.errors import Hop, Reason

POD = b"/clusters/a/api/v1/namespaces/x/pods/p"
PODS = b"/clusters/a/api/v1/pods"


@pytest.fixture
async def g() -> AsyncIterator[Gate]:
    async with gate(transient=(Unheld, Draining), awaited=15.0) as made:
        made.time[0] += 60.0  # long after the start, at which every agent is expected
        yield made


def _nobody(g: Gate, times: int = 1) -> None:
    g.clusters.refuse += [Unheld("a", "on its way")] * times


@pytest.mark.parametrize("method", [b"GET", b"DELETE"])
async def test_a_request_for_a_cluster_on_its_way_is_served_when_an_agent_is_there(g: Gate, method: bytes) -> None:
    wire = g.connect()
    _nobody(g)
    wire.send(get(POD, method=method))
    await settle()
    assert not wire.received
    g.arrivals.changed("a", 1)
    await settle()
    g.clusters.last.respond(200, body=b"there")
    await settle()
    (got,) = read(wire.received, method.decode())
    assert (got.status, got.body) == (200, b"there")


async def test_a_body_waits_with_its_request(g: Gate) -> None:
    wire = g.connect()
    _nobody(g)
    wire.send(get(POD, method=b"PUT", more=b"Content-Length: 4\r\n") + b"body")
    await settle()
    g.arrivals.moved()
    await settle()
    assert (g.clusters.last.sent, g.clusters.last.ended) == (b"body", True)


async def test_nobody_waits_longer_than_his_patience(g: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrivals, "STEP", 0.01)
    wire = g.connect()
    _nobody(g, 50)
    wire.send(get(POD))
    await settle()
    g.time[0] += arrivals.PATIENCE
    await asyncio.sleep(0.05)
    (got,) = read(wire.received)
    assert (got.status, got.json["reason"], got.headers["retry-after"]) == (503, "ServiceUnavailable", "1")
    assert "No agent of cluster a is to be reached just now" in got.json["message"]


async def test_after_a_move_it_is_looked_again_soon_since_another_replicas_agents_are_not_heard_of(g: Gate) -> None:
    g.arrivals.moved()
    wire = g.connect()
    wire.send(get(POD))
    g.clusters.last.sink.on_reset(NotOpened(Hop.STUB, Reason.UNREACHABLE, "no agent there yet"))
    await asyncio.sleep(0.3)
    assert len(g.clusters.opened) == 2


async def test_an_agent_that_went_long_ago_is_not_waited_for(g: Gate) -> None:
    g.arrivals.changed("a", 0)
    g.time[0] += 20.0
    wire = g.connect()
    g.clusters.refuse.append(NoAgent("a", "none"))
    wire.send(get(POD))
    (got,) = read(wire.received)
    assert got.status == 503
    assert "retry-after" not in got.headers


async def test_an_agent_that_went_just_now_is(g: Gate) -> None:
    g.arrivals.changed("a", 0)
    wire = g.connect()
    g.clusters.refuse.append(NoAgent("a", "none"))
    wire.send(get(POD))
    await settle()
    assert not wire.received
    g.arrivals.changed("a", 1)
    await settle()
    assert len(g.clusters.opened) == 1


async def test_what_is_remembered_of_those_who_went_is_forgotten_in_time(g: Gate) -> None:
    for number in range(100):
        g.arrivals.changed(f"c{number}", 0)
        g.time[0] += 1.0
    assert len(g.arrivals._gone) <= 16


async def test_who_leaves_while_he_waits_opens_nothing(g: Gate) -> None:
    wire = g.connect()
    _nobody(g)
    wire.send(get(POD))
    await settle()
    wire.protocol.connection_lost(None)
    g.arrivals.changed("a", 1)
    await settle()
    assert not g.clusters.opened


@pytest.mark.parametrize(("target", "long"), [(POD, 0), (PODS + b"?watch=1", 1)], ids=["short", "long"])
@pytest.mark.parametrize("reason", [Reason.UNREACHABLE, Reason.DRAINING])
async def test_what_another_replica_did_not_send_is_decided_again(
    g: Gate, reason: Reason, target: bytes, long: int
) -> None:
    g.arrivals.changed("a", 0)
    wire = g.connect()
    wire.send(get(target, method=b"GET" if long else b"DELETE"))
    assert g.traffic.long_running == long
    g.clusters.last.sink.on_reset(NotOpened(Hop.STUB, reason, "not sent"))
    await settle()
    assert not wire.received
    assert (g.traffic.in_flight, g.traffic.long_running) == (1, 0)
    g.arrivals.changed("a", 1)
    await settle()
    g.clusters.last.respond(200, body=b"gone")
    await settle()
    assert read(wire.received)[0].status == 200
    assert len(g.clusters.opened) == 2
    assert (g.traffic.in_flight, g.traffic.long_running) == (0, 0)


async def test_a_body_that_has_begun_to_leave_is_not_sent_again(g: Gate) -> None:
    wire = g.connect()
    wire.send(get(POD, method=b"PUT", more=b"Content-Length: 4\r\n") + b"body")
    g.clusters.last.sink.on_reset(NotOpened(Hop.STUB, Reason.DRAINING, "not sent"))
    await settle()
    (got,) = read(wire.received, "PUT")
    assert (got.status, got.headers["retry-after"]) == (503, "1")
    assert len(g.clusters.opened) == 1


async def test_an_agents_own_refusal_is_no_word_of_a_replica(g: Gate) -> None:
    wire = g.connect()
    wire.send(get(POD, method=b"DELETE"))
    g.clusters.last.reset(Hop.AGENT, Reason.UNREACHABLE)
    await settle()
    assert read(wire.received, "DELETE")[0].status == 503
    assert len(g.clusters.opened) == 1


async def test_those_who_wait_for_agents_keep_nobody_from_being_known(g: Gate) -> None:
    settling = g.settling
    settling._awaited = 1
    first, second = g.connect(), g.connect()
    _nobody(g, 2)
    first.send(get(POD))
    second.send(get(POD))
    await settle()
    assert not first.received
    (got,) = read(second.received)
    assert (got.status, got.headers["retry-after"]) == (503, "1")
    assert not settling._requests


async def test_nor_do_those_whose_request_another_replica_gave_back(g: Gate) -> None:
    g.settling._most = 0
    g.arrivals.changed("a", 0)
    wire = g.connect()
    wire.send(get(POD))
    g.clusters.last.sink.on_reset(NotOpened(Hop.STUB, Reason.UNREACHABLE, "not sent"))
    await settle()
    assert not wire.received, "it waits among those who wait for agents"
    assert len(g.settling._arriving) == 1


async def test_whose_grant_is_taken_away_while_he_waits_is_recorded_as_refused(g: Gate) -> None:
    wire = g.connect()
    _nobody(g)
    wire.send(get(POD))
    await settle()
    g.access._grants = Decisions(Grants([]))
    g.arrivals.changed("a", 1)
    await settle()
    assert read(wire.received)[0].status == 403
    assert g.audit.events[-1]["annotations"]["kulvert.dev/decision"] == "forbid"

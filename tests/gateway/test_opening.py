"""What becomes of a request when its exchange cannot be opened, or fails before an answer: tried again, or told."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from gateway.passage import KEPT
from stub.errors import Draining, NoAgent, SessionOverloaded, StubError
from stub.peers.errors import NotOpened
from tests.gateway.answers import read
from tests.gateway.gate import Gate, gate, settle
from tests.gateway.test_pipeline import get
from tunnel.errors import Hop, Reason

POD = b"/clusters/a/api/v1/namespaces/x/pods/p"
LOST = (Reason.LINK_LOST, Reason.UNACKNOWLEDGED, Reason.DRAINING, Reason.STALE_EPOCH)


@pytest.mark.parametrize(
    ("refusal", "status", "retry_after"),
    [
        (NoAgent("a", "no agent"), 503, None),
        (SessionOverloaded("a", "full"), 429, "1"),
        (Draining("a", "going"), 503, "1"),
        (StubError("a", "other"), 503, "1"),
    ],
)
async def test_what_the_stub_refuses_never_left_it(refusal: StubError, status: int, retry_after: str | None) -> None:
    async with gate() as g:
        g.clusters.refuse.append(refusal)
        wire = g.connect()
        wire.send(get(b"/clusters/a/api") + get(b"/clusters/a/api"))
        g.clusters.last.respond(200, body=b"next")
        await settle()
        got, after = read(wire.take(), "GET", "GET")
        assert (got.status, got.headers.get("retry-after"), after.body) == (status, retry_after, b"next")


@pytest.mark.parametrize(
    ("hop", "reason", "status", "words"),
    [
        (Hop.STUB, Reason.LINK_LOST, 502, "lost in mid-request; whether the request took effect is unknown"),
        (Hop.STUB, Reason.UNACKNOWLEDGED, 503, "the request was not sent"),
        (Hop.AGENT, Reason.UNACKNOWLEDGED, 504, "unknown"),
        (Hop.AGENT, Reason.UNREACHABLE, 503, "cannot reach its API server"),
        (Hop.AGENT, Reason.TLS, 503, "cannot reach its API server"),
        (Hop.APISERVER, Reason.TIMEOUT, 504, "did not answer in time"),
        (Hop.APISERVER, Reason.BAD_RESPONSE, 502, "malformed"),
        (Hop.APISERVER, Reason.UPSTREAM_CLOSED, 502, "broke off"),
        (Hop.AGENT, Reason.REFUSED_HEAD, 403, "its own policy"),
        (Hop.AGENT, Reason.PROTECTED_IDENTITY, 403, "its own policy"),
        (Hop.AGENT, Reason.OVERLOADED, 429, "at once"),
        (Hop.AGENT, Reason.DRAINING, 503, "shutting down"),
        (Hop.AGENT, Reason.STALE_EPOCH, 503, "try again"),
        (Hop.AGENT, Reason.TOO_LARGE, 413, "body"),
        (Hop.AGENT, Reason.INTERNAL, 500, "audit id"),
    ],
)
async def test_each_reset_before_an_answer_is_a_status(hop: Hop, reason: Reason, status: int, words: str) -> None:
    async with gate() as g:
        wire = g.connect()
        wire.send(get(b"/clusters/a/api/v1/pods", method=b"POST", more=b"Content-Length: 0\r\n"))
        g.clusters.last.reset(hop, reason, "the detail")
        await settle()
        (got,) = read(wire.take(), "POST")
        assert got.status == status
        assert words in got.message
        assert got.hop == hop.name.lower()
        assert "retry-after" not in got.headers  # the head may have arrived, and client-go would repeat it
        assert not wire.closed
        assert g.traffic.resets == {(hop, reason): 1}


# --- a second time


@pytest.mark.parametrize("reason", LOST)
@pytest.mark.parametrize("target", [b"/api/v1/pods", b"/api/v1/namespaces/n/pods/p"])
async def test_a_read_is_sent_once_more(target: bytes, reason: Reason) -> None:
    async with gate() as g:
        wire = g.connect()
        wire.send(get(b"/clusters/a" + target))
        first = g.clusters.last
        first.reset(Hop.STUB, reason)
        assert len(g.clusters.opened) == 2
        assert g.clusters.last.head is first.head
        g.clusters.last.respond(200, body=b"second")
        await settle()
        assert read(wire.take())[0].body == b"second"
        assert g.traffic.retries == 1


async def test_a_read_is_not_sent_a_third_time() -> None:
    async with gate() as g:
        wire = g.connect()
        wire.send(get(b"/clusters/a/api/v1/pods"))
        for _ in range(2):
            g.clusters.last.reset(Hop.STUB, Reason.LINK_LOST)
        await settle()
        assert len(g.clusters.opened) == 2
        assert read(wire.take())[0].status == 502


async def test_without_another_agent_the_first_failure_is_told() -> None:
    async with gate() as g:
        wire = g.connect()
        wire.send(get(b"/clusters/a/api/v1/pods"))
        g.clusters.refuse.append(NoAgent("a", "none"))
        g.clusters.last.reset(Hop.STUB, Reason.LINK_LOST)
        await settle()
        assert read(wire.take())[0].status == 502


@pytest.mark.parametrize(
    ("target", "method", "more", "reason"),
    [
        (b"/api/v1/pods", b"POST", b"Content-Length: 0\r\n", Reason.LINK_LOST),
        (b"/api/v1/pods/p", b"DELETE", b"", Reason.LINK_LOST),
        (b"/api/v1/pods?watch=1", b"GET", b"", Reason.LINK_LOST),
        (b"/api/v1/namespaces/n/pods/p/log", b"GET", b"", Reason.LINK_LOST),
        (b"/api/v1/namespaces/n/services/s/proxy/", b"GET", b"", Reason.LINK_LOST),
        (
            b"/api/v1/namespaces/n/pods/p/exec",
            b"GET",
            b"Connection: upgrade\r\nUpgrade: websocket\r\n",
            Reason.LINK_LOST,
        ),
        (b"/api/v1/pods", b"GET", b"", Reason.UPSTREAM_CLOSED),
    ],
)
async def test_nothing_else_is_sent_again(target: bytes, method: bytes, more: bytes, reason: Reason) -> None:
    async with gate() as g:
        g.connect().send(get(b"/clusters/a" + target, method=method, more=more))
        g.clusters.last.reset(Hop.STUB, reason)
        await settle()
        assert len(g.clusters.opened) == 1


async def test_nothing_is_sent_again_after_an_answer_has_begun() -> None:
    async with gate() as g:
        wire = g.connect()
        wire.send(get(b"/clusters/a/api/v1/pods"))
        g.clusters.last.begin(200)
        g.clusters.last.reset(Hop.STUB, Reason.LINK_LOST)
        await settle()
        assert len(g.clusters.opened) == 1
        assert wire.closed


# --- what another replica gives back


@pytest.fixture
async def g() -> AsyncIterator[Gate]:
    async with gate(transient=(Draining,), awaited=15.0) as made:
        yield made


def _given_back(g: Gate, reason: Reason = Reason.DRAINING) -> None:
    g.clusters.last.sink.on_reset(NotOpened(Hop.STUB, reason, "not sent"))


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


async def test_whose_agent_is_on_its_way_is_told_to_send_it_again_soon(g: Gate) -> None:
    """Where agents are gone for good, there is no Retry-After: see gateway.failures."""
    g.arrivals.changed("a", 0)
    wire = g.connect()
    wire.send(get(POD, method=b"PUT", more=b"Content-Length: 8\r\n") + b"body")
    _given_back(g, Reason.UNREACHABLE)
    await settle()
    (got,) = read(wire.received, "PUT")
    assert (got.status, got.headers["retry-after"]) == (503, "1")

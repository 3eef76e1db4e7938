"""Exchanges over real connections between two replicas, with a real agent behind the holder."""

from __future__ import annotations

import asyncio
import os

import pytest
from structlog.testing import capture_logs

from stub.errors import AgentSilent, Draining, NoAgent, SessionOverloaded, StubError
from stub.ownership import Place
from stub.peers.errors import NotOpened
from stub.peers.holding import held_here
from tests.stub.peers.api import TRAILERS
from tests.stub.peers.conftest import Site
from tests.stub.peers.replicas import CLUSTER, LIMITS, ask, send, two, until
from tunnel.errors import HeadError, Hop, Reason
from tunnel.limits import KIB, MIB
from tunnel.ports import Exchange, Headers, RequestBlock, ResponseSink

AUDIT = (b"audit-id", b"0123-4567")


def get(path: bytes, *headers: tuple[bytes, bytes], long: bool = False) -> RequestBlock:
    """A request without a body."""
    return RequestBlock(b"GET", path, [AUDIT, *headers], long=long)


EXEC = RequestBlock(b"POST", b"/exec", [AUDIT, (b"upgrade", b"spdy/3.1")], ended=False, long=True, upgrade=True)
POST = RequestBlock(b"POST", b"/echo", [AUDIT], ended=False)


async def test_a_request_is_answered_as_if_its_agent_were_here(site: Site) -> None:
    user = ask(site.r, get(b"/small", (b"x-mine", b"1")))
    await until(lambda: user.over)
    assert [(head.status, head.headers) for head in user.heads] == [(200, [(b"content-length", b"5")])]
    assert user.body == b"hello"
    assert site.api.seen[0].head.headers == [AUDIT, (b"x-mine", b"1")]
    assert user.exchange is not None
    assert user.exchange.agent == "agent-1"


async def test_a_body_its_trailers_and_those_of_the_answer_arrive(site: Site) -> None:
    user, body = ask(site.r, POST), os.urandom(1 * MIB)
    assert user.exchange is not None
    await send(user.exchange, user, body)
    user.exchange.send_end(b"x-last: 2\r\n")
    await until(lambda: user.over)
    assert user.body == body
    assert user.trailers == TRAILERS
    assert user.heads[0].headers == [(b"x-first", b"1")]
    assert site.api.seen[0].trailers == [(b"x-last", b"2")]


async def test_interim_heads_pass_in_their_order(site: Site) -> None:
    user = ask(site.r, get(b"/interim"))
    await until(lambda: user.over)
    assert [(head.status, head.headers) for head in user.heads] == [
        (103, [(b"link", b"</a>")]),
        (103, [(b"link", b"</b>")]),
        (200, [(b"content-length", b"5")]),
    ]


async def test_a_hijacked_stream_carries_much_both_ways_on_links_of_its_own(site: Site) -> None:
    user, sent = ask(site.r, EXEC), os.urandom(10 * MIB)
    await until(lambda: user.heads)
    assert user.heads[0].upgrade
    assert user.exchange is not None
    session = site.r.peers._sessions["o"]
    await until(lambda: any(link.exchange is not None for link in session.mux.own_links.values()))
    await send(user.exchange, user, sent)
    user.exchange.send_end()
    await until(lambda: user.over)
    assert user.body == sent
    assert not site.o.door.busy


async def test_an_upgrade_that_is_refused_is_answered_and_over(site: Site) -> None:
    head = RequestBlock(b"POST", b"/forbidden", EXEC.headers, ended=False, long=True, upgrade=True)
    user = ask(site.r, head)
    await until(lambda: user.over)
    assert user.heads[0].status == 403
    assert user.body == b"no"
    await until(lambda: not site.o.door.busy)


@pytest.mark.parametrize("path", [b"/big/30000000", b"/exec"])
async def test_a_reader_that_stalls_stops_its_sender_and_nobody_else(site: Site, path: bytes) -> None:
    """What all four ends and the sockets hold is bounded by the windows, not by what there is to send."""
    upgrade = path == b"/exec"
    head = EXEC if upgrade else get(path, long=True)
    user, sent = ask(site.r, head, reading=False), 0
    await until(lambda: user.heads)
    assert user.exchange is not None
    if upgrade:
        while sent < 100 * MIB and user.exchange.send_data(bytes(16 * KIB)):
            sent += 16 * KIB
            await asyncio.sleep(0)
    await asyncio.sleep(0.3)
    passed = sent if upgrade else site.api.seen[0].sent
    assert passed < 14 * MIB  # of sockets' buffers on loopback, mostly
    (serving,) = site.stub.sessions.all()[0].mux.exchanges.values()
    (asked,) = next(iter(site.o.door.sessions.values())).mux.exchanges.values()
    limits = LIMITS.link
    for held in (serving.held, asked.held):
        assert held <= limits.own_credit_max + limits.send_queue + limits.frame_payload
    quick = ask(site.r, get(b"/small"))
    await until(lambda: quick.over)
    assert quick.body == b"hello"
    user.reading = True
    user.read()
    if upgrade:
        user.exchange.send_end()
    await until(lambda: user.over)
    assert user.reset is None
    assert len(user.body) == (sent + 16 * KIB * (sent < 100 * MIB) if upgrade else 30_000_000)


@pytest.mark.parametrize("head", [get(b"/never"), get(b"/big/100000000", long=True), EXEC], ids=["wait", "big", "exec"])
async def test_a_user_who_leaves_ends_it_at_the_agent(site: Site, head: RequestBlock) -> None:
    user = ask(site.r, head, reading=False)
    await until(lambda: site.api.seen)
    assert user.exchange is not None
    user.exchange.cancel(Hop.CLIENT, Reason.CANCELLED, "the client closed its connection")
    await until(lambda: site.api.seen[0].reset is not None, 1.0)
    await until(lambda: not site.o.door.busy and not site.stub.sessions.all()[0].load)
    assert user.reset is None


@pytest.mark.parametrize("begun", [False, True])
async def test_what_breaks_behind_the_agent_is_told_as_it_was_said(site: Site, begun: bool) -> None:
    user = ask(site.r, get(b"/big/100000000" if begun else b"/never", long=begun), reading=False)
    await until(lambda: site.api.seen and (user.heads or not begun))
    broken = site.api.seen[0].exchange
    broken.cancel(Hop.APISERVER, Reason.TIMEOUT, "the API server took too long")
    broken.released()
    await until(lambda: user.over)
    assert user.reset is not None
    assert (user.reset.hop, user.reset.reason) == (Hop.APISERVER, Reason.TIMEOUT)
    assert user.reset.message == "the API server took too long"
    assert not isinstance(user.reset, NotOpened)
    await until(lambda: not site.o.door.busy)


async def test_an_agent_that_is_lost_is_told_as_that(site: Site) -> None:
    user = ask(site.r, get(b"/never"))
    await until(lambda: site.api.seen)
    site.stub.sessions.all()[0].mux.close("cut")
    await until(lambda: user.over)
    assert user.reset is not None
    assert (user.reset.hop, user.reset.reason) == (Hop.STUB, Reason.LINK_LOST)


# --- what the holder refuses


@pytest.mark.parametrize("kind", [NoAgent, AgentSilent, SessionOverloaded, Draining])
async def test_what_the_holder_refuses_arrives_as_what_it_is(replicas_ca: bytes, kind: type[StubError]) -> None:
    def refuses(cluster: str, _head: RequestBlock, _sink: ResponseSink) -> Exchange:
        raise kind(cluster, "these words")

    async with two(refuses, replicas_ca) as (r, o):
        user = ask(r, get(b"/"))
        await until(lambda: user.over)
        assert isinstance(user.reset, NotOpened)
        error = user.reset.as_stub_error(CLUSTER)
        assert (type(error), error.cluster, error.message) == (kind, CLUSTER, "these words")
        assert (user.reset.hop, user.reset.reason) == (Hop.STUB, kind.reason)
        await until(lambda: not o.door.busy)


class NotMine:
    """An ownership that has just changed."""

    def place(self, cluster: str) -> Place:
        return Place("somebody", False)


async def test_a_cluster_that_the_holder_does_not_hold_is_opened_nowhere(site: Site, replicas_ca: bytes) -> None:
    opener = held_here(NotMine(), site.stub.sessions.open)  # type: ignore[arg-type]  # the rest is not asked
    async with two(opener, replicas_ca) as (r, _):
        user = ask(r, get(b"/small"))
        await until(lambda: user.over)
    assert isinstance(user.reset, NotOpened)
    assert user.reset.reason is Reason.DRAINING
    assert not site.api.seen


async def test_a_bug_of_the_holders_ends_one_exchange(site: Site, replicas_ca: bytes) -> None:
    def fails(cluster: str, head: RequestBlock, sink: ResponseSink) -> Exchange:
        if head.target == b"/bug":
            raise KeyError("a bug")
        return site.stub.sessions.open(cluster, head, sink)

    async with two(fails, replicas_ca) as (r, _):
        with capture_logs() as logs:
            user = ask(r, get(b"/bug"))
            await until(lambda: user.over)
        assert [line["event"] for line in logs] == ["internal error in an exchange of another replica"]
        assert user.reset is not None
        assert (user.reset.hop, user.reset.reason) == (Hop.STUB, Reason.INTERNAL)
        again = ask(r, get(b"/small"))
        await until(lambda: again.over)
        assert again.body == b"hello"


# --- the cluster's name


@pytest.mark.parametrize(
    "smuggled",
    [[(b"kulvert-cluster", b"beta")], [(b"kulvert-cluster", b"beta"), (b"kulvert-cluster", b"alpha")]],
    ids=["one", "two"],
)
async def test_a_users_own_header_never_names_the_cluster(site: Site, replicas_ca: bytes, smuggled: Headers) -> None:
    asked: list[str] = []

    def notes(cluster: str, head: RequestBlock, sink: ResponseSink) -> Exchange:
        asked.append(cluster)
        return site.stub.sessions.open(cluster, head, sink)

    async with two(notes, replicas_ca) as (r, _):
        user = ask(r, get(b"/small", *smuggled, (b"x-mine", b"1")))
        await until(lambda: user.over)
    assert user.body == b"hello"
    assert asked == [CLUSTER]
    assert site.api.seen[0].head.headers == [AUDIT, (b"x-mine", b"1")]


async def test_a_head_as_long_as_may_be_is_refused_here_and_not_at_the_others_expense(site: Site) -> None:
    waiting = ask(site.r, get(b"/never"))
    lines = [(b"x-%d" % number, b"v") for number in range(999)]
    with pytest.raises(HeadError, match="more headers"):
        ask(site.r, get(b"/small", *lines))
    user = ask(site.r, get(b"/small", *lines[:-1]))
    await until(lambda: user.over)
    assert user.body == b"hello"
    assert not waiting.over

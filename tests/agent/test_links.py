"""The pool of own links: warm ones, more while exchanges wait, never more than the NAT allows."""

from __future__ import annotations

import asyncio
import math
from typing import cast

import pytest

from agent.attaching import AttachFailed
from agent.links import Dial, LinkPoolLimits, OwnLinks
from agent.session import AgentSession
from stub.session import Session
from tests.support.attached import Answering, Asked, Real, Stub, ask, attached, eventually, get, nothing_left
from tunnel.errors import Hop, Reason
from tunnel.handshake import Refused
from tunnel.ports import ResponseBlock

LIMITS = LinkPoolLimits(most=100, warm=2, dials=8, pause=0.05, tidy=0.05, keep=math.inf)


def theirs(stub: Stub) -> Session:
    (session,) = stub.sessions.all()
    return session


def ours(real: Real) -> AgentSession:
    (session,) = real.agent.sessions
    return session


async def streams(stub: Stub, handler: Answering, count: int) -> list[Asked]:
    """Long answers that have begun, and go on."""
    before = len(handler.begun)
    asked = [ask(stub, head=get(long=True)) for _ in range(count)]
    await eventually(lambda: len(handler.begun) == before + count)
    for exchange, _, _ in handler.begun[before:]:
        exchange.send_response(ResponseBlock(200, []))
        exchange.send_data(b"begin")
    await eventually(lambda: all(one.body for one in asked))
    return asked


def finish(handler: Answering) -> None:
    for exchange, _, _ in handler.begun:
        exchange.send_end()


async def test_warm_links_are_there_before_anybody_asks_and_are_refilled(stub: Stub) -> None:
    handler = Answering(body=None)
    async with attached(stub, handler, links=LIMITS) as real:
        await eventually(lambda: len(theirs(stub).mux.own_links) == 2)
        await streams(stub, handler, 3)
        await eventually(lambda: len(theirs(stub).mux.own_links) == 5)
        await eventually(lambda: len(ours(real).mux.free) == 2)
        assert not ours(real).mux.waiting
        finish(handler)


async def test_nothing_is_warm_before_it_is_wanted_nor_long_after(stub: Stub) -> None:
    handler = Answering(body=None)
    links = LinkPoolLimits(most=100, warm=2, dials=8, pause=0.05, tidy=0.02, keep=0.4)
    async with attached(stub, handler, links=links) as real:
        await asyncio.sleep(0.1)
        assert not theirs(stub).mux.own_links
        asked = await streams(stub, handler, 1)
        await eventually(lambda: len(ours(real).mux.free) == 2)
        finish(handler)
        await eventually(lambda: all(one.ended for one in asked))
        await eventually(lambda: not theirs(stub).mux.own_links)
        handler.begun.clear()
        await streams(stub, handler, 1)
        await eventually(lambda: all(e.link.own for e in theirs(stub).mux.exchanges.values()))
        finish(handler)


@pytest.mark.parametrize("most", [0, 1, 16])
async def test_there_are_never_more_links_than_the_cap_and_everybody_is_served(stub: Stub, most: int) -> None:
    handler = Answering(body=None)
    links = LinkPoolLimits(most=most, warm=2, dials=8, pause=0.05, tidy=0.05)
    peak = 0
    async with attached(stub, handler, links=links) as real:
        asked = await streams(stub, handler, 20)
        await eventually(lambda: len(theirs(stub).mux.own_links) == most)
        for _ in range(20):
            peak = max(peak, len(theirs(stub).mux.own_links), len(ours(real).mux.own_links))
            await asyncio.sleep(0.01)
        assert peak == most
        assert theirs(stub).max_links == most
        moved = sum(exchange.link.own for exchange in theirs(stub).mux.exchanges.values())
        assert moved == most
        for exchange, _, _ in handler.begun:
            exchange.send_data(b"x" * 30_000)
        finish(handler)
        await eventually(lambda: all(one.ended for one in asked))
        assert {len(one.body) for one in asked} == {30_005}


async def test_idle_links_beyond_the_warm_ones_are_tidied(stub: Stub) -> None:
    handler = Answering(body=None)
    async with attached(stub, handler, links=LIMITS) as real:
        asked = await streams(stub, handler, 12)
        await eventually(lambda: len(theirs(stub).mux.own_links) >= 12)
        finish(handler)
        await eventually(lambda: all(one.ended for one in asked))
        await eventually(lambda: len(theirs(stub).mux.own_links) == 2)
        assert len(ours(real).mux.free) == 2


async def test_a_link_that_was_reset_is_not_used_again_and_is_replaced(stub: Stub) -> None:
    handler = Answering(body=None)
    async with attached(stub, handler, links=LIMITS):
        await streams(stub, handler, 2)
        await eventually(lambda: all(e.link.own for e in theirs(stub).mux.exchanges.values()))
        used = {e.link.id for e in theirs(stub).mux.exchanges.values()}
        for exchange, _, _ in handler.begun:
            exchange.cancel(Hop.AGENT, Reason.CANCELLED, "cut by the test")
            exchange.released()
        await eventually(lambda: not theirs(stub).mux.exchanges)
        await eventually(lambda: used.isdisjoint(theirs(stub).mux.own_links))
        await eventually(lambda: len(theirs(stub).mux.own_links) == 2)


async def test_links_that_cannot_be_dialled_are_tried_again_and_requests_do_not_wait(
    stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler = Answering(body=None)
    async with attached(stub, handler, links=LinkPoolLimits(most=0)) as real:
        assert not ours(real).mux.own_links
    await eventually(lambda: not stub.sessions.all())
    refuses = "stub.session.Session.refuses"
    monkeypatch.setattr(refuses, lambda _session, _link_id: "not today")
    async with attached(stub, handler := Answering(body=None), links=LIMITS) as real:
        asked = await streams(stub, handler, 3)  # on the shared link
        await asyncio.sleep(0.2)
        assert not theirs(stub).mux.own_links
        assert len(ours(real).mux.waiting) == 3
        monkeypatch.undo()
        await eventually(lambda: len(theirs(stub).mux.own_links) == 5)
        for exchange, _, _ in handler.begun:
            exchange.send_data(b"x" * 100_000)
        finish(handler)
        await eventually(lambda: all(one.ended for one in asked))
        assert {len(one.body) for one in asked} == {100_005}


async def test_dials_at_a_time_are_bounded(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    under_way = peak = 0
    dial = Real(stub).agent._arrival.attach_own.__func__  # type: ignore[attr-defined]

    async def counted(self: object, session: AgentSession, link_id: int) -> None:
        nonlocal under_way, peak
        under_way += 1
        peak = max(peak, under_way)
        try:
            await dial(self, session, link_id)
        finally:
            under_way -= 1

    monkeypatch.setattr("agent.arrival.Arrival.attach_own", counted)
    handler = Answering(body=None)
    links = LinkPoolLimits(most=100, warm=2, dials=3, pause=0.05, tidy=0.05)
    async with attached(stub, handler, links=links):
        await streams(stub, handler, 20)
        await eventually(lambda: len(theirs(stub).mux.own_links) >= 20)
        finish(handler)
    assert peak == 3
    assert under_way == 0


async def test_link_ids_are_never_used_twice(stub: Stub) -> None:
    async with attached(stub, links=LIMITS):
        for _ in range(5):
            await eventually(lambda: len(theirs(stub).mux.own_links) == 2)
            for link in list(theirs(stub).mux.own_links.values()):
                link.close("cut by the test")
        await eventually(lambda: len(theirs(stub).mux.own_links) == 2)
        seen = list(theirs(stub)._seen_links)
        assert len(seen) >= 12
        assert sorted(set(seen)) == seen == list(range(1, len(seen) + 1))


async def test_a_link_whose_session_ended_while_it_was_dialled_is_let_go(stub: Stub) -> None:
    """It must end as a refusal does, not as an error of our own that asyncio prints."""
    seen: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: seen.append(context))
    async with attached(stub, links=LinkPoolLimits(most=1, warm=0)) as real:
        session = ours(real)
        session.mux.closed_reason = "it has ended meanwhile"
        try:
            with pytest.raises(AttachFailed, match="has ended meanwhile"):
                await real.agent._arrival.attach_own(session, 1)
        finally:
            session.mux.closed_reason = None
        assert not seen
        await eventually(lambda: not theirs(stub).mux.own_links)


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48])
async def test_a_dial_cancelled_at_any_point_leaves_nothing(stub: Stub, turns: int) -> None:
    async with attached(stub, links=LinkPoolLimits(most=1, warm=0)) as real:
        async with nothing_left():
            task = asyncio.create_task(real.agent._arrival.attach_own(ours(real), 1))
            for _ in range(turns):
                await asyncio.sleep(0.0005)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            for link in list(ours(real).mux.own_links.values()):
                link.close("it was quicker")
        await eventually(lambda: not theirs(stub).mux.own_links)


@pytest.mark.parametrize(
    ("error", "low", "high"),
    [
        (AttachFailed("no"), 1.0, 1.0),
        (Refused("overloaded", "full", retry_after=10), 10.0, 15.0),
        (Refused("overloaded", "full", retry_after=86_400), 300.0, 450.0),
        (Refused("link", "no"), 1.0, 1.0),
    ],
    ids=["failed", "full", "for a day", "refused"],
)
@pytest.mark.parametrize("number", [0.0, 0.999])
def test_a_server_that_says_when_to_ask_again_is_asked_then(
    error: Exception, low: float, high: float, number: float
) -> None:
    links = OwnLinks(cast(AgentSession, None), cast(Dial, None), LinkPoolLimits(), lambda: number)
    assert low <= links._pause(error) <= high
    if high > low:
        assert (links._pause(error) > low) is (number > 0)


async def test_a_link_that_is_still_being_ended_counts_for_a_nat_has_its_port(stub: Stub) -> None:
    """Four of eight streams have links; these end, and wait for the stub's close, which does not come for a while."""
    handler = Answering(body=None)
    links = LinkPoolLimits(most=4, warm=0, dials=8, pause=0.05, tidy=100, look=0.01)
    async with attached(stub, handler, links=links) as real:
        await streams(stub, handler, 8)
        await eventually(lambda: len(theirs(stub).mux.own_links) == 4)
        session, peak = ours(real), 0
        ending = [one for one in session._connections if one is not session._shared]
        for one in ending:
            assert one.transport is not None
            one.transport.pause_reading()  # the stub's close is not seen
        for one in ending:
            one.finish("worn")
        for _ in range(20):
            peak = max(peak, session.own_connections)
            await asyncio.sleep(0.01)
        assert peak == 4
        assert not session.mux.own_links
        for one in ending:
            assert one.transport is not None
            one.transport.resume_reading()
        await eventually(lambda: len(session.mux.own_links) == 4)
        finish(handler)


async def test_ports_that_a_nat_still_keeps_are_not_used_up_by_short_links(stub: Stub) -> None:
    """One after the other, each reset: the first few get links, the others stay where they are, and get answers."""
    handler = Answering(body=None)
    links = LinkPoolLimits(most=2, warm=0, dials=8, pause=0.05, tidy=0.05, look=0.01, ports_kept=0.5, turnover=2)
    async with attached(stub, handler, links=links) as real:
        moved = []
        for _ in range(6):
            await streams(stub, handler, 1)
            await asyncio.sleep(0.03)
            exchange, _, _ = handler.begun.pop()
            moved.append(next(iter(ours(real).mux.exchanges.values())).link.own)
            exchange.cancel(Hop.AGENT, Reason.CANCELLED, "cut by the test")
            exchange.released()
            await eventually(lambda: not theirs(stub).mux.exchanges)
        assert moved == [True] * 4 + [False] * 2
        await streams(stub, handler, 1)
        await eventually(lambda: all(e.link.own for e in theirs(stub).mux.exchanges.values()))
        assert len(ours(real).mux.own_links) <= 2
        finish(handler)


async def test_all_sessions_of_an_agent_share_its_ports(stub: Stub) -> None:
    """One after the other, as with a server that is started again and again."""
    handler = Answering(body=None)
    links = LinkPoolLimits(most=2, warm=0, dials=8, pause=0.05, tidy=100, look=0.01, ports_kept=60, turnover=2)
    moved = []
    async with attached(stub, handler, links=links) as real:
        for _ in range(6):
            await streams(stub, handler, 1)
            await asyncio.sleep(0.05)
            moved.append(next(iter(ours(real).mux.exchanges.values())).link.own)
            session = ours(real)
            session.mux.shared.close("the server is gone")
            handler.begun.clear()
            await eventually(lambda: session not in real.agent.sessions and real.agent.attached)  # noqa: B023 -- at once
            await eventually(lambda: len(stub.sessions.all()) == 1)
    assert moved == [True] * 4 + [False] * 2

"""The pool of own links: warm ones, more while exchanges wait, never more than the NAT allows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.attaching import AttachFailed
from agent.links import LinkPoolLimits
from agent.session import AgentSession
from stub.session import Session
from tests.agent.pki import Authority
from tests.support.attached import Answering, Asked, Real, Stub, ask, attached, eventually, get, nothing_left
from tunnel.errors import Hop, Reason
from tunnel.ports import ResponseBlock

LIMITS = LinkPoolLimits(most=100, warm=2, dials=8, pause=0.05, tidy=0.05)


@pytest.fixture
async def stub(authority: Authority, tmp_path: Path) -> AsyncIterator[Stub]:
    async with nothing_left(), Stub(authority, tmp_path / "stub") as stub:
        yield stub


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


@pytest.mark.parametrize("most", [0, 1, 16])
async def test_there_are_never_more_links_than_the_cap_and_everybody_is_served(stub: Stub, most: int) -> None:
    handler = Answering(body=None)
    links = LinkPoolLimits(most=most, warm=2, dials=8, pause=0.05, tidy=0.05)
    peak = 0
    async with attached(stub, handler, links=links) as real:
        asked = await streams(stub, handler, 20)
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
        await eventually(lambda: len(theirs(stub).mux.own_links) == 2)
        assert not used & set(theirs(stub).mux.own_links)


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
    dial = Real(stub).agent._dial_own.__func__  # type: ignore[attr-defined]

    async def counted(self: object, session: AgentSession, link_id: int) -> None:
        nonlocal under_way, peak
        under_way += 1
        peak = max(peak, under_way)
        try:
            await dial(self, session, link_id)
        finally:
            under_way -= 1

    monkeypatch.setattr("agent.attach.Agent._dial_own", counted)
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
                await real.agent._dial_own(session, 1)
        finally:
            session.mux.closed_reason = None
        assert not seen
        await eventually(lambda: not theirs(stub).mux.own_links)


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48])
async def test_a_dial_cancelled_at_any_point_leaves_nothing(stub: Stub, turns: int) -> None:
    async with attached(stub, links=LinkPoolLimits(most=1, warm=0)) as real:
        async with nothing_left():
            task = asyncio.create_task(real.agent._dial_own(ours(real), 1))
            for _ in range(turns):
                await asyncio.sleep(0.0005)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            for link in list(ours(real).mux.own_links.values()):
                link.close("it was quicker")
        await eventually(lambda: not theirs(stub).mux.own_links)

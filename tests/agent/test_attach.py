"""A real agent before a real stub, over loopback: attaching, attaching again, draining, and what is left behind."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from agent.attach import between_attempts
from agent.enrolment import Asking
from agent.links import LinkPoolLimits
from agent.relay import Relay
from agent.session import Identity
from agent.settings import JoinToken
from stub.errors import NoAgent
from tests.agent.pki import Authority
from tests.support.agentauthority import Book
from tests.support.attached import (
    HOST,
    Answering,
    Asked,
    Real,
    Stub,
    ask,
    attached,
    eventually,
    get,
    nothing_left,
)
from tunnel import proof
from tunnel.backoff import BackOff
from tunnel.errors import ExchangeReset, Hop, Reason
from tunnel.ports import AgentExchange, RequestBlock, ResponseBlock


class Delays(BackOff):
    """Tells how long the agent would have waited, and waits a hundredth of that."""

    def __init__(self) -> None:
        super().__init__(lambda: 0.0, first=0.5, most=30.0, soon=5.0)
        self.waited: list[float] = []

    def next(self) -> float:
        delay = super().next()
        self.waited.append(delay)
        return delay / 100


async def answered(stub: Stub, **more: Any) -> Asked:
    asked = ask(stub, **more)
    await eventually(lambda: asked.over)
    return asked


async def test_requests_go_through_and_the_session_says_who_it_is(stub: Stub) -> None:
    async with attached(stub, software="kulvert/9") as real:
        assert (await answered(stub)).body == b"hello"
        (session,) = stub.sessions.of("alpha")
        assert (session.info.agent, session.info.software) == ("agent-1", "kulvert/9")
        assert real.agent.attached
    await eventually(lambda: not stub.sessions.all())


# --- again and again


async def test_a_lost_agent_is_back_with_a_new_session(stub: Stub) -> None:
    async with attached(stub):
        for _ in range(3):
            (before,) = stub.sessions.all()
            before.mux.close("cut by the test")
            await eventually(lambda old=before: [s for s in stub.sessions.all() if s is not old])  # type: ignore[misc]
            assert (await answered(stub)).body == b"hello"


async def test_a_session_that_the_stub_still_has_is_superseded(stub: Stub) -> None:
    """The agent has noticed that its link is dead, the stub has not yet: it would send requests there for 30 s."""
    async with attached(stub) as real:
        (ours,) = real.agent.sessions
        (before,) = stub.sessions.all()
        transport = ours._connections[0].transport
        assert transport is not None
        ours._connections[0].connection_lost(None)  # to the agent it is gone; to the stub the socket stays open
        await eventually(lambda: stub.sessions.all() and stub.sessions.all() != [before])
        assert len(stub.sessions.all()) == 1
        assert (await answered(stub)).body == b"hello"
        transport.abort()


def test_for_the_first_minute_no_agent_waits_longer_than_five_seconds() -> None:
    backoff, waited, delays = between_attempts(lambda: 0.999), 0.0, []
    while waited < 60.0:
        delays.append(backoff.next())
        waited += delays[-1]
    assert 4.9 < max(delays) <= 5.0
    assert backoff.next() > 5.0


async def test_the_back_off_grows_while_it_fails_and_begins_anew_when_a_session_held(stub: Stub) -> None:
    delays = Delays()
    pins, stub.book.pins = stub.book.pins, {}
    async with Real(stub, backoff=delays, stable=0.3) as real:
        await eventually(lambda: len(delays.waited) >= 8)
        assert delays.waited[:8] == [0.25, 0.5, 1.0, 2.0, 2.5, 2.5, 2.5, 2.5]
        stub.book.pins = pins
        await eventually(lambda: real.agent.attached)
        await asyncio.sleep(0.35)
        delays.waited.clear()
        stub.book.pins = {}
        stub.sessions.all()[0].mux.close("cut by the test")
        await eventually(lambda: len(delays.waited) >= 2)
        assert delays.waited[:2] == [0.25, 0.5]
        stub.book.pins = pins


async def test_a_session_that_did_not_hold_does_not_reset_the_back_off(stub: Stub) -> None:
    delays = Delays()
    async with Real(stub, backoff=delays, stable=60.0):
        for count in range(1, 4):
            await eventually(lambda: stub.sessions.all())
            stub.sessions.all()[0].mux.close("cut by the test")
            await eventually(lambda wanted=count: len(delays.waited) >= wanted)  # type: ignore[misc]
    assert delays.waited[:3] == [0.25, 0.5, 1.0]


async def test_where_one_server_refuses_the_next_one_is_asked(authority: Authority, tmp_path: Path) -> None:
    nobody = Book()
    nobody.pins.clear()
    async with (
        nothing_left(),
        Stub(authority, tmp_path / "a", book=nobody) as standby,
        Stub(authority, tmp_path / "b", book=Book(ca=nobody.ca)) as holder,
        Real(holder, servers=(standby.name, holder.name)),
    ):
        await eventually(lambda: holder.sessions.all())
        assert not standby.sessions.all()


async def test_where_one_server_says_nothing_the_next_one_is_asked(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.arrival.ELSEWHERE", 0.3)
    tls = authority.issue("mute", HOST).server_context(tmp_path)
    mute = await asyncio.start_server(lambda _reader, _writer: None, HOST, 0, ssl=tls)
    address = f"{HOST}:{mute.sockets[0].getsockname()[1]}"
    async with Stub(authority, tmp_path / "b") as holder, Real(holder, servers=(address, holder.name)):
        await eventually(lambda: holder.sessions.all())
    mute.close()


async def test_an_epoch_below_the_remembered_one_is_refused_until_it_is_forgotten(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with nothing_left(), Stub(authority, tmp_path / "one", epoch=9) as first, attached(first) as real:
        assert real.agent._arrival._epochs.highest == 9
        port = first.port
        await first.door.stop()
        first.sessions.close("cut by the test")
        stale = Stub(authority, tmp_path / "two", epoch=8, book=first.book)
        stale.port = port
        async with stale:
            await asyncio.sleep(0.6)
            assert not stale.sessions.all()
            monkeypatch.setattr("agent.epochs.MEMORY", 0.1)
            await eventually(lambda: stale.sessions.all())
            assert real.agent._arrival._epochs.highest == 8


async def test_a_head_of_another_epoch_is_refused(stub: Stub) -> None:
    async with attached(stub) as real:
        stub.sessions.all()[0].mux.epoch = 6
        asked = await answered(stub)
        assert asked.reset is not None
        assert (asked.reset.hop, asked.reset.reason) == (Hop.AGENT, Reason.STALE_EPOCH)
        assert not real.handler.begun


async def test_whoever_held_and_lost_its_server_waits_a_moment_before_it_knocks(stub: Stub) -> None:
    """Ten thousand agents lose a server together."""
    async with attached(stub, backoff=BackOff(lambda: 0.5, first=0.05, most=0.2)):
        (before,) = stub.sessions.all()
        began = time.monotonic()
        before.mux.close("cut by the test")
        await eventually(lambda: [one for one in stub.sessions.all() if one is not before])
        assert 0.5 <= time.monotonic() - began < 0.9


async def test_whoever_is_sent_away_by_a_draining_server_knocks_at_once(authority: Authority, tmp_path: Path) -> None:
    backoff = BackOff(lambda: 0.5, first=0.05, most=5.0, spread=10.0)
    async with (
        nothing_left(),
        Stub(authority, tmp_path / "a") as first,
        Stub(authority, tmp_path / "b", book=first.book) as second,
        attached(first, servers=(first.name, second.name), backoff=backoff),
    ):
        first.sessions.drain()
        await eventually(lambda: second.sessions.all(), 1.0)


# --- several agents


async def test_two_agents_share_the_work_and_one_lost_costs_its_own_exchanges_only(stub: Stub) -> None:
    first, second = Answering(body=None), Answering(body=None)
    async with attached(stub, first) as one, attached(stub, second, agent="agent-2"):
        asked = [ask(stub) for _ in range(10)]
        await eventually(lambda: len(first.begun) == len(second.begun) == 5)
        assert one.task is not None
        one.task.cancel()
        await eventually(lambda: sum(each.reset is not None for each in asked) == 5)
        await asyncio.sleep(0.05)
        for exchange, _, _ in second.begun:
            second.answer(exchange, b"alive")
        await eventually(lambda: all(each.over for each in asked))
        lost = [each.reset for each in asked if each.reset is not None]
        assert [(error.hop, error.reason) for error in lost] == [(Hop.STUB, Reason.LINK_LOST)] * 5
        assert [each.body for each in asked if each.reset is None] == [b"alive"] * 5
        assert len(stub.sessions.of("alpha")) == 1


async def test_two_agents_with_one_token_do_not_supersede_one_another(stub: Stub) -> None:
    async with attached(stub), attached(stub):
        await asyncio.sleep(0.2)
        assert len(stub.sessions.of("alpha")) == 2


async def test_the_report_of_health_reaches_every_session_and_the_next_one(stub: Stub) -> None:
    class Report:
        ready, message, latency_ms = False, "no etcd", 7

    async with attached(stub) as real:
        real.agent.tell_health(Report())
        await eventually(lambda: stub.sessions.state("alpha").message == "no etcd")
        (before,) = stub.sessions.all()
        before.mux.close("cut by the test")
        await eventually(lambda: [s for s in stub.sessions.all() if not s.health.ready and s is not before])


# --- draining


async def test_an_agent_that_drains_finishes_what_it_has_and_takes_nothing_new(stub: Stub) -> None:
    handler = Answering(body=None)
    async with attached(stub, handler) as real:
        asked = ask(stub)
        await eventually(lambda: handler.begun)
        draining = asyncio.create_task(real.agent.drain())
        (session,) = stub.sessions.all()
        await eventually(lambda: session.draining)
        with pytest.raises(NoAgent, match="shutting down"):
            ask(stub)
        (ours,) = real.agent.sessions
        await eventually(lambda: ours.mux.draining)  # the stub has answered: nothing can cross the word any more
        refused = Asked()
        session.open(get(), refused)
        await eventually(lambda: refused.over)
        assert refused.reset is not None
        assert refused.reset.reason is Reason.DRAINING
        assert not draining.done()
        handler.answer(handler.begun[0][0], b"done")
        await eventually(lambda: asked.over)
        await asyncio.wait_for(draining, 1.0)
        assert asked.body == b"done"


async def test_what_crosses_the_word_of_an_agent_that_stops_is_taken_too(stub: Stub) -> None:
    """Or a write would fail, and nothing but reads may be asked again."""
    handler = Answering()
    async with attached(stub, handler) as real:
        draining = asyncio.create_task(real.agent.drain())
        await asyncio.sleep(0)  # the word is on its way
        crossing = [ask(stub) for _ in range(3)]
        await asyncio.wait_for(draining, 1.0)
        await eventually(lambda: all(one.over for one in crossing))
        assert [(one.reset, one.body) for one in crossing] == [(None, b"hello")] * 3


async def test_an_agent_that_drains_does_not_attach_again(stub: Stub) -> None:
    async with attached(stub, Answering(body=None)) as real:
        ask(stub)
        draining = asyncio.create_task(real.agent.drain())
        await asyncio.sleep(0.05)
        stub.sessions.all()[0].mux.close("cut by the test")
        await asyncio.wait_for(draining, 1.0)
        await asyncio.sleep(0.3)
        assert not stub.sessions.all()
        assert real.task is not None
        await asyncio.wait_for(real.task, 1.0)


async def test_an_agent_drains_within_its_patience(stub: Stub) -> None:
    handler = Answering(body=None)
    async with attached(stub, handler, patience=0.3) as real:
        asked = ask(stub)
        await eventually(lambda: handler.begun)
        began = time.monotonic()
        await real.agent.drain()
        assert 0.25 < time.monotonic() - began < 1.0
    await eventually(lambda: asked.over)
    assert asked.reset is not None
    assert asked.reset.reason is Reason.LINK_LOST
    assert handler.begun[0][2].reset is not None


async def test_the_last_bytes_arrive_when_an_agent_drains(stub: Stub) -> None:
    """An answer of 60 KB is on its way when the last exchange is done: the process must not end before it is out."""
    handler = Answering(body=None)
    async with attached(stub, handler) as real:
        asked = ask(stub)
        await eventually(lambda: handler.begun)
        (session,) = real.agent.sessions
        draining = asyncio.create_task(real.agent.drain())
        await asyncio.sleep(0.1)
        handler.answer(handler.begun[0][0], b"x" * 60_000)
        await draining
    assert [connection.transport for connection in session._connections] == [None] * len(session._connections)
    await eventually(lambda: asked.over)
    assert (asked.reset, len(asked.body)) == (None, 60_000)


async def test_the_last_bytes_of_an_own_link_arrive_before_the_session_ends(stub: Stub) -> None:
    handler = Answering(body=None)
    async with attached(stub, handler) as real:
        asked = [ask(stub, head=get(long=True)) for _ in range(4)]
        await eventually(lambda: len(handler.begun) == 4)
        for exchange, _, _ in handler.begun:
            exchange.send_response(ResponseBlock(200, []))
            exchange.send_data(b"begin")
        await eventually(lambda: all(one.body for one in asked))
        (session,) = real.agent.sessions
        assert session.mux.own_links
        draining = asyncio.create_task(real.agent.drain())
        await eventually(lambda: session.mux.draining)
        for exchange, _, _ in handler.begun:
            exchange.send_data(b"x" * 30_000)
            exchange.send_end()
        await asyncio.wait_for(draining, 1.5)
        session.close("at once")
    await eventually(lambda: all(one.over for one in asked))
    assert [(one.reset, len(one.body)) for one in asked] == [(None, 30_005)] * 4


async def test_a_stub_that_drains_sends_its_agents_to_the_next_and_finishes(
    authority: Authority, tmp_path: Path
) -> None:
    handler = Answering(body=None)
    async with (
        nothing_left(),
        Stub(authority, tmp_path / "a") as first,
        Stub(authority, tmp_path / "b", book=first.book) as second,
        attached(first, handler, servers=(first.name, second.name)) as real,
    ):
        asked = ask(first)
        await eventually(lambda: handler.begun)
        first.sessions.drain()
        await eventually(lambda: second.sessions.all())
        handler.body = b"hello"
        assert (await answered(second)).body == b"hello"
        assert len(real.agent.sessions) == 2
        assert not asked.over
        handler.answer(handler.begun[0][0], b"late")
        await eventually(lambda: asked.over)
        assert (asked.reset, asked.body) == (None, b"late")


class _Watch(Relay):
    """Ends when it is asked to, as a relay does between two events."""

    def __init__(self, exchange: AgentExchange) -> None:
        self._asked = exchange

    def conclude(self) -> None:
        self._asked.send_end()

    def on_reset(self, error: ExchangeReset) -> None:
        self._asked.released()


class _Watches(Answering):
    """Each answered with one event."""

    def __call__(self, exchange: AgentExchange, head: RequestBlock) -> Relay:
        exchange.send_response(ResponseBlock(200, []))
        exchange.send_data(b"{}\n")
        return _Watch(exchange)


async def test_watches_end_once_another_session_takes_them(authority: Authority, tmp_path: Path) -> None:
    """And not before: their users would come back to nobody."""
    over: list[bool] = []
    async with (
        nothing_left(),
        Stub(authority, tmp_path / "a") as first,
        Stub(authority, tmp_path / "b", book=first.book) as second,
        attached(first, _Watches(), servers=(first.name, second.name)),
    ):
        second.sessions.subscribe(lambda _cluster: over.append(asked.over))
        asked = ask(first, head=get(long=True))
        await eventually(lambda: asked.body)
        await asyncio.sleep(0.5)
        assert not asked.over
        first.sessions.drain()
        await eventually(lambda: asked.over)
        assert (asked.reset, asked.body, over) == (None, b"{}\n", [False])


async def test_a_stub_that_drains_alone_keeps_the_session_until_it_goes(stub: Stub) -> None:
    """The agent knocks again at the same door: that must not end what the old session still has."""
    handler = Answering(body=None)
    async with attached(stub, handler):
        asked = ask(stub)
        await eventually(lambda: handler.begun)
        stub.sessions.drain()
        await asyncio.sleep(0.5)
        assert not asked.over
        (before,) = stub.sessions.all()
        handler.answer(handler.begun[0][0], b"late")
        await eventually(lambda: asked.over)
        assert (asked.reset, asked.body) == (None, b"late")
        stub.sessions.draining = False  # it is another process, at the same address
        await eventually(lambda: [one for one in stub.sessions.all() if one is not before])


# --- cancellation


@pytest.mark.parametrize("turns", [*range(0, 40, 2), 50, 80, 120, 200])
async def test_an_agent_cancelled_at_any_point_leaves_nothing(authority: Authority, tmp_path: Path, turns: int) -> None:
    async with nothing_left(), Stub(authority, tmp_path) as stub:
        async with Real(stub):
            for _ in range(turns):
                await asyncio.sleep(0)
        await eventually(lambda: not stub.sessions.all())
    assert len(asyncio.all_tasks()) == 1


@pytest.mark.parametrize("seconds", [0.001, 0.003, 0.005, 0.008, 0.012, 0.02, 0.03, 0.05, 0.1])
async def test_an_agent_cancelled_at_any_time_leaves_nothing(
    authority: Authority, tmp_path: Path, seconds: float
) -> None:
    async with nothing_left(), Stub(authority, tmp_path) as stub:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(Real(stub).agent.run(), seconds)
        await eventually(lambda: not stub.sessions.all())


async def test_an_agent_cancelled_while_the_server_is_mute_leaves_nothing(authority: Authority, tmp_path: Path) -> None:
    """Before TLS, and behind it: neither says a word."""
    tls = authority.issue("mute", HOST).server_context(tmp_path)
    for context in (None, tls):
        writers: list[asyncio.StreamWriter] = []
        mute = await asyncio.start_server(lambda _r, w, kept=writers: kept.append(w), HOST, 0, ssl=context)  # type: ignore[misc]
        address = f"{HOST}:{mute.sockets[0].getsockname()[1]}"
        async with nothing_left():
            fake = Stub(authority, tmp_path / "x")
            async with Real(fake, servers=(address,)):
                await asyncio.sleep(0.2)
            for writer in writers:
                writer.transport.abort()
        mute.close()
        await asyncio.sleep(0.02)


async def test_an_agent_cancelled_with_exchanges_on_own_links_leaves_nothing(stub: Stub) -> None:
    handler = Answering(body=None)
    async with nothing_left():
        async with attached(stub, handler, links=LinkPoolLimits(warm=2, tidy=0.1, pause=0.05)):
            asked = [ask(stub, head=get(long=True)) for _ in range(5)]
            await eventually(lambda: len(handler.begun) == 5)
            for exchange, _, _ in handler.begun:
                exchange.send_response(ResponseBlock(200, []))
                exchange.send_data(b"x" * 1000)
            await eventually(lambda: all(each.body for each in asked))
            await eventually(lambda: len(stub.sessions.all()[0].mux.own_links) >= 5)
        await eventually(lambda: all(each.reset for each in asked))
        await eventually(lambda: not stub.sessions.all())
        assert all(request.reset is not None for _, _, request in handler.begun)


async def test_a_welcome_whose_secret_is_no_base64_is_no_crash(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: seen.append(context))
    encode = proof.encode
    async with Stub(authority, tmp_path) as stub, Real(stub, backoff=Delays()) as real:
        monkeypatch.setattr("stub.attaching.proof.encode", lambda raw: encode(raw) + "!" if len(raw) == 32 else "")
        await asyncio.sleep(0.3)
        monkeypatch.undo()
        assert not seen
        await eventually(lambda: real.agent.attached)


def test_the_secrets_are_in_no_representation() -> None:
    asking = Asking("agent", "test", "1" * 32, JoinToken("join-a", b"very-secret"))
    assert "very-secret" not in repr(asking) + repr(Identity("s", b"very-secret"))
    assert "private" not in repr(Book().issued()).lower()

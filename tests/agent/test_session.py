"""A session as the agent holds it: what keeps it alive, and what ends it when the network says nothing."""

from __future__ import annotations

import asyncio
import time

from agent.address import Address, Target
from agent.session import AgentSession, Identity
from tests.support.attached import Answering, Stub, ask, attached, eventually, get
from tests.support.cuttable import Cuttable
from tunnel import block
from tunnel.agentmux import AgentMux
from tunnel.errors import Reason
from tunnel.frames import HEAD
from tunnel.handshake import Challenge
from tunnel.limits import KIB, LinkLimits, Timing
from tunnel.ports import AgentExchange, RequestBlock, RequestSink, ResponseBlock


async def test_a_network_that_says_nothing_ends_the_session_at_both_ends(stub: Stub) -> None:
    """No RST comes: PINGs are not answered (here after a second), streams are told, and the agent attaches anew."""
    handler = Answering(body=None)
    async with Cuttable(stub.port) as between:
        name = f"127.0.0.1:{between.port}"
        async with attached(stub, handler, servers=(name,)) as real:
            streams = [ask(stub, head=get(long=True)) for _ in range(3)]
            await eventually(lambda: len(handler.begun) == 3)
            for exchange, _, _ in handler.begun:
                exchange.send_response(ResponseBlock(200, []))
                exchange.send_data(b"begin")
            await eventually(lambda: all(stream.body for stream in streams))
            (before,) = stub.sessions.all()
            began = time.monotonic()
            between.freeze()
            await eventually(lambda: all(stream.reset for stream in streams))
            assert 0.8 < time.monotonic() - began < 2.0
            assert {stream.reset.reason for stream in streams if stream.reset} == {Reason.LINK_LOST}
            await eventually(lambda: all(request.reset for _, _, request in handler.begun))
            await eventually(lambda: not real.agent.sessions)
            assert not stub.sessions.all()
            between.thaw()
            await eventually(lambda: stub.sessions.all() and stub.sessions.all() != [before], 5.0)
            handler.body = b"again"
            asked = ask(stub)
            await eventually(lambda: asked.over)
            assert asked.body == b"again"


async def test_a_cut_ends_streams_at_once_and_the_next_session_takes_over(stub: Stub) -> None:
    handler = Answering(body=None)
    async with Cuttable(stub.port) as between, attached(stub, handler, servers=(f"127.0.0.1:{between.port}",)):
        for _ in range(5):
            handler.begun.clear()
            stream = ask(stub, head=get(long=True))
            await eventually(lambda: handler.begun)
            began = time.monotonic()
            between.cut()
            await eventually(lambda asked=stream: asked.over)  # type: ignore[misc]
            assert time.monotonic() - began < 0.5
            await eventually(lambda: stub.sessions.all())


async def test_an_agent_ends_when_its_connections_have_closed_and_waits_for_no_dead_peer(stub: Stub) -> None:
    """What was committed goes out first; a peer that takes nothing is waited for as long as the timing says."""
    async with Cuttable(stub.port) as between:
        async with attached(stub, servers=(f"127.0.0.1:{between.port}",)) as real:
            (session,) = real.agent.sessions
            between.freeze()
            began = time.monotonic()
        assert [one.transport for one in session._connections] == [None] * len(session._connections)
        assert 0.8 < time.monotonic() - began < 3.5
        between.thaw()
        await eventually(lambda: not stub.sessions.all())


async def test_an_own_link_that_is_lost_costs_its_exchange_only(stub: Stub) -> None:
    handler = Answering(body=None)
    async with attached(stub, handler) as real:
        streams = [ask(stub, head=get(long=True)) for _ in range(2)]
        await eventually(lambda: len(handler.begun) == 2)
        for exchange, _, _ in handler.begun:
            exchange.send_response(ResponseBlock(200, []))
            exchange.send_data(b"begin")
        (session,) = stub.sessions.all()
        await eventually(lambda: all(e.link.own for e in session.mux.exchanges.values()))
        await eventually(lambda: all(stream.body for stream in streams))
        (ours,) = real.agent.sessions
        first = ours.mux.exchanges[min(ours.mux.exchanges)]
        first.link.close("cut by the test")
        await eventually(lambda: streams[0].over)
        for exchange, _, _ in handler.begun[1:]:
            exchange.send_end()
        await eventually(lambda: streams[1].over)
        assert streams[0].reset is not None
        assert (streams[1].reset, streams[1].body) == (None, b"begin")
        assert stub.sessions.all() == [session]


class Ignored:
    """The sink of a request that nobody answers."""

    def on_data(self, data: bytes) -> None: ...
    def on_end(self, trailers: object) -> None: ...
    def on_reset(self, error: object) -> None: ...
    def on_writable(self) -> None: ...


def _bare() -> tuple[AgentSession, list[AgentExchange]]:
    begun: list[AgentExchange] = []

    def handler(exchange: AgentExchange, _head: RequestBlock) -> RequestSink:
        begun.append(exchange)
        return Ignored()

    mux = AgentMux(
        epoch=1, max_exchanges=10, handler=handler, peer_credit=64 * KIB, clock=time.monotonic, limits=LinkLimits(),
        timing=Timing(), on_message=lambda _message: None, on_bug=lambda _exchange, _error: None,
    )  # fmt: skip
    return AgentSession(mux, Challenge("n", (1,), 1, "s"), Identity("a", b"b"), {}, Target(Address("stub.test"))), begun


async def test_only_what_has_waited_long_enough_and_has_no_answer_counts_as_waiting() -> None:
    session, begun = _bare()

    def arrives(number: int) -> None:
        flags, payload = block.encode_request(get(), 1)
        session.mux.handle(session.mux.shared, HEAD, flags, number, payload)

    arrives(1)
    arrives(2)

    def waiting(beyond: int = 0) -> list[int]:
        session.look(0.1)
        return [one.id for one in session.waiting(beyond)]

    assert waiting() == []
    await asyncio.sleep(0.12)
    arrives(3)
    assert waiting() == [2, 1]
    begun[0].send_response(ResponseBlock(200, []))
    assert waiting() == [2]
    await asyncio.sleep(0.12)
    assert waiting() == [3, 2]
    assert waiting(beyond=2) == [3]
    assert waiting(beyond=3) == []
    for _ in range(100):
        session.look(0.0)
    assert len(session._marks) <= 2

"""A connection whose work is done ends when its last bytes have arrived, and in the end in any case."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.agent.pki import Authority
from tests.support.joined_traffic import pattern
from tests.tunnel.test_adapter import Call, Pair, paired, until
from tunnel import agentmux
from tunnel.limits import KIB, Timing
from tunnel.ports import AgentExchange, Headers, RequestBlock, ResponseBlock

SIZE = 300 * KIB
QUICK = 110 * KIB
"""What passes the slow wire before it becomes slow: more is still unsent when the answer's end is committed."""
RATE = 24 * KIB


class Answer:
    """The agent's handler and sink: a long answer, as fast as it goes."""

    def __init__(self, exchange: AgentExchange, head: RequestBlock) -> None:
        self.exchange = exchange
        self.sent = 0
        exchange.send_response(ResponseBlock(200, []))
        self.on_writable()

    def on_writable(self) -> None:
        while self.sent < SIZE:
            piece = pattern(0, self.sent, min(16 * KIB, SIZE - self.sent))
            self.sent += len(piece)
            if not self.exchange.send_data(piece):
                return
        self.exchange.send_end()

    def on_data(self, data: bytes) -> None: ...

    def on_end(self, trailers: Headers) -> None: ...

    def on_reset(self, error: Any) -> None:
        self.exchange.released()


class SlowUplink:
    """A wire to `port` with small buffers, on which the agent's direction becomes slow."""

    def __init__(self, port: int) -> None:
        self.target = port
        self.tasks: list[asyncio.Task[None]] = []

    async def start(self) -> int:
        listening = socket.create_server(("127.0.0.1", 0))
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * KIB)
        self.server = await asyncio.start_server(self._serve, sock=listening, limit=2 * KIB)
        port: int = listening.getsockname()[1]
        return port

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up, down = await asyncio.open_connection("127.0.0.1", self.target)
        back = asyncio.create_task(self._copy(up, writer, None))
        try:
            await self._copy(reader, down, QUICK)
            await back
        finally:
            back.cancel()
            writer.transport.abort()
            down.transport.abort()

    async def _copy(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, quick: int | None) -> None:
        passed = 0
        try:
            while data := await source.read(2 * KIB):
                sink.write(data)
                await sink.drain()
                passed += len(data)
                if quick is not None and passed > quick:
                    await asyncio.sleep(len(data) / RATE)
            sink.close()
        except ConnectionError:
            sink.transport.abort()


@pytest.mark.parametrize("secure", [False, True], ids=["tcp", "tls"])
def test_an_answers_end_arrives_over_a_slow_uplink_though_its_link_is_worn(
    run: Callable[..., None], secure: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agentmux, "WORN", 64 * KIB)
    server_tls = client_tls = None
    if secure:
        authority = Authority()
        server_tls = authority.issue("stub", "127.0.0.1").server_context(tmp_path)
        client_tls = ssl.create_default_context(cadata=authority.pem)

    async def test() -> None:
        pair = Pair(handler=Answer)
        server = await pair.loop.create_server(pair.accept, "127.0.0.1", 0, ssl=server_tls)
        port = server.sockets[0].getsockname()[1]
        slow = SlowUplink(port)
        shared = await pair.dial(port, 0, client_tls)
        connection = await pair.dial(await slow.start(), 1, client_tls)
        transport = connection.transport
        assert transport is not None
        raw = transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * KIB)
        await until(lambda: pair.agent.free and pair.stub.own_links)
        call = Call(0)
        call.size = SIZE
        call.exchange = pair.stub.open(RequestBlock(b"GET", b"/", [], ended=True, long=True), call)
        await until(lambda: call.received and not pair.agent.own_links)
        done = pair.loop.time()
        assert await call.done == "whole"
        assert pair.loop.time() - done > 2.2  # otherwise this shows nothing
        await until(lambda: connection.transport is None)
        assert pair.stub.closed_reason is None
        pair.agent.close("the test is over")
        await until(lambda: shared.transport is None)
        slow.server.close()
        server.close()
        await asyncio.sleep(0.02)

    run(test())


@pytest.mark.parametrize("both", [False, True])
def test_two_that_read_part_at_once(run: Callable[..., None], both: bool) -> None:
    async def test() -> None:
        async with paired(own_links=1) as (pair, connections):
            (mine,), (other,) = pair.agent.own_links.values(), pair.stub.own_links.values()
            began = pair.loop.time()
            mine.finish("done")
            if both:
                other.finish("done, too")
            ours, theirs = connections[1], pair.connections[1]
            await until(lambda: ours.transport is None and theirs.transport is None)
            assert pair.loop.time() - began < 0.2

    run(test())


def test_a_peer_that_takes_nothing_is_not_waited_for(run: Callable[..., None]) -> None:
    async def test() -> None:
        async with paired(own_links=1, timing=Timing(progress=0.4)) as (pair, connections):
            theirs = pair.connections[1].transport
            assert theirs is not None
            theirs.pause_reading()
            (link,) = pair.agent.own_links.values()
            began = pair.loop.time()
            link.finish("done")
            await until(lambda: connections[1].transport is None)
            assert 0.3 < pair.loop.time() - began < 1.5
            theirs.resume_reading()

    run(test())


def test_a_peer_that_takes_a_little_now_and_then_is_not_waited_for_for_ever(run: Callable[..., None]) -> None:
    async def test() -> None:
        async with paired(own_links=1, timing=Timing(progress=0.5, farewell=1.0)) as (pair, connections):
            theirs, ours = pair.connections[1].transport, connections[1].transport
            assert theirs is not None
            assert ours is not None
            theirs.pause_reading()
            ours.write(bytes(8_000_000))
            (link,) = pair.agent.own_links.values()
            began = pair.loop.time()
            link.finish("done")
            raw = theirs.get_extra_info("socket")
            peek = socket.socket(fileno=socket.dup(raw.fileno()))
            while connections[1].transport is not None and pair.loop.time() - began < 4:
                await asyncio.sleep(0.05)
                try:
                    peek.recv(64 * KIB, socket.MSG_DONTWAIT)
                except OSError:
                    break
            peek.close()
            assert connections[1].transport is None
            assert 0.8 < pair.loop.time() - began < 2
            pair.connections[1].abort("the test is over")

    run(test())


def test_what_is_committed_goes_out_though_there_is_no_room(run: Callable[..., None]) -> None:
    async def test() -> None:
        async with paired(own_links=1) as (pair, _):
            heard: list[bytes] = []
            pair.stub.on_pong = lambda *said: heard.append(said[1])  # type: ignore[method-assign]
            (link,) = pair.agent.own_links.values()
            link.paused = True
            link.pong(b"12345678")
            link.finish("done")
            await until(lambda: heard)

    run(test())

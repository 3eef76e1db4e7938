"""Links over real sockets: loopback, plain TCP, on uvloop and on asyncio's own loop."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from tests.support.joined_traffic import pattern
from tunnel.adapter import LinkConnection
from tunnel.agentmux import AgentMux
from tunnel.batch import Batch
from tunnel.carriage import WebSocketClient, WebSocketServer
from tunnel.errors import ExchangeReset, Hop, Reason
from tunnel.frames import CONTROL, encode
from tunnel.limits import KIB, MIB, LinkLimits, Timing
from tunnel.link import Link
from tunnel.ports import AgentExchange, Headers, RequestBlock, ResponseBlock
from tunnel.stubmux import StubMux

OWN = encode(CONTROL, payload=b'{"kind": "own"}')


async def until(holds: Callable[[], object]) -> None:
    """Wait for what comes from the other end of a socket."""
    while not holds():  # noqa: ASYNC110 - nobody tells a test about it
        await asyncio.sleep(0.001)


class Echo:
    """The agent's handler and sink: it sends back what it gets."""

    def __init__(self, exchange: AgentExchange, head: RequestBlock) -> None:
        self.exchange = exchange
        self.owed = 0
        exchange.send_response(ResponseBlock(200, []))
        if head.ended:
            exchange.send_end()

    def on_data(self, data: bytes) -> None:
        if self.exchange.send_data(data):
            self.exchange.consumed(len(data))
        else:
            self.owed += len(data)

    def on_end(self, trailers: Headers) -> None:
        self.exchange.send_end()

    def on_reset(self, error: ExchangeReset) -> None:
        self.exchange.released()

    def on_writable(self) -> None:
        owed, self.owed = self.owed, 0
        self.exchange.consumed(owed)


class Call:
    """A client's request of `size` bytes, and the check of its echo."""

    def __init__(self, size: int, reads: bool = True) -> None:
        self.size, self.reads = size, reads
        self.sent = self.received = 0
        self.exchange: Any = None
        self.done: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def start(self, mux: StubMux, long: bool = False) -> Call:
        self.exchange = mux.open(RequestBlock(b"POST", b"/", [], ended=not self.size, long=long), self)
        self.on_writable()
        return self

    def on_writable(self) -> None:
        while self.sent < self.size:
            piece = pattern(0, self.sent, min(40_000, self.size - self.sent))
            self.sent += len(piece)
            if not self.exchange.send_data(piece):
                break
        if self.sent == self.size:
            self.exchange.send_end()

    def on_response(self, head: ResponseBlock) -> None:
        assert head.status == 200
        if head.ended:
            self.on_end([])

    def on_data(self, data: bytes) -> None:
        for at in range(0, len(data), 60_000):
            piece = data[at : at + 60_000]
            assert piece == pattern(0, self.received, len(piece))
            self.received += len(piece)
        if self.reads:
            self.exchange.consumed(len(data))

    def on_end(self, trailers: Headers) -> None:
        if not self.done.done():
            self.done.set_result("whole" if self.received == self.size else "short")

    def on_reset(self, error: ExchangeReset) -> None:
        if not self.done.done():
            self.done.set_result(error.reason.name)


class Greeting:
    """A handshake without proofs: the agent says `own`, or nothing for the shared link."""

    def __init__(self, pair: Pair, stub: bool, own: int) -> None:
        self.pair, self.stub, self.own = pair, stub, own
        self.lost: list[str] = []

    def on_open(self, connection: LinkConnection) -> None:
        if not self.stub:
            connection.send(encode(CONTROL, payload=b'{"kind": "%d"}' % self.own))
            self.pair.attach(self.pair.agent, connection, self.own)

    def on_bytes(self, connection: LinkConnection, data: bytes) -> None:
        number = int(data[data.index(b": ") + 3 : data.index(b"}") - 1])
        link = self.pair.attach(self.pair.stub, connection, number)
        link.receive(data[data.index(b"}") + 1 :])

    def on_lost(self, connection: LinkConnection, reason: str) -> None:
        self.lost.append(reason)


class Pair:
    """A stub and an agent, joined over sockets."""

    def __init__(self, timing: Timing | None = None, handler: Any = Echo) -> None:
        loop = asyncio.get_running_loop()
        self.timing = timing or Timing()
        self.loop = loop
        self.bugs: list[BaseException] = []
        self.batches = [Batch(loop.call_soon), Batch(loop.call_soon)]
        self.limits = LinkLimits()
        self.connections: list[LinkConnection] = []
        common: dict[str, Any] = {
            "epoch": 1, "max_exchanges": 1000, "peer_credit": 64 * KIB, "clock": loop.time, "limits": self.limits,
            "timing": self.timing, "on_message": print, "on_bug": lambda _exchange, error: self.bugs.append(error),
        }  # fmt: skip
        self.stub = StubMux(**common)
        self.agent = AgentMux(handler=handler, **common)

    def attach(self, mux: Any, connection: LinkConnection, number: int) -> Link:
        link: Link = mux.shared
        if number:
            link = Link(mux, own=True, link_id=number, limits=self.limits)
        connection.attach(link, mux.detach, lambda: len(mux.exchanges) > 2)
        if number:
            mux.attach(link)
        return link

    def accept(self) -> LinkConnection:
        greeting = Greeting(self, True, 0)
        connection = LinkConnection(WebSocketServer(), greeting, self.batches[0], self.limits, self.timing)
        self.connections.append(connection)
        return connection

    async def dial(self, port: int, own: int, tls: ssl.SSLContext | None = None) -> LinkConnection:
        def make() -> LinkConnection:
            greeting = Greeting(self, False, own)
            return LinkConnection(WebSocketClient("a"), greeting, self.batches[1], self.limits, self.timing)

        name = "127.0.0.1" if tls else None
        _, connection = await self.loop.create_connection(make, "127.0.0.1", port, ssl=tls, server_hostname=name)
        return connection


@asynccontextmanager
async def paired(own_links: int = 0, timing: Timing | None = None) -> AsyncIterator[tuple[Pair, list[LinkConnection]]]:
    pair = Pair(timing)
    server = await pair.loop.create_server(pair.accept, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    connections = [await pair.dial(port, number) for number in range(own_links + 1)]
    pair.agent.ping()
    await until(lambda: len(pair.stub.own_links) == len(pair.agent.free) == own_links and pair.stub.shared.heard)
    try:
        yield pair, connections
        assert not pair.bugs
    finally:
        pair.stub.close("the test is over")
        pair.agent.close("the test is over")
        server.close()
        await server.wait_closed()
        await asyncio.sleep(0.01)


def test_many_exchanges_at_once(run: Callable[..., None]) -> None:
    async def test() -> None:
        async with paired() as (pair, _):
            calls = [Call(size).start(pair.stub) for size in (0, 1, 3000, 70_000, 300_000) * 20]
            assert set(await asyncio.gather(*(call.done for call in calls))) == {"whole"}

    run(test())


def test_a_bulk_on_an_own_link_does_not_stop_between_two_writes(run: Callable[..., None]) -> None:
    """A transport that takes everything at once never says that it has room again."""

    async def test() -> None:
        async with paired(own_links=1) as (pair, _):
            assert await Call(20 * MIB).start(pair.stub, long=True).done == "whole"

    run(test())


def test_a_large_body_while_somebody_else_is_answered(run: Callable[..., None]) -> None:
    async def test() -> None:
        async with paired() as (pair, _):
            bulk = Call(3 * MIB).start(pair.stub)
            stalled = [Call(200_000, reads=False).start(pair.stub) for _ in range(20)]
            for _ in range(20):
                assert await Call(3000).start(pair.stub).done == "whole"
            assert await bulk.done == "whole"
            for call in stalled:
                call.exchange.cancel(Hop.CLIENT, Reason.CANCELLED, "enough")
            await until(lambda: not (pair.stub.exchanges or pair.agent.exchanges))

    run(test())


@pytest.mark.parametrize("whose", ["agent", "stub"])
def test_a_link_that_closes_says_its_last_word(run: Callable[..., None], whose: str) -> None:
    """What is committed before `close` arrives: a RESET+ACK that is lost here would keep an exchange for ever."""

    async def test() -> None:
        async with paired(own_links=1) as (pair, _):
            mine, other = (pair.agent, pair.stub) if whose == "agent" else (pair.stub, pair.agent)
            heard: list[bytes] = []

            def on_pong(link: Link, payload: bytes) -> None:
                if link.own:  # the shared link measures itself meanwhile
                    heard.append(payload)

            other.on_pong = on_pong  # type: ignore[method-assign]
            link = next(iter(mine.own_links.values()))
            link.pong(b"12345678")
            link.close("done")
            await until(lambda: heard and not other.own_links)
            assert heard == [b"12345678"]
            assert pair.stub.closed_reason is None

    run(test())


def test_the_loss_of_the_shared_link_ends_everything(run: Callable[..., None]) -> None:
    async def test() -> None:
        async with paired(own_links=2) as (pair, connections):
            call = Call(10 * MIB, reads=False).start(pair.stub)
            await asyncio.sleep(0.01)
            connections[0].abort("the test pulls the plug")
            assert await call.done == "LINK_LOST"
            await until(lambda: not (pair.stub.own_links or pair.agent.own_links))
            assert pair.agent.closed_reason == "the test pulls the plug"

    run(test())


def test_a_peer_that_does_not_read_pauses_the_link_and_nothing_grows(run: Callable[..., None]) -> None:
    async def test() -> None:
        async with paired() as (pair, connections):
            transport = connections[0].transport
            assert transport is not None
            transport.pause_reading()
            for _ in range(200):
                Call(60_000).start(pair.stub)
            await until(lambda: pair.stub.shared.paused)
            await asyncio.sleep(0.01)
            server = pair.connections[0].transport
            assert server is not None
            assert server.get_write_buffer_size() < 64 * KIB + 64 * KIB + 16 * KIB + 200 * 100
            transport.resume_reading()
            await until(lambda: not pair.stub.exchanges)

    run(test())


def test_a_protocol_error_ends_the_link_and_is_told(run: Callable[..., None]) -> None:
    async def test() -> None:
        async with paired() as (pair, connections):
            connections[0].send(encode(0x05, 1, 99))
            await until(lambda: pair.agent.closed_reason)
            assert pair.stub.closed_reason == "RESET for exchange 99, which was never opened"
            assert pair.agent.closed_reason == "the peer closed the link"

    run(test())


def test_strangers_get_an_answer_and_no_more(run: Callable[..., None]) -> None:
    async def test() -> None:
        async with paired() as (pair, _):
            server = await pair.loop.create_server(pair.accept, "127.0.0.1", 0)
            reader, writer = await asyncio.open_connection("127.0.0.1", server.sockets[0].getsockname()[1])
            writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n")
            assert (await reader.read()).startswith(b"HTTP/1.1 404")
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()
            server.close()

    run(test())


def test_a_flood_of_websocket_pings_without_reading(run: Callable[..., None]) -> None:
    async def test() -> None:
        async with paired() as (pair, connections):
            transport = connections[0].transport
            assert transport is not None
            transport.pause_reading()
            connections[0].send(encode(0x80, payload=bytes(60_000))[:20])
            ping = b"\x89\xfd\0\0\0\0" + bytes(125) + b"\x82\x81\0\0\0\0\0"
            for _ in range(4000):
                if pair.stub.closed_reason:
                    break
                transport.write(ping * 50)
                await asyncio.sleep(0)
            await until(lambda: pair.stub.closed_reason)
            assert pair.stub.closed_reason == "the peer does not read"
            connections[0].abort("it does not notice, since it does not read")

    run(test())


def test_an_end_before_there_is_a_link_or_a_connection(run: Callable[..., None]) -> None:
    async def test() -> None:
        pair = Pair()
        for end in (LinkConnection.end, LinkConnection.abort):
            greeting = Greeting(pair, True, 0)
            connection = LinkConnection(WebSocketServer(), greeting, pair.batches[0], pair.limits)
            end(connection, "enough")
            end(connection, "again")
            server = await pair.loop.create_server(lambda c=connection: c, "127.0.0.1", 0)  # type: ignore[misc]
            reader, writer = await asyncio.open_connection("127.0.0.1", server.sockets[0].getsockname()[1])
            with suppress(ConnectionError):
                assert await reader.read() == b""
            writer.close()
            server.close()
            assert greeting.lost == ["enough"]

    run(test())


def test_a_link_that_waited_for_its_connection_is_written_when_attached(run: Callable[..., None]) -> None:
    async def test() -> None:
        pair = Pair()
        pair.agent.shared.message(b'{"kind": "health"}')
        got: list[Any] = []
        pair.stub.on_message = got.append
        server = await pair.loop.create_server(pair.accept, "127.0.0.1", 0)
        await pair.dial(server.sockets[0].getsockname()[1], 0)
        await until(lambda: got)
        pair.agent.close("over")
        server.close()
        await asyncio.sleep(0.01)

    run(test())

"""Relays behind the real cores of the tunnel: what the fakes promise of an exchange is what it does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from agent.relay import Relay
from tests.agent.apiserver import Client
from tests.agent.conftest import Before
from tests.agent.conftest import World as Upstream
from tests.agent.fakes import get, post, websocket
from tests.agent.test_relay_upgrade import ACCEPT, SWITCH, echo
from tests.support.joined import World
from tunnel.errors import ExchangeReset, Hop, Reason
from tunnel.ports import AgentExchange, Exchange, Headers, RequestBlock, ResponseBlock

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
SIZE = 3_000_000


class Gateway:
    """The gateway's side: keeps the answer, and consumes it at once unless told not to."""

    def __init__(self, reading: bool = True) -> None:
        self.exchange: Exchange | None = None
        self.heads: list[ResponseBlock] = []
        self.size = 0
        self.ended = False
        self.reading = reading
        self.error: ExchangeReset | None = None
        self.writable = True

    def on_response(self, head: ResponseBlock) -> None:
        self.heads.append(head)
        self.ended = head.ended

    def on_data(self, data: bytes) -> None:
        self.size += len(data)
        if self.reading and self.exchange is not None:
            self.exchange.consumed(len(data))

    def on_end(self, trailers: Headers) -> None:
        self.ended = True

    def on_reset(self, error: ExchangeReset) -> None:
        self.error = error

    def on_writable(self) -> None:
        self.writable = True


class Tunnel:
    """A stub's core and an agent's, joined, before a real pool."""

    def __init__(self, upstream: Upstream) -> None:
        self.upstream = upstream
        self.world = World(self._relay, cuts=False)

    def _relay(self, exchange: AgentExchange, head: RequestBlock) -> Relay:
        relay = Relay(exchange, self.upstream.pool, self.upstream.policy)
        relay.start(head)
        return relay

    def open(self, head: RequestBlock, reading: bool = True) -> Gateway:
        """A request of the gateway's."""
        client = Gateway(reading)
        client.exchange = self.world.stub.open(head, client)
        return client

    async def until(self, condition: Callable[[], object]) -> None:
        """Let the tunnel's time pass in small steps beside the real one."""
        async with asyncio.timeout(10):
            while not condition():
                self.world.run(seconds=0.02)
                await asyncio.sleep(0.0005)
        assert not self.world.bugs
        assert not self.world.errors

    async def idle(self) -> None:
        """No exchange is left at either end, and no connection in use."""
        await self.until(lambda: not self.world.stub.exchanges and not self.world.agent.exchanges)
        await self.until(lambda: self.upstream.pool.state.open == self.upstream.pool.state.idle)


async def serve(client: Client) -> None:
    while True:
        head = await client.head()
        if b"content-length: " in head or b"transfer-encoding: " in head:
            assert len(await client.body(head)) == SIZE
        if b"GET /large" in head:
            await client.say(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % SIZE + b"x" * SIZE)
        else:
            await client.say(OK)


async def test_small_large_and_uploaded_bodies_cross_whole(before: Before) -> None:
    async with before(serve) as upstream:
        tunnel = Tunnel(upstream)
        small, large = tunnel.open(get()), tunnel.open(get(b"/large"))
        upload = tunnel.open(post((b"content-length", str(SIZE).encode())))
        sent = 0
        assert upload.exchange is not None
        while sent < SIZE:
            upload.writable = upload.exchange.send_data(b"y" * min(50_000, SIZE - sent))
            sent += min(50_000, SIZE - sent)
            await tunnel.until(lambda: upload.writable)
        upload.exchange.send_end()
        await tunnel.until(lambda: small.ended and large.ended and upload.ended)
        assert (small.size, large.size, upload.size) == (2, SIZE, 2)
        await tunnel.idle()


async def test_a_reader_that_stops_is_bounded_and_then_cancelled(before: Before) -> None:
    async with before(serve) as upstream:
        tunnel = Tunnel(upstream)
        client = tunnel.open(get(b"/large"), reading=False)
        await tunnel.until(lambda: client.size)
        for _ in range(50):
            tunnel.world.run(seconds=0.02)
            await asyncio.sleep(0.001)
        assert client.size < SIZE
        assert client.exchange is not None
        client.exchange.cancel(Hop.CLIENT, Reason.CANCELLED, "gone")
        await tunnel.idle()
        assert upstream.pool.state.open == 0


async def test_a_hijacked_stream_crosses_and_ends_from_either_side(before: Before) -> None:
    async def script(client: Client) -> None:
        await client.head()
        await client.say(SWITCH + ACCEPT + b"\r\nfirst")
        if client.number == 0:
            await echo(client)

    async with before(script) as upstream:
        tunnel = Tunnel(upstream)
        for leaver in ("client", "server"):
            client = tunnel.open(websocket())
            await tunnel.until(lambda client=client: client.size >= 5)  # type: ignore[misc]
            assert client.heads[0].upgrade
            assert client.exchange is not None
            if leaver == "client":
                client.exchange.send_data(b"z" * 20_000)
                await tunnel.until(lambda client=client: client.size == 20_005)  # type: ignore[misc]
                client.exchange.send_end()
                await tunnel.until(lambda client=client: client.ended)  # type: ignore[misc]
            else:
                await tunnel.until(lambda client=client: client.ended)  # type: ignore[misc]
                client.exchange.send_end()
            await tunnel.idle()
        assert upstream.pool.state.open == 0


async def test_refusals_and_broken_answers_free_their_exchange(before: Before) -> None:
    async def script(client: Client) -> None:
        await client.head()
        await client.say(OK + b"surplus")
        await client.rest()

    async with before(script) as upstream:
        tunnel = Tunnel(upstream)
        refused = tunnel.open(RequestBlock(b"GET", b"/", []))
        broken = tunnel.open(get())
        await tunnel.until(lambda: refused.error and broken.error)
        assert refused.error is not None
        assert broken.error is not None
        assert (refused.error.reason, broken.error.reason) == (Reason.REFUSED_HEAD, Reason.BAD_RESPONSE)
        await tunnel.idle()
        assert upstream.pool.state.open == 0


async def test_the_loss_of_the_session_closes_its_upstreams(before: Before) -> None:
    async def never(client: Client) -> None:
        await client.head()
        await client.rest()

    async with before(never) as upstream:
        tunnel = Tunnel(upstream)
        for _ in range(5):
            tunnel.open(get())
        await tunnel.until(lambda: len(upstream.server.clients) == 5 and upstream.pool.state.open == 5)
        tunnel.world.agent.close("lost")
        await tunnel.until(lambda: not upstream.pool.state.open)

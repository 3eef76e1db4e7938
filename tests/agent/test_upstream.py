"""Pausing TLS: records that come in pieces, and ends that come meanwhile."""

from __future__ import annotations

import asyncio

from agent.access import ApiServer, FixedAccess
from tests.agent.apiserver import Client
from tests.agent.conftest import Before
from tests.agent.fakes import FakeExchange, get
from tests.agent.splitter import Splitter

SIZE = 100_000


async def test_half_a_record_does_not_keep_a_connection_paused(before: Before) -> None:
    async def script(client: Client) -> None:
        await client.head()
        await client.say(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % SIZE)
        await asyncio.sleep(0.05)
        await client.say(b"x" * SIZE)
        await client.rest()

    async with before(script) as world, Splitter(world.server.port, 5000) as port:
        tls = world.pool.access.context()
        world.pool.access = FixedAccess(ApiServer("127.0.0.1", port, "127.0.0.1"), tls, b"t")
        exchange = FakeExchange()
        exchange.room = False
        _, relay = world.start(get(), exchange)
        while not exchange.ended:
            seen = len(exchange.data)
            relay.on_writable()
            await exchange.until(lambda seen=seen: len(exchange.data) > seen or exchange.ended)  # type: ignore[misc]
            await asyncio.sleep(0.01)
        assert exchange.data == b"x" * SIZE

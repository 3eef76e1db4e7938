"""Early answers, back-pressure both ways, RESETs, and connections that the API server closes under a
request.
"""

from __future__ import annotations

import asyncio

import pytest

from agent.outgoing import DISCARDED_MAX
from agent.pool import PoolLimits
from tests.agent.apiserver import Client, answering
from tests.agent.conftest import Before
from tests.agent.fakes import FakeExchange, get, post
from tunnel.errors import ExchangeReset, Hop, Reason

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
TOO_LARGE = b"HTTP/1.1 413 Too Large\r\nContent-Length: 4\r\n\r\nlong"
CANCELLED = ExchangeReset(Hop.CLIENT, Reason.CANCELLED, "gone")


async def test_an_early_answer_is_passed_and_the_rest_discarded_within_bounds(before: Before) -> None:
    async def script(client: Client) -> None:
        await client.head()
        if client.number == 0:
            await client.say(TOO_LARGE)
            await client.rest()
        else:
            await client.say(OK)
            await client.rest()

    async with before(script) as world:
        exchange, relay = world.start(post((b"content-length", str(10 << 20).encode())))
        relay.on_data(b"x" * 1000)
        await exchange.over()
        assert (exchange.head.status, exchange.data, exchange.reset) == (413, b"long", None)
        for _ in range(64):
            relay.on_data(b"x" * 65_536)
        assert exchange.credit <= DISCARDED_MAX + 1000
        await exchange.until(lambda: not world.pool.state.open)
        relay.on_reset(ExchangeReset(Hop.STUB, Reason.STOPPED, ""))
        assert exchange.releases == 1
        assert (await world.ask(get())).data == b"ok"
        assert len(world.server.clients) == 2


async def test_a_whole_request_after_an_early_answer_leaves_nothing_behind(before: Before) -> None:
    async with before(answering(TOO_LARGE)) as world:
        exchange, relay = world.start(post())
        await exchange.until(lambda: world.server.clients)
        relay.on_data(b"x")
        relay.on_end([])
        await exchange.over()
        await exchange.until(lambda: exchange.head.status == 413)
        assert world.pool.state.idle == 1


async def test_data_before_the_connection_is_held_and_sent_in_order(before: Before) -> None:
    async with before(answering(OK)) as world:
        exchange, relay = world.start(post())
        for at in range(10):
            relay.on_data(b"%d" % at)
        assert exchange.credit == 0
        relay.on_end([])
        await exchange.over()
        assert b"".join(b"1\r\n%d\r\n" % at for at in range(10)) + b"0\r\n\r\n" in world.server.clients[0].seen
        assert exchange.credit == 10


async def test_an_api_server_that_does_not_read_gives_no_credit(before: Before) -> None:
    """Only what socket buffers and the transport take is granted again; the rest waits for the reader."""
    reading = asyncio.Event()

    async def script(client: Client) -> None:
        head = await client.head()
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await reading.wait()
        client.writer.transport.resume_reading()  # type: ignore[attr-defined]
        await client.body(head)
        await client.say(OK)
        await client.rest()

    size, sent = 64 << 10, 0
    async with before(script) as world:
        exchange, relay = world.start(post((b"content-length", str(32 << 20).encode())))
        await exchange.until(lambda: world.server.clients and world.server.clients[0].seen)
        while sent - exchange.credit < 4 * size and sent < 32 << 20:
            relay.on_data(b"x" * size)
            sent += size
            await asyncio.sleep(0)
        assert sent < 32 << 20
        stalled = exchange.credit
        await asyncio.sleep(0.1)
        assert exchange.credit == stalled
        reading.set()
        while sent < 32 << 20:
            await exchange.until(lambda sent=sent: sent - exchange.credit < 4 * size)  # type: ignore[misc]
            relay.on_data(b"x" * size)
            sent += size
        relay.on_end([])
        await exchange.over()
        assert exchange.data == b"ok"
        assert exchange.credit == 32 << 20


async def test_a_link_that_takes_nothing_pauses_the_api_server(before: Before) -> None:
    """And an end that comes while paused loses none of the bytes before it."""
    size = 16 << 20
    written = 0

    async def script(client: Client) -> None:
        nonlocal written
        await client.head()
        await client.say(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % size)
        while written < size:
            await client.say(b"x" * 65_536)
            written += 65_536

    async with before(script) as world:
        exchange = FakeExchange()
        exchange.room = False
        _, relay = world.start(get(), exchange)
        await exchange.until(lambda: exchange.data)
        await asyncio.sleep(0.2)
        assert len(exchange.data) <= 1 << 20
        assert written < size
        while not exchange.ended:
            assert exchange.reset is None
            seen = len(exchange.data)
            relay.on_writable()
            await exchange.until(lambda: len(exchange.data) > seen or exchange.ended or exchange.reset)  # noqa: B023
        assert len(exchange.data) == size


@pytest.mark.parametrize("tail", [1, 100_000, 200_000])
async def test_a_close_while_paused_waits_behind_the_bytes(tail: int, before: Before) -> None:
    """uvloop alone would drop what came before the FIN: a log's last lines, an exec's last output."""

    async def script(client: Client) -> None:
        await client.head()
        await client.say(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\nx" % (tail + 1))
        await asyncio.sleep(0.05)
        await client.say(b"y" * tail)

    async with before(script) as world:
        exchange = FakeExchange()
        exchange.room = False
        _, relay = world.start(get(), exchange)
        await exchange.until(lambda: exchange.data)
        await asyncio.sleep(0.3)
        exchange.room = True
        relay.on_writable()
        await exchange.over()
        assert exchange.reset is None
        assert exchange.data == b"x" + b"y" * tail


async def test_a_reset_closes_the_upstream_at_once_and_only_then_releases(before: Before) -> None:
    async def script(client: Client) -> None:
        await client.head()
        await client.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        await client.rest()
        closed.set()

    closed = asyncio.Event()
    async with before(script) as world:
        exchange, relay = world.start(get())
        await exchange.until(lambda: exchange.data)
        relay.on_reset(CANCELLED)
        assert exchange.releases == 0
        await exchange.until(lambda: exchange.releases)
        assert world.pool.state.open == 0
        await asyncio.wait_for(closed.wait(), 2)
        assert exchange.events[-1] == "released"
        assert exchange.events.count("released") == 1


async def test_a_reset_while_waiting_takes_no_connection(before: Before) -> None:
    async with before(answering(OK)) as world:
        exchange, relay = world.start(get())
        relay.on_reset(CANCELLED)
        assert exchange.releases == 1
        await exchange.until(lambda: world.pool.state.idle)
        assert exchange.events == ["released"]
        assert not world.server.clients[0].seen


async def test_no_callback_after_the_end(before: Before) -> None:
    async with before(answering(OK)) as world:
        exchange = await world.ask(get())
        events = list(exchange.events)
        await world.pool.close()
        await asyncio.sleep(0.05)
        assert exchange.events == events


async def close_second(client: Client) -> None:
    """The first connection takes a second request and closes without a byte; others answer."""
    await client.head()
    await client.say(OK)
    await client.head()
    if client.number:
        await client.say(OK)
        await client.rest()
    client.writer.transport.abort()


@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
async def test_a_kept_connection_that_closes_unanswered_is_replaced_once_for_a_get(
    method: bytes, before: Before
) -> None:
    async with before(close_second) as world:
        await world.ask(get())
        exchange = await world.ask(get(method=method))
        if method == b"GET":
            assert exchange.data == b"ok"
        assert len(world.server.clients) == 2
        assert world.server.clients[1].seen.startswith(method)


@pytest.mark.parametrize("method", [b"POST", b"PUT", b"PATCH", b"DELETE"])
async def test_a_write_that_closes_unanswered_says_that_its_outcome_is_unknown(method: bytes, before: Before) -> None:
    async with before(close_second) as world:
        await world.ask(get())
        exchange = await world.ask(get(method=method))
        assert exchange.reset is not None
        assert (exchange.reset.hop, exchange.reset.reason) == (Hop.APISERVER, Reason.UPSTREAM_CLOSED)
        assert "unknown" in exchange.reset.message
        assert len(world.server.clients) == 1


async def test_a_proxied_get_is_not_sent_twice(before: Before) -> None:
    """Behind `*/proxy` an application decides what a GET does."""
    async with before(close_second) as world:
        await world.ask(get())
        exchange = await world.ask(get(b"/api/v1/namespaces/a/pods/b/proxy/launch"))
        assert exchange.reset is not None
        assert len(world.server.clients) == 1


async def test_a_fresh_connection_that_closes_unanswered_is_not_replaced(before: Before) -> None:
    async def script(client: Client) -> None:
        await client.head()
        client.writer.transport.abort()

    async with before(script) as world:
        exchange = await world.ask(get())
        assert exchange.reset is not None
        assert exchange.reset.reason is Reason.UPSTREAM_CLOSED
        assert len(world.server.clients) == 1


async def test_an_unanswered_request_is_not_repeated_for_ever(before: Before) -> None:
    async def script(client: Client) -> None:
        await client.head()
        if client.number == 0:
            await client.say(OK)
            await client.head()
        client.writer.transport.abort()

    async with before(script) as world:
        await world.ask(get())
        exchange = await world.ask(get())
        assert exchange.reset is not None
        assert len(world.server.clients) == 2


async def test_the_connection_is_kept_when_the_link_was_paused_at_the_end(before: Before) -> None:
    async with before(answering(OK, OK), PoolLimits()) as world:
        exchange = FakeExchange()
        exchange.room = False
        world.start(get(), exchange)
        await exchange.over()
        assert (await world.ask(get())).data == b"ok"
        assert len(world.server.clients) == 1


WATCH = b"/api/v1/pods?watch=1"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"


async def test_an_agent_that_stops_ends_a_watch_behind_a_whole_event(before: Before) -> None:
    async def script(client: Client) -> None:
        await client.head()
        await client.say(HEAD + b"a\r\n{}\n{}\n{}\n{\r\n")
        await asyncio.sleep(0.05)
        await client.say(b"2\r\n}\n\r\n")
        await asyncio.sleep(10.0)

    async with before(script) as world:
        head = get(WATCH)
        head.long = True
        exchange, relay = world.start(head)
        await exchange.until(lambda: exchange.data)
        relay.conclude()
        assert not exchange.ended, "half an event is there"
        await exchange.until(lambda: exchange.data.endswith(b"\n"))
        relay.conclude()
        assert exchange.ended
        assert exchange.data == b"{}\n{}\n{}\n{}\n"
        assert exchange.reset is None
        relay.conclude()
        await exchange.until(lambda: not world.pool.state.open)


@pytest.mark.parametrize("target", [b"/api/v1/namespaces/x/pods/p/log?follow=1", b"/api/v1/pods"])
async def test_what_is_no_watch_goes_on_when_the_agent_stops(target: bytes, before: Before) -> None:
    async def script(client: Client) -> None:
        await client.head()
        await client.say(HEAD + b"3\r\n{}\n\r\n")
        await asyncio.sleep(10.0)

    async with before(script) as world:
        head = get(target)
        head.long = True
        exchange, relay = world.start(head)
        await exchange.until(lambda: exchange.data)
        relay.conclude()
        assert not exchange.ended

"""Upgrades: only a checked 101 becomes a hijack; a failed one leaves no connection that a client could use
as the agent (CVE-2018-1002105), a redirect is not followed (CVE-2018-1002102), bytes at the switch are
not lost (k3s #6216).
"""

from __future__ import annotations

import asyncio
import socket

import pytest

from agent.pool import PoolLimits
from tests.agent.apiserver import Client, Script, answering
from tests.agent.conftest import Before
from tests.agent.fakes import USER, FakeExchange, get, websocket
from tunnel.errors import ExchangeReset, Hop, Reason
from tunnel.ports import RequestBlock

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
ACCEPT = b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
SPDY_HEAD = RequestBlock(
    b"POST", b"/exec", [*USER, (b"upgrade", b"SPDY/3.1"), (b"x-stream-protocol-version", b"v4.channel.k8s.io")],
    ended=False, upgrade=True,
)  # fmt: skip
SMUGGLED = b"GET /api/v1/secrets HTTP/1.1\r\nHost: x\r\n\r\n"
SPDY_SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n"
    b"X-Stream-Protocol-Version: v4.channel.k8s.io\r\n\r\n"
)


def switching(answer: bytes, then: Script | None = None) -> Script:
    """Read the head, answer, and go on with a script of opaque bytes, or wait for the agent's close."""

    async def script(client: Client) -> None:
        await client.head()
        await client.say(answer)
        if then is None:
            await client.rest()
        else:
            await then(client)

    return script


async def echo(client: Client) -> None:
    """Send back what comes, until the agent closes."""
    while data := await client.reader.read(65_536):
        await client.say(data)


@pytest.mark.parametrize(
    ("head", "answer"), [(websocket(), SWITCH + ACCEPT + b"\r\n"), (SPDY_HEAD, SPDY_SWITCH)], ids=["websocket", "spdy"]
)
async def test_a_checked_101_makes_an_opaque_stream_both_ways(
    head: RequestBlock, answer: bytes, before: Before
) -> None:
    async with before(switching(answer, echo)) as world:
        exchange, relay = world.start(head)
        await exchange.until(lambda: exchange.heads)
        assert (exchange.head.status, exchange.head.upgrade) == (101, True)
        assert any(name == b"upgrade" for name, _ in exchange.head.headers)
        assert not any(name == b"connection" for name, _ in exchange.head.headers)
        relay.on_data(SMUGGLED)
        await exchange.until(lambda: exchange.data == SMUGGLED)
        assert exchange.credit == len(SMUGGLED)
        relay.on_end([])
        await exchange.over()
        assert exchange.reset is None
        await exchange.until(lambda: not world.pool.state.open)


async def test_the_head_of_an_upgrade(before: Before) -> None:
    async with before(switching(SPDY_SWITCH)) as world:
        exchange, relay = world.start(SPDY_HEAD)
        await exchange.until(lambda: exchange.heads)
        seen = bytes(world.server.clients[0].seen)
        assert seen.startswith(b"POST /exec HTTP/1.1\r\n")
        assert seen.count(b"connection: Upgrade\r\n") == seen.count(b"upgrade: SPDY/3.1\r\n") == 1
        assert b"transfer-encoding" not in seen
        assert b"content-length" not in seen
        relay.on_end([])
        await exchange.over()


async def test_bytes_in_the_segment_of_the_101_are_the_streams_first(before: Before) -> None:
    async with before(switching(SWITCH + ACCEPT + b"\r\nfirst bytes")) as world:
        exchange, _ = world.start(websocket())
        await exchange.until(lambda: exchange.data)
        assert exchange.data == b"first bytes"


async def test_bytes_of_the_client_before_the_101_are_held_until_it(before: Before) -> None:
    go = asyncio.Event()

    async def script(client: Client) -> None:
        await client.head()
        await go.wait()
        await client.say(SWITCH + ACCEPT + b"\r\n")
        await echo(client)

    async with before(script) as world:
        exchange, relay = world.start(websocket())
        await exchange.until(lambda: world.server.clients and world.server.clients[0].seen)
        relay.on_data(b"early")
        await asyncio.sleep(0.05)
        assert exchange.credit == 0
        go.set()
        await exchange.until(lambda: exchange.data == b"early")


REFUSALS = {
    "200": OK,
    "400": b"HTTP/1.1 400 Bad Request\r\nContent-Length: 2\r\n\r\nno",
    "403": b"HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n",
    "302": b"HTTP/1.1 302 Found\r\nLocation: https://127.0.0.1:1/\r\nContent-Length: 2\r\n\r\nno",
}


@pytest.mark.parametrize("name", REFUSALS)
async def test_another_answer_is_passed_and_its_connection_never_used_again(name: str, before: Before) -> None:
    async def script(client: Client) -> None:
        if client.number == 0:
            await client.head()
            await client.say(REFUSALS[name])
            await client.rest()
        else:
            await answering(OK)(client)

    async with before(script) as world:
        exchange, relay = world.start(websocket())
        relay.on_data(SMUGGLED)
        await exchange.over()
        assert exchange.head.status == int(name)
        assert not exchange.head.upgrade
        assert exchange.reset is None
        relay.on_data(SMUGGLED)
        relay.on_end([])
        await exchange.until(lambda: not world.pool.state.open)
        assert (await world.ask(get())).data == b"ok"
        assert len(world.server.clients) == 2
        assert all(SMUGGLED not in client.seen for client in world.server.clients)


async def test_a_refusal_that_still_streams_survives_the_stubs_end(before: Before) -> None:
    released = asyncio.Event()

    async def rest_of_it(client: Client) -> None:
        await released.wait()
        await client.say(b"refused")
        await client.rest()

    answer = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 7\r\n\r\n"
    async with before(switching(answer, rest_of_it)) as world:
        exchange, relay = world.start(websocket())
        await exchange.until(lambda: exchange.heads)
        relay.on_end([])
        released.set()
        await exchange.over()
        assert (exchange.reset, exchange.data, exchange.ended) == (None, b"refused", True)


async def test_a_refused_upgrade_with_pipelined_bytes_behind_it(before: Before) -> None:
    async with before(switching(REFUSALS["400"] + OK)) as world:
        exchange, _ = world.start(websocket())
        await exchange.over()
        assert exchange.reset is not None
        assert exchange.reset.reason is Reason.BAD_RESPONSE


UNCHECKED = {
    "no accept": SWITCH + b"\r\n",
    "a wrong accept": SWITCH + b"Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n",
    "two accepts": SWITCH + ACCEPT + ACCEPT + b"\r\n",
    "another protocol": SWITCH.replace(b"websocket", b"SPDY/3.1") + ACCEPT + b"\r\n",
    "no upgrade": b"HTTP/1.1 101 X\r\nConnection: Upgrade\r\n" + ACCEPT + b"\r\n",
    "no connection": b"HTTP/1.1 101 X\r\nUpgrade: websocket\r\n" + ACCEPT + b"\r\n",
    "a list of protocols": SWITCH.replace(b"websocket", b"websocket, h2c") + ACCEPT + b"\r\n",
    "a sub-protocol that was not offered": SWITCH + ACCEPT + b"Sec-WebSocket-Protocol: v9.channel.k8s.io\r\n\r\n",
    "two sub-protocols": SWITCH + ACCEPT + b"Sec-WebSocket-Protocol: a\r\nSec-WebSocket-Protocol: b\r\n\r\n",
    "a body": SWITCH + ACCEPT + b"Content-Length: 5\r\n\r\nhello",
    "chunks": SWITCH + ACCEPT + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("name", UNCHECKED)
async def test_an_unchecked_101_opens_nothing(name: str, before: Before) -> None:
    async with before(switching(UNCHECKED[name])) as world:
        exchange, relay = world.start(websocket((b"sec-websocket-protocol", b"a, b")))
        await exchange.over()
        assert exchange.reset is not None
        assert (exchange.reset.hop, exchange.reset.reason) == (Hop.APISERVER, Reason.BAD_RESPONSE)
        assert not exchange.heads
        relay.on_data(SMUGGLED)
        await exchange.until(lambda: not world.pool.state.open)
        assert SMUGGLED not in world.server.clients[0].seen


async def test_an_offered_sub_protocol_passes(before: Before) -> None:
    answer = SWITCH + ACCEPT + b"Sec-WebSocket-Protocol: v5.channel.k8s.io\r\n\r\n"
    async with before(switching(answer)) as world:
        exchange, _ = world.start(websocket((b"sec-websocket-protocol", b"v4.channel.k8s.io, v5.channel.k8s.io")))
        await exchange.until(lambda: exchange.heads)
        assert (b"sec-websocket-protocol", b"v5.channel.k8s.io") in exchange.head.headers


async def test_interim_answers_before_the_101_pass(before: Before) -> None:
    async with before(switching(b"HTTP/1.1 100 Continue\r\n\r\n" + SWITCH + ACCEPT + b"\r\nx")) as world:
        exchange, _ = world.start(websocket())
        await exchange.until(lambda: exchange.data)
        assert [head.status for head in exchange.heads] == [100, 101]


async def test_the_end_of_the_api_servers_side_ends_the_stream_after_its_last_bytes(before: Before) -> None:
    async def last_words(client: Client) -> None:
        await client.say(b"x" * 500_000)

    async with before(switching(SWITCH + ACCEPT + b"\r\n", last_words)) as world:
        exchange, relay = world.start(websocket())
        await exchange.over()
        assert exchange.reset is None
        assert len(exchange.data) == 500_000
        relay.on_data(b"too late")
        relay.on_end([])
        assert exchange.credit == len(b"too late")
        await exchange.until(lambda: not world.pool.state.open)


async def test_the_last_words_survive_a_paused_link(before: Before) -> None:
    async def last_words(client: Client) -> None:
        await asyncio.sleep(0.05)
        await client.say(b"y" * 100_000)

    async with before(switching(SWITCH + ACCEPT + b"\r\nx", last_words)) as world:
        exchange = FakeExchange()
        exchange.room = False
        _, relay = world.start(websocket(), exchange)
        await exchange.until(lambda: exchange.data)
        await asyncio.sleep(0.3)
        exchange.room = True
        relay.on_writable()
        await exchange.over()
        assert len(exchange.data) == 100_001


async def test_the_end_of_the_clients_side_is_passed_on_after_its_last_bytes(before: Before) -> None:
    got = b""

    async def listen(client: Client) -> None:
        nonlocal got
        got = await client.rest()

    async with before(switching(SWITCH + ACCEPT + b"\r\n", listen)) as world:
        exchange, relay = world.start(websocket())
        await exchange.until(lambda: exchange.heads)
        relay.on_data(b"z" * 200_000)
        relay.on_end([])
        await exchange.over()
        await exchange.until(lambda: got)
        assert got == b"z" * 200_000


async def test_an_api_server_that_does_not_finish_is_cut_off_in_time(before: Before) -> None:
    async def stall(client: Client) -> None:
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.sleep(20)

    limits = PoolLimits(closing=0.3, sweep=0.05)
    async with before(switching(SWITCH + ACCEPT + b"\r\n", stall), limits) as world:
        exchange, relay = world.start(websocket())
        await exchange.until(lambda: exchange.heads)
        relay.on_data(b"z" * (16 << 20))
        relay.on_end([])
        await exchange.over(3)
        assert exchange.reset is None
        await exchange.until(lambda: not world.pool.state.open)


async def test_a_client_that_leaves_before_the_answer_ends_the_upstream(before: Before) -> None:
    async def never(client: Client) -> None:
        await client.head()
        await client.rest()

    async with before(never) as world:
        exchange, relay = world.start(websocket())
        await exchange.until(lambda: world.server.clients and world.server.clients[0].seen)
        relay.on_end([])
        await exchange.until(lambda: exchange.releases)
        assert exchange.reset is not None
        assert exchange.reset.hop is Hop.CLIENT


async def test_a_reset_of_a_hijacked_stream_closes_it_at_once(before: Before) -> None:
    async with before(switching(SWITCH + ACCEPT + b"\r\n", echo)) as world:
        exchange, relay = world.start(websocket())
        await exchange.until(lambda: exchange.heads)
        relay.on_reset(ExchangeReset(Hop.CLIENT, Reason.CANCELLED, ""))
        await exchange.until(lambda: exchange.releases)
        assert world.pool.state.open == 0
        assert not exchange.ended


async def test_a_websocket_exec_by_get_is_never_sent_twice(before: Before) -> None:
    async def script(client: Client) -> None:
        await client.head()
        await client.say(OK)
        await client.head()
        client.writer.transport.abort()

    async with before(script) as world:
        await world.ask(get())
        exchange, _ = world.start(websocket())
        await exchange.over()
        assert exchange.reset is not None
        assert exchange.reset.reason is Reason.UPSTREAM_CLOSED
        assert len(world.server.clients) == 1


async def test_a_proper_close_ends_the_stream_without_waiting_for_what_is_unsent(before: Before) -> None:
    """uvloop would first flush to a peer that has closed, for up to its shutdown timeout."""
    async with before(switching(SWITCH + ACCEPT + b"\r\n", echo)) as world:
        exchange, relay = world.start(websocket())
        await exchange.until(lambda: exchange.heads)
        assert relay._connection is not None
        relay._connection.eof_received()
        assert exchange.ended
        await exchange.until(lambda: not world.pool.state.open)
        assert exchange.events.count("end") == 1


async def test_a_command_may_leave_its_stdin_unread_for_as_long_as_it_likes(before: Before) -> None:
    """TCP_USER_TIMEOUT ends a connection whose peer reads nothing, though it is alive: 30 s into
    `exec -i … 'sleep 60; cat'`.
    """
    async with before(switching(SPDY_SWITCH)) as world:
        exchange, relay = world.start(SPDY_HEAD)
        await exchange.until(lambda: exchange.heads)
        assert relay._connection is not None
        assert relay._connection._transport is not None
        sock = relay._connection._transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 0
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


@pytest.mark.parametrize("ends", ["cancelled", "the agent ends"])
@pytest.mark.parametrize("stalls", [False, True], ids=["it reads", "it does not read"])
async def test_an_api_server_sees_the_end_of_a_stream_at_once(before: Before, stalls: bool, ends: str) -> None:
    """Even where its window is closed, and megabytes wait before it: an exec must not run on for minutes."""

    async def stand_still(client: Client) -> None:
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.sleep(60)

    async with before(switching(SPDY_SWITCH, stand_still if stalls else None)) as world:
        exchange, relay = world.start(SPDY_HEAD)
        await exchange.until(lambda: exchange.heads)
        if stalls:
            for _ in range(200):
                with world.pool.batch:
                    relay.on_data(b"x" * 65_536)
        await asyncio.sleep(0.1)
        theirs = world.server.clients[0].writer.get_extra_info("socket")
        assert _established(theirs)
        if ends == "cancelled":
            relay.on_reset(ExchangeReset(Hop.CLIENT, Reason.CANCELLED, "the client left"))
        else:
            await world.pool.close()
        await exchange.until(lambda: not _established(theirs), 1.0)


def _established(sock: socket.socket) -> bool:
    """What the kernel says; a socket that was closed meanwhile is not."""
    try:
        return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1) == b"\x01"
    except (OSError, ValueError):
        return False

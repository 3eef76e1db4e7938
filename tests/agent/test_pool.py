"""Who gets which connection, how many there are, and when they retire."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import socket
import ssl

import pytest

from agent.access import ApiServer, FixedAccess, verifying_context
from agent.failures import unreachable
from agent.pool import PoolLimits
from tests.agent.apiserver import Client, answering
from tests.agent.conftest import Before, World
from tests.agent.fakes import get
from tests.agent.pki import Authority, Pair
from tunnel.errors import Hop, Reason

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
QUICK = PoolLimits(sweep=0.02, dial_timeout=0.3)


async def serve(client: Client) -> None:
    while True:
        await client.head()
        await client.say(OK)


async def slow(client: Client) -> None:
    while True:
        await client.head()
        await asyncio.sleep(0.05)
        await client.say(OK)


async def test_the_last_used_is_taken_first(before: Before) -> None:
    async with before(slow) as world:
        for exchange in [world.start(get())[0] for _ in range(3)]:
            await exchange.over()
        last = [len(client.seen) for client in world.server.clients]
        await world.ask(get())
        await world.ask(get())
        grown = [len(client.seen) > was for client, was in zip(world.server.clients, last, strict=True)]
        assert grown.count(True) == 1


async def test_an_idle_connection_is_never_chosen_too_late_and_retires(before: Before) -> None:
    async with before(serve, dataclasses.replace(QUICK, idle_timeout=0.1, sweep=10)) as world:
        await world.ask(get())
        await asyncio.sleep(0.15)
        await world.ask(get())
        assert len(world.server.clients) == 2
    async with before(serve, dataclasses.replace(QUICK, idle_timeout=0.1)) as world:
        exchange = await world.ask(get())
        await exchange.until(lambda: not world.pool.state.open)


async def test_a_connection_retires_at_its_age(before: Before) -> None:
    async with before(serve, dataclasses.replace(QUICK, max_age=0.1)) as world:
        await world.ask(get())
        assert world.pool.state.idle == 1
        await asyncio.sleep(0.11)
        await world.ask(get())
        assert len(world.server.clients) == 2


async def test_a_server_that_closes_idle_connections_costs_nothing(before: Before) -> None:
    async def script(client: Client) -> None:
        await client.head()
        await client.say(OK)
        await asyncio.sleep(0.02)

    async with before(script) as world:
        for _ in range(3):
            exchange = await world.ask(get())
            assert exchange.data == b"ok"
            await exchange.until(lambda: not world.pool.state.open)
        assert world.pool.state.idle == 0


async def test_connections_dials_and_waiting_are_bounded(before: Before) -> None:
    limits = dataclasses.replace(QUICK, connections=2, dials=1, waiting=3, dial_timeout=5)
    async with before(slow, limits) as world:
        exchanges = [world.start(get())[0] for _ in range(5)]
        refused = [exchange for exchange in exchanges if exchange.reset]
        assert len(refused) == 2
        assert all(e.reset and (e.reset.hop, e.reset.reason) == (Hop.AGENT, Reason.OVERLOADED) for e in refused)
        assert world.pool.state.dialling == 1
        for exchange in exchanges:
            await exchange.over()
        assert [exchange.data for exchange in exchanges].count(b"ok") == 3
        assert len(world.server.clients) <= 2


async def test_a_wait_ends_in_time(before: Before) -> None:
    async def never(client: Client) -> None:
        await client.head()
        await client.rest()

    async with before(never, dataclasses.replace(QUICK, connections=1)) as world:
        world.start(get())
        await asyncio.sleep(0.1)
        exchange = await world.ask(get())
        assert exchange.reset is not None
        assert exchange.reset.reason is Reason.TIMEOUT


async def test_a_dial_into_silence_ends_in_time(before: Before) -> None:
    accepted: list[asyncio.StreamWriter] = []

    async with before(serve, QUICK) as world:
        silent = await asyncio.start_server(lambda _r, w: accepted.append(w), "127.0.0.1", 0)
        redirect(world, ApiServer("127.0.0.1", silent.sockets[0].getsockname()[1], "127.0.0.1"))
        exchange = await world.ask(get())
        assert exchange.reset is not None
        assert exchange.reset.reason is Reason.TIMEOUT
        for writer in accepted:
            writer.transport.abort()
        silent.close()
        await silent.wait_closed()


def redirect(world: World, server: ApiServer, tls: ssl.SSLContext | None = None) -> None:
    """Have the pool dial elsewhere, or trust otherwise."""
    world.pool.access = FixedAccess(server, tls or world.pool.access.context(), b"token")


async def test_nobody_listening_is_unreachable(before: Before) -> None:
    async with before(serve) as world:
        redirect(world, ApiServer("127.0.0.1", 1, "127.0.0.1"))
        exchange = await world.ask(get())
        assert exchange.reset is not None
        assert (exchange.reset.hop, exchange.reset.reason) == (Hop.APISERVER, Reason.UNREACHABLE)


async def test_a_wrong_name_is_refused_and_no_token_sent(before: Before) -> None:
    async with before(serve) as world:
        redirect(world, ApiServer("127.0.0.1", world.server.port, "other.test"))
        await refused_by_tls(world)


async def test_the_right_name_by_another_address_passes(before: Before) -> None:
    async with before(serve) as world:
        redirect(world, ApiServer("127.0.0.1", world.server.port, "kubernetes.test"))
        assert (await world.ask(get())).data == b"ok"


async def test_a_wrong_ca_is_refused_and_no_token_sent(before: Before) -> None:
    async with before(serve) as world:
        tls = verifying_context(Authority("test CA").pem)
        redirect(world, ApiServer("127.0.0.1", world.server.port, "127.0.0.1"), tls)
        await refused_by_tls(world)


@pytest.fixture
def expired(authority: Authority) -> Pair:
    return authority.issue("apiserver", "127.0.0.1", days=-1)


async def test_an_expired_certificate_is_refused(before: Before, expired: Pair, tmp_path: object) -> None:
    async with before(serve) as world:
        world.server._context.load_cert_chain(_pem(expired, tmp_path))
        await refused_by_tls(world, "expired")


def _pem(pair: Pair, directory: object) -> str:
    path = f"{directory}/expired.pem"
    with open(path, "w") as file:
        file.write(pair.cert + pair.key)
    return path


async def refused_by_tls(world: World, word: str = "certificate") -> None:
    exchange = await world.ask(get())
    assert exchange.reset is not None
    assert (exchange.reset.hop, exchange.reset.reason) == (Hop.APISERVER, Reason.TLS)
    assert word in exchange.reset.message
    assert all(not client.seen for client in world.server.clients)


def test_errors_of_a_dial_are_told_without_addresses_of_memory_or_secrets() -> None:
    for error in (ssl.SSLError(1, "x"), TimeoutError(), ConnectionRefusedError(111, "refused"), ValueError("secret")):
        assert "secret" not in unreachable(error).message


async def test_a_dead_peer_is_noticed_by_the_kernel(before: Before) -> None:
    """Keep-alive while idle, TCP_USER_TIMEOUT while bytes wait: not after a quarter of an hour (teleport
    #69780).
    """
    async with before(serve) as world:
        await world.ask(get())
        transport = world.pool._idle[0]._transport
        assert transport is not None
        sock = transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 30_000
            probing = [
                sock.getsockopt(socket.IPPROTO_TCP, getattr(socket, f"TCP_KEEP{n}")) for n in ("IDLE", "INTVL", "CNT")
            ]
            assert probing[0] + probing[1] * probing[2] <= 30


async def test_closing_refuses_who_waits_and_leaves_nothing(before: Before) -> None:
    async with before(slow) as world:
        exchange, _ = world.start(get())
        await world.pool.close()
        assert exchange.reset is not None
        assert exchange.reset.reason is Reason.DRAINING
        assert (await world.ask(get())).reset is not None
        assert world.pool.state.dialling == world.pool.state.waiting == 0


async def test_nothing_is_left_of_a_thousand_exchanges(before: Before) -> None:
    """No task, no timer and no cycle for each request: what the last reference leaves is gone."""
    async with before(serve) as world:
        await world.ask(get())
        gc.collect()
        gc.disable()
        try:
            old, tasks = sum(type(o).__name__ == "Relay" for o in gc.get_objects()), len(asyncio.all_tasks())
            for _ in range(1000):
                await world.ask(get())
            assert len(asyncio.all_tasks()) == tasks
            assert sum(type(o).__name__ == "Relay" for o in gc.get_objects()) <= old + 1
        finally:
            gc.enable()
        assert len(world.server.clients) == 1


async def test_answers_are_whole_when_a_hundred_interleave(before: Before) -> None:
    async with before(answering(*[OK] * 200), PoolLimits(dials=4, connections=4)) as world:
        for exchange in [world.start(get())[0] for _ in range(100)]:
            await exchange.over()
            assert (exchange.data, exchange.reset) == (b"ok", None)
        assert len(world.server.clients) <= 4

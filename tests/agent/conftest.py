"""The agent's tests run on uvloop, as the agent does: its TLS ends connections in other ways than
asyncio's.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
import uvloop

from agent.access import ApiServer, FixedAccess, verifying_context
from agent.policy import LocalPolicy
from agent.pool import PoolLimits, UpstreamPool
from agent.relay import Relay
from tests.agent.apiserver import Script, ScriptedServer
from tests.agent.fakes import FakeExchange
from tests.agent.pki import Authority
from tests.support.attached import Stub, nothing_left
from tunnel.batch import Batch
from tunnel.ports import RequestBlock

TOKEN = b"the-agents-own-token"


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """pytest-asyncio's hook."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="session")
def authority() -> Authority:
    return Authority()


@pytest.fixture
async def stub(authority: Authority, tmp_path: Path) -> AsyncIterator[Stub]:
    async with nothing_left(), Stub(authority, tmp_path / "stub") as stub:
        yield stub


class World:
    """An agent's upstream half before a scripted API server."""

    def __init__(self, server: ScriptedServer, pool: UpstreamPool) -> None:
        self.server = server
        self.pool = pool
        self.policy = LocalPolicy()

    def start(self, head: RequestBlock, exchange: FakeExchange | None = None) -> tuple[FakeExchange, Relay]:
        """Begin an exchange, as a link would, within the batch."""
        exchange = exchange or FakeExchange()
        relay = Relay(exchange, self.pool, self.policy)
        with self.pool.batch:
            relay.start(head)
        return exchange, relay

    async def ask(self, head: RequestBlock) -> FakeExchange:
        """A whole exchange."""
        exchange, _ = self.start(head)
        await exchange.over()
        return exchange


Before = Callable[..., AbstractAsyncContextManager[World]]


@pytest.fixture
def before(authority: Authority, tmp_path: Path) -> Before:
    """`async with before(script) as world`: an agent's pool before that API server."""
    pair = authority.issue("apiserver", "127.0.0.1", "kubernetes.test")

    @asynccontextmanager
    async def world(
        script: Script, limits: PoolLimits | None = None, token: bytes | None = TOKEN
    ) -> AsyncIterator[World]:
        loop = asyncio.get_running_loop()
        async with ScriptedServer(pair.server_context(tmp_path), script) as server:
            address = ApiServer("127.0.0.1", server.port, "127.0.0.1")
            access = FixedAccess(address, verifying_context(authority.pem), token)
            batch = Batch(loop.call_soon)
            pool = UpstreamPool(access, batch, limits or PoolLimits(), loop, random.Random(1).random)
            try:
                yield World(server, pool)
            finally:
                await pool.close()
                await asyncio.sleep(0.01)

    return world

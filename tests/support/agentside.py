"""The agent's own half before a real API server: its pool, its policy and its relay, without a tunnel."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import orjson

from agent import kubeconfig
from agent.policy import LocalPolicy
from agent.pool import PoolLimits, UpstreamPool
from agent.relay import Relay
from tests.agent.fakes import FakeExchange
from tests.support.cluster import Cluster
from tests.support.cluster_helpers import agent_identity, token_kubeconfig
from tunnel.batch import Batch
from tunnel.ports import Headers, RequestBlock

REVIEWS = b"/apis/authentication.k8s.io/v1/selfsubjectreviews"
REVIEW = orjson.dumps({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"})


@dataclass
class AgentSide:
    """What an agent of a cluster does with requests; `user` is who it is itself."""

    pool: UpstreamPool
    policy: LocalPolicy
    user: str

    def start(self, head: RequestBlock) -> tuple[FakeExchange, Relay]:
        """Begin an exchange, as a link would."""
        exchange = FakeExchange()
        relay = Relay(exchange, self.pool, self.policy)
        with self.pool.batch:
            relay.start(head)
        return exchange, relay

    async def ask(
        self, headers: Headers, target: bytes, method: bytes = b"GET", body: bytes = b"", through: bool = False
    ) -> FakeExchange:
        """A whole exchange."""
        if body:
            headers = [*headers, (b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        exchange, relay = self.start(RequestBlock(method, target, headers, not body, pass_through=through))
        if body and exchange.reset is None:
            relay.on_data(body)
            relay.on_end([])
        await exchange.over()
        return exchange

    async def whoami(self, headers: Headers, through: bool = False) -> dict[str, Any]:
        """What `kubectl auth whoami` asks: whom the API server sees."""
        exchange = await self.ask(headers, REVIEWS, b"POST", REVIEW, through)
        assert exchange.reset is None, exchange.reset
        assert exchange.head.status == 201, exchange.data
        found: dict[str, Any] = orjson.loads(exchange.data)["status"]["userInfo"]
        return found


@asynccontextmanager
async def agent_side(cluster: Cluster, policy: LocalPolicy, name: str = "kulvert-agent") -> AsyncIterator[AgentSide]:
    """An agent with a service account of its own, which may impersonate."""
    identity = await agent_identity(cluster, name=name)
    access = kubeconfig.load(await token_kubeconfig(cluster, identity.token, f"{name}.kubeconfig"))
    loop = asyncio.get_running_loop()
    pool = UpstreamPool(access, Batch(loop.call_soon), PoolLimits(), loop, random.Random(1).random)
    try:
        yield AgentSide(pool, policy, identity.user)
    finally:
        await pool.close()
        await asyncio.sleep(0.01)

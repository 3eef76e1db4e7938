"""A rolling upgrade of the servers and of the agents, one after the other, and the users who do not notice it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from tests.e2e.conftest import _bind as bind_admins
from tests.support.cluster import Cluster
from tests.support.cluster_api import ApiError, until
from tests.support.cluster_helpers import create_namespace, create_pod, delete_pod
from tests.support.installation import Installation, forget_installations
from tests.support.load import under_load
from tests.support.loadexec import Counting
from tests.support.loadmix import Mix

LEASES = {"duration": 4, "renewDeadline": 3, "retryPeriod": 0.5, "settle": 1}
DRAIN = 4.0
LAMEDUCK = 0.6
"""Seconds: the balancer looks at readiness each 0.2 s."""
BY_CHANCE = 3
"""Of some thousand requests: a kept connection may be closed in the very moment in which its client asks again. On a
machine that is not busy there is none.
"""
OWN_END = 15
"""Numbers that a session counts to which ends by itself within the grace period."""


@asynccontextmanager
async def rolling(
    mode: str, pair: tuple[Cluster, Cluster], directory: Path
) -> AsyncIterator[tuple[Installation, list[str]]]:
    """Beta is the hub, alpha is managed, by three agents."""
    await bind_admins(pair)
    alpha, hub = pair
    await create_pod(alpha, "demo")
    await forget_installations(hub)
    timeouts = {"timeouts": {"drain": DRAIN, "lameduck": LAMEDUCK}}
    try:
        async with Installation(directory / mode, hub, mode, leases=LEASES, settings=timeouts) as made:
            await made.start_agent(alpha, drain=int(DRAIN))
            yield made, await made.further_agents("alpha", 2)
    finally:
        await delete_pod(alpha, "demo")


@asynccontextmanager
async def mixed(made: Installation, alpha: Cluster) -> AsyncIterator[Mix]:
    """Users at work around the block; at its end they have seen all that there was to see."""
    namespace = f"rolling-{made.mode}"
    await create_namespace(alpha, namespace)
    mix = Mix(alpha, f"{made.url}/clusters/alpha", made.tls(), namespace)
    await mix.begin()
    try:
        async with under_load([*mix.watchers, mix.direct]):
            async with under_load(mix.users):
                await mix.smooth(1.0)
                yield mix
            await mix.seen()
    finally:
        with contextlib.suppress(ApiError):
            await alpha.api.request("DELETE", f"/api/v1/namespaces/{namespace}")


class Sessions:
    """What `kubectl exec` has open when a replica is told to end: by way of that one, and of another."""

    def __init__(self, made: Installation, alpha: Cluster, leaving: str) -> None:
        other = next(name for name in made.replicas if name != leaving)
        self._made = made
        self._alpha = alpha
        self.endless = self._counting(leaving, "endless", 10_000)
        self.short = self._counting(leaving, "short", OWN_END)
        self.elsewhere = self._counting(other, "elsewhere", OWN_END)
        self._stack = AsyncExitStack()

    def _counting(self, replica: str, user: str, most: int) -> Counting:
        kubeconfig = self._made.replicas[replica].kubeconfig("alpha", user)
        return Counting(self._alpha, "demo", kubeconfig, most)

    async def __aenter__(self) -> Sessions:
        await asyncio.gather(
            *(self._stack.enter_async_context(one) for one in (self.endless, self.short, self.elsewhere))
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()


async def roll(made: Installation, alpha: Cluster, name: str, mix: Mix) -> None:
    """One replica is replaced. Its sessions have their grace period."""
    async with Sessions(made, alpha, name) as sessions:
        told = time.monotonic()
        ending = asyncio.ensure_future(made.replicas[name].stop_server())
        await sessions.short.end(DRAIN)
        await sessions.elsewhere.end(DRAIN)
        await sessions.endless.end(2 * DRAIN)
        lived = sessions.endless.last - told
        await ending
        assert sessions.short.whole, vars(sessions.short)
        assert sessions.elsewhere.whole, vars(sessions.elsewhere)
        assert DRAIN - 0.5 < lived < DRAIN + LAMEDUCK + 3.0, (lived, vars(sessions.endless))
    await made.replicas[name].start_server()
    await settled(made)
    await mix.smooth(1.0)


async def settled(made: Installation) -> None:
    """Every replica has its Lease, and somebody the cluster."""

    async def all_there() -> bool:
        leases = [await made.lease(f"kulvert-replica-{name}") for name in made.replicas]
        return all(one.get("holderIdentity") for one in leases) and bool(await made.owner("alpha"))

    await until(all_there, "every replica to have its Lease", 20.0)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("mode", ["standby", pytest.param("sharded", marks=pytest.mark.soak)])
async def test_nobody_notices_that_replicas_and_agents_are_replaced_one_by_one(
    mode: str,
    clusters: tuple[Cluster, Cluster],
    tmp_path: Path,
) -> None:
    alpha = clusters[0]
    async with rolling(mode, clusters, tmp_path) as (made, agents):
        async with mixed(made, alpha) as mix:
            owner = await made.owner("alpha")
            assert owner in made.replicas
            for name in sorted(made.replicas, key=lambda one: one != owner):
                await roll(made, alpha, name, mix)
            for agent in agents:
                await made.first.stop_agent(agent)
                await made.first.restart_agent(agent)
                await mix.smooth(1.0)
        print(mix.figures())
        assert mix.problems() == []
        assert sum(client.retries.all for client in mix.clients) <= BY_CHANCE, mix.figures()

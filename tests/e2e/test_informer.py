"""An informer at a real API server, over a line that is cut again and again, and through the server's absence."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from gateway.hub.client import Hub
from gateway.hub.informer import Delta, Informer, InformerTiming, Object, Source
from gateway.hub.settings import HubSettings
from tests.support.cluster import Cluster
from tests.support.cluster_api import until
from tests.support.cluster_helpers import create_namespace
from tests.support.cuttable import Cuttable

NAMESPACE = "informed"
LEASES = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases"
TIMING = InformerTiming(watch=3, slack=1, answer=2, page=5, least=0.05, most=0.5, check=0.0)
COUNT = 50


def holder(document: Object) -> str | None:
    """A view of a Lease."""
    found = document["spec"].get("holderIdentity")
    return found if isinstance(found, str) else None


class Replay:
    """What comes of all deltas."""

    def __init__(self) -> None:
        self.items: dict[str, str] = {}

    def hear(self, deltas: Sequence[Delta[str]]) -> None:
        for delta in deltas:
            assert self.items.pop(delta.key, None) == delta.before
            if delta.after is not None:
                self.items[delta.key] = delta.after


class World:
    """An informer of Leases, its line to the hub, and what its deltas make."""

    def __init__(self, cluster: Cluster, informer: Informer[str], line: Cuttable) -> None:
        self.cluster, self.informer, self.line = cluster, informer, line
        self.replay = Replay()
        informer.subscribe(self.replay.hear)

    async def put(self, number: int, value: str) -> None:
        """A Lease is made, or has another holder."""
        name = f"lease-{number}"
        made = await self.cluster.api.create(LEASES, {"metadata": {"name": name}, "spec": {"holderIdentity": value}})
        if made["spec"].get("holderIdentity") != value:
            made["spec"]["holderIdentity"] = value
            await self.cluster.api.request("PUT", f"{LEASES}/{name}", made)

    async def delete(self, number: int) -> None:
        await self.cluster.api.request("DELETE", f"{LEASES}/lease-{number}")

    async def there(self) -> dict[str, str]:
        """What the API server has."""
        listed = await self.cluster.api.get(LEASES)
        return {f"{NAMESPACE}/{one['metadata']['name']}": one["spec"]["holderIdentity"] for one in listed["items"]}

    async def equal(self) -> bool:
        return dict(self.informer.items) == self.replay.items == await self.there()

    def staleness(self) -> float:
        return self.informer.staleness(time.monotonic())


@asynccontextmanager
async def informed(cluster: Cluster, directory: Path, timing: InformerTiming = TIMING) -> AsyncIterator[World]:
    await create_namespace(cluster, NAMESPACE)
    await cluster.api.request("DELETE", LEASES)
    address = urlsplit(cluster.server)
    async with Cuttable(address.port or 443) as line:
        config = directory / "line.kubeconfig"
        text = cluster.admin_kubeconfig.read_text()
        config.write_text(text.replace(f":{address.port}", f":{line.port}"))
        async with Hub(HubSettings(kubeconfig=config)) as hub:
            informer = Informer(hub.api, Source(LEASES), holder, random.Random(1).random, timing)
            world = World(cluster, informer, line)
            running = asyncio.create_task(informer.run(), name="inform")
            try:
                await asyncio.wait_for(informer.synced.wait(), 10)
                yield world
                assert not running.done()
            finally:
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)


async def _cuts(world: World, chance: random.Random) -> None:
    while True:
        await asyncio.sleep(chance.uniform(0.02, 0.3))
        world.line.cut()


async def test_what_is_known_is_what_there_is_however_often_the_line_is_cut(cluster_a: Cluster, tmp_path: Path) -> None:
    chance = random.Random(5)
    async with informed(cluster_a, tmp_path) as world:
        cutting = asyncio.create_task(_cuts(world, chance))
        for number in range(COUNT):
            await world.put(number, "ada")
        for count in range(2 * COUNT):
            number = chance.randrange(COUNT)
            await (world.delete(number) if f"{NAMESPACE}/lease-{number}" in await world.there() and count % 3 == 0
                   else world.put(number, f"holder-{count}"))  # fmt: skip
        cutting.cancel()
        await until(world.equal, "the informer to know what there is")
        assert len(world.informer.items) > COUNT // 4
        assert world.informer.counts.relists == 0, "each watch goes on from where the last one was cut"
        assert world.informer.counts.differences == 0


async def test_through_the_servers_absence_what_is_known_stays_and_says_how_old_it_is(
    cluster_a: Cluster, tmp_path: Path
) -> None:
    async with informed(cluster_a, tmp_path) as world:
        for number in range(5):
            await world.put(number, "ada")
        await until(world.equal, "the list")
        await cluster_a.stop_apiserver(0)
        try:
            await until(lambda: _is(world.staleness() > 1.5), "staleness to grow", 10)
            assert len(world.informer.items) == 5
            assert "may be old" in (world.informer.problem or "")
        finally:
            await cluster_a.start_apiserver()
        await world.delete(0)
        await world.put(1, "bob")
        await until(world.equal, "what has changed since")
        await until(lambda: _is(world.informer.problem is None and world.staleness() < 1), "the hub to confirm", 10)
        print(f"lists after the first: {world.informer.counts.relists}")
        assert world.informer.counts.differences == 0


async def test_pages_checks_and_moments_that_are_gone_or_yet_to_come(cluster_a: Cluster, tmp_path: Path) -> None:
    async with informed(cluster_a, tmp_path, InformerTiming(watch=1, least=0.05, most=0.2, check=0.0)) as world:
        informer, counts = world.informer, world.informer.counts
        informer._lister._limit = 7
        for number in range(20):
            await world.put(number, "ada")
        await until(world.equal, "the watch")
        await asyncio.sleep(1.5)
        assert (counts.differences, counts.relists) == (0, 0), "checks in pages, of that very moment"
        informer._memory._versions[f"{NAMESPACE}/lease-3"] = "1"
        await until(lambda: _is(counts.differences == 1 and counts.relists == 1), "a difference to be found", 5)
        informer._check_at = math.inf
        for moment in ("1", str(10**12)):
            before = counts.relists
            informer._version = moment
            world.line.cut()
            await until(lambda: _is(counts.relists > before), f"a list instead of moment {moment}", 8)  # noqa: B023
        await until(world.equal, "the list")
        await until(lambda: _is(informer.problem is None), "all to be well")


async def test_a_line_that_is_silent_is_given_up(cluster_a: Cluster, tmp_path: Path) -> None:
    async with informed(cluster_a, tmp_path, InformerTiming(watch=1, slack=1, answer=1, least=0.05, most=0.2)) as world:
        await world.put(1, "ada")
        await until(world.equal, "the watch")
        world.line.freeze()
        await world.put(2, "bob")
        await until(lambda: _is("does not answer" in (world.informer.problem or "")), "silence to be noticed", 5)
        assert not await world.equal()
        world.line.thaw()
        await until(world.equal, "what has changed since", 8)
        assert world.informer.counts.relists == 0


async def _is(yes: bool) -> bool:
    return yes


@pytest.mark.parametrize("path", ["/api/v1/namespaces/informed/configmaps", "/apis/kulvert.dev/v1alpha1/nothing"])
async def test_any_collection_is_read_and_one_that_is_not_there_is_said(cluster_a: Cluster, path: str) -> None:
    async with Hub(HubSettings(kubeconfig=cluster_a.admin_kubeconfig)) as hub:
        informer = Informer(hub.api, Source(path), lambda one: str(one["metadata"]["name"]), lambda: 0.5, TIMING)
        running = asyncio.create_task(informer.run(), name="inform")
        try:
            if "nothing" in path:
                await until(lambda: _is("install its CRD" in (informer.problem or "")), "its absence")
            else:
                await until(lambda: _is("informed/kube-root-ca.crt" in informer.items), "the list")
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

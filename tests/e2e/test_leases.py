"""Leases on a real API server: records that kubectl reads, versions that settle who was first, replicas that agree."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import orjson
import pytest

from gateway.hub.client import Hub
from gateway.hub.leases import HubLeases
from gateway.hub.objects import HubObjects
from gateway.hub.settings import HubSettings
from stub.leases.elected import Elected
from stub.leases.lease import Lease, LeaseConflict, LeasesUnavailable
from stub.leases.myself import Myself
from stub.leases.settings import LeaseSettings
from stub.leases.sharded import Sharded
from tests.support.cluster import Cluster
from tests.support.cluster_helpers import create_namespace

NAMESPACE = "kulvert-leases"
WALL = 1_700_000_000.25
LEASE = Lease("kulvert", "kulvert-0", 15, WALL, WALL + 2, 3, 1_700_000_000_250, {"peer-address": "10.0.0.1:8445"})
FAST = LeaseSettings(shards=8, settle=1.0, step=0.2)


@pytest.fixture
async def store(cluster_a: Cluster) -> AsyncIterator[HubLeases]:
    await create_namespace(cluster_a, NAMESPACE)
    async with Hub(HubSettings(kubeconfig=cluster_a.admin_kubeconfig)) as hub:
        yield HubLeases(HubObjects(hub.api), NAMESPACE)
    (await cluster_a.kubectl("delete", "lease", "-n", NAMESPACE, "--all")).check()


async def test_a_record_is_what_kubectl_and_client_go_know(store: HubLeases, cluster_a: Cluster) -> None:
    made = await store.put(LEASE)
    assert replace(made, version="") == LEASE
    assert await store.get("kulvert") == made
    found = orjson.loads(
        (await cluster_a.kubectl("get", "lease", "-n", NAMESPACE, "kulvert", "-o", "json")).check().out
    )
    assert found["spec"] == {
        "holderIdentity": "kulvert-0",
        "leaseDurationSeconds": 15,
        "acquireTime": "2023-11-14T22:13:20.250000Z",
        "renewTime": "2023-11-14T22:13:22.250000Z",
        "leaseTransitions": 3,
    }
    assert found["metadata"]["annotations"] == {
        "kulvert.dev/epoch": "1700000000250",
        "kulvert.dev/peer-address": "10.0.0.1:8445",
    }
    listed = (await cluster_a.kubectl("get", "lease", "-n", NAMESPACE)).check().out
    assert "kulvert-0" in listed


async def test_of_two_who_write_one_was_first(store: HubLeases) -> None:
    made = await store.put(LEASE)
    with pytest.raises(LeaseConflict):
        await store.put(LEASE)
    renewed = await store.put(replace(made, renewed=WALL + 4))
    with pytest.raises(LeaseConflict):
        await store.put(replace(made, holder="kulvert-1"))
    with pytest.raises(LeaseConflict):
        await store.delete(made)
    assert await store.get("kulvert") == renewed
    await store.delete(renewed)
    await store.delete(renewed)
    assert await store.get("kulvert") is None


async def test_one_that_was_deleted_is_not_made_anew_by_a_renewal(store: HubLeases) -> None:
    made = await store.put(LEASE)
    await store.delete(made)
    with pytest.raises(LeaseConflict):
        await store.put(replace(made, renewed=WALL + 4))
    again = await store.put(LEASE)
    with pytest.raises(LeaseConflict):
        await store.put(replace(made, renewed=WALL + 4))
    assert await store.get("kulvert") == again


async def test_only_the_installations_own_are_listed(store: HubLeases, cluster_a: Cluster) -> None:
    released = await store.put(replace(LEASE, name="kulvert-shard-0", holder=""))
    await store.put(LEASE)
    other = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "another"}}
    await cluster_a.api.create(f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases", other)
    assert {one.name for one in await store.list()} == {"kulvert", "kulvert-shard-0"}
    assert released in await store.list()
    assert (await store.get("another")) == Lease("another", version=(await store.get("another")).version)  # type: ignore[union-attr]  # it is there


async def test_what_cannot_be_done_says_what_to_do(cluster_a: Cluster) -> None:
    async with Hub(HubSettings(kubeconfig=cluster_a.admin_kubeconfig)) as hub:
        with pytest.raises(LeasesUnavailable, match="404"):
            await HubLeases(HubObjects(hub.api), "no-such-namespace").put(LEASE)
        hub.api.configuration.host = "https://127.0.0.1:1"
        with pytest.raises(LeasesUnavailable, match="cannot be reached"):
            await HubLeases(HubObjects(hub.api), NAMESPACE).list()


# --- replicas


def me(name: str, seed: int) -> Myself:
    return Myself(name, f"10.0.0.{seed}:8445", "", randomness=random.Random(seed).random)


@asynccontextmanager
async def running(*members: Elected | Sharded) -> AsyncIterator[list[asyncio.Task[None]]]:
    tasks = [asyncio.create_task(one.run()) for one in members]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def soon(what: Callable[[], Any], seconds: float) -> float:
    started = time.monotonic()
    while not what():
        assert time.monotonic() - started < seconds
        await asyncio.sleep(0.01)
    return time.monotonic() - started


async def test_shards_of_a_replica_that_is_gone_are_anothers_within_seconds(
    store: HubLeases, cluster_a: Cluster
) -> None:
    first, second = Sharded(me("kulvert-0", 1), FAST, store), Sharded(me("kulvert-1", 2), FAST, store)
    async with running(first, second) as tasks:
        await soon(lambda: first.mine() and second.mine() and len(first.mine() | second.mine()) == 8, 30)
        assert not first.mine() & second.mine()
        both = {"kulvert-0", "kulvert-1"}
        await soon(lambda: {first.place(f"edge-{n}").replica for n in range(50)} == both, 3)
        tasks[0].cancel()  # killed, as far as the hub can tell: nothing is released
        took = await soon(lambda: len(second.mine()) == 8, 10)
        assert not first.mine()
        print(f"shards were taken over in {took:.2f} s")
        listed = (await cluster_a.kubectl("get", "lease", "-n", NAMESPACE, "kulvert-shard-0")).check().out
        assert "kulvert-1" in listed
        third = Sharded(me("kulvert-2", 3), FAST, store)
        async with running(third):
            await soon(third.mine, 20)
            await second.resign()
            assert not second.mine()
            assert await soon(lambda: len(third.mine()) == 8, 3) < 2.0


async def test_a_standby_takes_over_at_once_from_one_that_ends_in_order(store: HubLeases) -> None:
    first, second = (
        Elected(me("kulvert-0", 1), LeaseSettings(), store),
        Elected(me("kulvert-1", 2), LeaseSettings(), store),
    )
    async with running(first, second):
        await soon(lambda: first.leading or second.leading, 20)
        leader, other = (first, second) if first.leading else (second, first)
        await soon(lambda: other.leader() and len(other.replicas()) == 2, 5)
        assert not other.place("edge").mine
        before = leader.place("edge").epoch
        await leader.resign()
        assert not leader.place("edge").mine
        assert await soon(lambda: other.place("edge").mine, 5) <= 2.6
        assert other.place("edge").epoch > before

"""Replicas share their stores and keys through a real hub, with exactly the rights that they are said to need."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from gateway.database import RegistryError
from gateway.hub.client import Hub
from gateway.hub.informer import Informer, jitter
from gateway.hub.objects import HubObjects
from gateway.hub.settings import HubSettings
from gateway.membership.agentcertificates import IssuedCertificate
from gateway.membership.cluster import Cluster
from gateway.membership.stores import Stores
from gateway.mirror import keysecret, records
from gateway.mirror.errors import MirrorUnavailable
from gateway.mirror.keys import FILES, KeyMirror
from gateway.mirror.keysecret import KeySecret
from gateway.mirror.records import SecretRecords
from gateway.mirror.thread import FileThread
from gateway.state import ISSUER, State
from tests.gateway.mirror.replica import Replica
from tests.support import cluster_objects as objects
from tests.support.cluster import Cluster as Bed
from tests.support.cluster_helpers import RBAC, create_namespace, service_account_token, token_kubeconfig

NAMESPACE = "kulvert-mirror"
VERBS = ["get", "list", "watch", "create", "update", "delete"]
SECRETS = f"/api/v1/namespaces/{NAMESPACE}/secrets"


@pytest.fixture
async def hub(cluster_a: Bed) -> AsyncIterator[Hub]:
    await create_namespace(cluster_a, NAMESPACE)
    token = await service_account_token(cluster_a, NAMESPACE, "replica")
    base = f"{RBAC}/namespaces/{NAMESPACE}"
    rules = [{"apiGroups": [""], "resources": ["secrets"], "verbs": VERBS}]
    await cluster_a.api.create(f"{base}/roles", {"metadata": {"name": "replica"}, "rules": rules})
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "replica"}
    binding = {
        "metadata": {"name": "replica"},
        "roleRef": role,
        "subjects": [objects.service_account_subject(NAMESPACE, "replica")],
    }
    await cluster_a.api.create(f"{base}/rolebindings", binding)
    path = await token_kubeconfig(cluster_a, token, "mirror.kubeconfig")
    try:
        async with Hub(HubSettings(kubeconfig=path)) as hub:
            await eventually(HubObjects(hub.api))
            yield hub
    finally:
        await cluster_a.api.request("DELETE", SECRETS)


async def eventually(hub: HubObjects) -> None:
    """Until the role is in force."""
    async with asyncio.timeout(20):
        while (await hub.ask("GET", SECRETS)).status != 200:  # noqa: ASYNC110 -- nobody tells
            await asyncio.sleep(0.05)


def replica(hub: Hub, name: str, directory: Path) -> Replica:
    store = SecretRecords(HubObjects(hub.api), NAMESPACE, "kulvert")
    informer = lambda: Informer(hub.api, store.source, records.view, jitter())  # noqa: E731
    return Replica(name, directory, store, informer, FileThread)


@contextmanager
def a_file(path: Path) -> Iterator[Stores]:
    """As a single server's."""
    stores = Stores.open(path)
    try:
        yield stores
    finally:
        stores.close()


def certificate(number: int) -> IssuedCertificate:
    return IssuedCertificate(f"{number:x}", f"c{number}", "u", "agent", f"key-{number}", 1.0, 9e9)


async def alike(replicas: list[Replica]) -> None:
    for one in replicas:
        await one.mirror.settled(20)
    for one in replicas:
        await one.mirror.caught_up(20)
    assert all(one.rows() == replicas[0].rows() for one in replicas)
    assert [one.mirror.problem for one in replicas] == [None] * len(replicas)


async def test_three_replicas_have_the_same_whoever_writes_and_one_that_was_away_catches_up(
    hub: Hub, cluster_a: Bed, tmp_path: Path
) -> None:
    replicas = [replica(hub, name, tmp_path) for name in ("a", "b", "c")]
    await asyncio.gather(*(one.begin() for one in replicas))
    a, b, c = replicas
    for number in range(30):
        one = replicas[number % 3]
        one.stores.registry.add(Cluster(f"c{number}", None, float(number)))
    await alike(replicas)
    assert len(c.stores.registry.list()) == 30
    began = time.monotonic()
    a.stores.registry.pin("c1", "uid-1", 5.0)
    await a.mirror.settled(5)
    await b.mirror.caught_up(5)
    assert time.monotonic() - began < 2
    known = b.stores.registry.get("c1")
    assert known is not None
    assert known.uid == "uid-1"
    await c.crash()
    a.stores.forget("c2")
    b.stores.registry.add(Cluster("new", None, 99.0))
    await alike([a, b])
    await c.begin()
    await alike(replicas)
    assert c.stores.registry.get("c2") is None
    found = (await cluster_a.api.get(f"{SECRETS}?labelSelector=kulvert.dev/table=cluster"))["items"]
    assert len(found) == 30
    for one in replicas:
        await one.crash()


def change(one: Replica, rng: random.Random, uid: str) -> None:
    there = one.stores.registry.get("same")
    if there is None:
        one.stores.registry.add(Cluster("same", None, rng.random()))
    elif rng.random() < 0.3:
        one.stores.forget("same")
    else:
        one.stores.registry.switch("same", there.uid, uid, 1.0)


async def test_two_replicas_that_change_the_same_at_once_end_alike(hub: Hub, tmp_path: Path) -> None:
    a, b = replica(hub, "a", tmp_path), replica(hub, "b", tmp_path)
    await asyncio.gather(a.begin(), b.begin())
    rng, refused = random.Random(7), 0
    for number in range(20):
        for one in (a, b):
            with suppress(RegistryError):  # what the other wrote may be in the file, and not in memory yet
                change(one, rng, f"{one.name}{number}")
        done = await asyncio.gather(a.mirror.settled(10), b.mirror.settled(10), return_exceptions=True)
        refused += sum(isinstance(one, MirrorUnavailable) for one in done)
        assert all(one is None or isinstance(one, MirrorUnavailable) for one in done)
    await alike([a, b])
    assert refused
    await a.crash()
    await b.crash()


@pytest.mark.slow
async def test_two_thousand_rows_of_a_single_server_are_brought_there_and_read_in_seconds(
    hub: Hub, tmp_path: Path
) -> None:
    a, b = replica(hub, "a", tmp_path), replica(hub, "b", tmp_path)
    with a_file(a.path) as stores:
        for number in range(1000):
            stores.registry.add(Cluster(f"c{number}", "u", float(number)))
            stores.certificates.add(certificate(number), 1.0)
    began = time.monotonic()
    await a.begin(60)
    filled = time.monotonic()
    await b.begin(60)
    print(f"brought in {filled - began:.1f} s, read in {time.monotonic() - filled:.1f} s")
    assert len(b.stores.registry.list()) == 1000
    assert time.monotonic() - filled < 10
    await alike([a, b])
    await a.crash()
    await b.crash()


async def test_keys_are_made_once_for_all_and_a_rotation_is_followed(hub: Hub, tmp_path: Path) -> None:
    store = KeySecret(HubObjects(hub.api), NAMESPACE, "kulvert")
    states = [State(tmp_path / name) for name in ("a", "b")]
    mirrors = [KeyMirror(store, state, time.time) for state in states]
    await asyncio.gather(*(one.start() for one in mirrors))
    assert all((states[0].directory / name).read_bytes() == (states[1].directory / name).read_bytes() for name in FILES)
    informers = [Informer(hub.api, store.source, keysecret.view, jitter()) for _ in mirrors]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one.run()) for one in informers]
        tasks += [group.create_task(one.run()) for one in mirrors]
        for informer, mirror in zip(informers, mirrors, strict=True):
            informer.subscribe(mirror.hear)
        now = time.time()
        rotated = states[0].token_keys.change(lambda ring: ring.replaced(now), ISSUER, now).text()
        async with asyncio.timeout(10):
            while states[1].token_keys.load(ISSUER, now).text() != rotated:  # noqa: ASYNC110 -- a file
                await asyncio.sleep(0.05)
        for task in tasks:
            task.cancel()

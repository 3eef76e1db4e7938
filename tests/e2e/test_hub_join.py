"""A cluster joins because a ManagedCluster says so: real hub, real cluster, and exactly the roles that are shipped."""

from __future__ import annotations

import asyncio
import base64
import random
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.hub.autojoin import Installer
from gateway.hub.client import Hub
from gateway.hub.clusters import JOIN, PATH, SOURCE, declared
from gateway.hub.informer import Informer
from gateway.hub.managedclusters import Clocks, ManagedClusters
from gateway.hub.objects import HubObjects
from gateway.hub.settings import AutoJoinSettings, HubSettings
from gateway.membership.stores import Stores
from tests.e2e.conftest import _run as run_to_end
from tests.e2e.test_lifecycle import eventually, reached, run_installed
from tests.support.cluster import Cluster
from tests.support.cluster_helpers import bind, service_account_token, token_kubeconfig
from tests.support.platform import Platform

CHARTS = Path(__file__).parents[2] / "charts"
MANIFESTS = ("server-hub-rbac.yaml", "server-hub-join-rbac.yaml")
ACCOUNT = "system:serviceaccount:kulvert:kulvert-server"
SECRETS = "/api/v1/namespaces/kulvert-join/secrets"
TRUE = {"HubAcceptedManagedCluster": "True", "ManagedClusterJoined": "True", "ManagedClusterConditionAvailable": "True"}
NOTHING_ELSE = [
    ("get", "secrets", "-n", "kulvert"),
    ("list", "secrets", "-n", "kulvert-join"),
    ("create", "secrets", "-n", "kulvert-join"),
    ("update", "managedclusters.cluster.open-cluster-management.io"),
    ("delete", "managedclusters.cluster.open-cluster-management.io"),
    ("create", "events", "-n", "kube-system"),
    ("list", "events", "-n", "default"),
]


@pytest.fixture(scope="module")
def delta(testbed: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster of this module's own: an agent is installed in it."""
    cluster = Cluster("delta", testbed, tmp_path_factory.mktemp("delta"))
    try:
        run_to_end(cluster.start())
        run_to_end(bind(cluster, "cluster-admin", group="kulvert:admins"))
        yield cluster
    finally:
        run_to_end(cluster.stop())


@pytest.fixture
async def hub(cluster_a: Cluster) -> AsyncIterator[Hub]:
    """As the server's service account, with its roles."""
    (await cluster_a.kubectl("apply", "--server-side", "-f", CHARTS / "crds-without-ocm")).check()
    crd = "crd/managedclusters.cluster.open-cluster-management.io"
    (await cluster_a.kubectl("wait", "--for=condition=Established", crd, "--timeout=20s")).check()
    for manifest in MANIFESTS:
        (await cluster_a.kubectl("apply", "--server-side", "-f", CHARTS / manifest)).check()
    token = await service_account_token(cluster_a, "kulvert", "kulvert-server")
    await cluster_a.wait_for(lambda: may(cluster_a, "delete", "secrets", "-n", "kulvert-join"), "the roles")
    try:
        async with Hub(HubSettings(kubeconfig=await token_kubeconfig(cluster_a, token, "join.hub.kubeconfig"))) as hub:
            yield hub
    finally:
        await cluster_a.kubectl("delete", "managedclusters.cluster.open-cluster-management.io", "--all")
        await cluster_a.kubectl("delete", "secret", "-n", "kulvert-join", "--all")
        for manifest in MANIFESTS:
            await cluster_a.kubectl("delete", "-f", CHARTS / manifest, "-l", "app.kubernetes.io/name=kulvert-server")


async def may(cluster: Cluster, *what: str) -> bool:
    return (await cluster.kubectl("auth", "can-i", *what, "--as", ACCOUNT)).out == "yes"


async def test_the_roles_are_for_nothing_else(hub: Hub, cluster_a: Cluster) -> None:
    assert hub.api is not None
    for what in NOTHING_ELSE:
        assert not await may(cluster_a, *what), what


@asynccontextmanager
async def joining(hub: Hub, server: Platform) -> AsyncIterator[None]:
    """As the server does it, beside the server."""
    stores = Stores.open(server.state / "clusters.db")
    settings = AutoJoinSettings(True, (f"https://localhost:{server.agents_port}",), timeout=60.0)
    installer = Installer(settings, stores, lambda: server.ca.decode(), time.time, "1.0", look=0.2)
    informer = Informer(hub.api, SOURCE, declared, random.Random(1).random)
    clocks, objects = Clocks(time.monotonic, time.time), HubObjects(hub.api)
    of_joining = (False, installer, settings.namespaces)
    managed = ManagedClusters(objects, informer, stores, clocks, lambda: True, *of_joining)
    ends = managed.begin()

    async def poll() -> None:
        while True:
            stores.registry.poll()
            await asyncio.sleep(0.2)

    tasks = [asyncio.ensure_future(run()) for run in (*managed.tasks().values(), poll)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for end in ends:
            end()
        stores.close()


async def declare(hub: Cluster, name: str, kubeconfig: bytes) -> None:
    content = {"kubeconfig": base64.b64encode(kubeconfig).decode()}
    await hub.api.create(SECRETS, {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": content})
    metadata = {"name": name, "annotations": {JOIN: f"kulvert-join/{name}"}}
    kind = {"apiVersion": "cluster.open-cluster-management.io/v1", "kind": "ManagedCluster"}
    await hub.api.create(PATH, kind | {"metadata": metadata, "spec": {"hubAcceptsClient": True}})


async def conditions(hub: Cluster, name: str) -> dict[str, dict[str, Any]]:
    found = await hub.api.get(f"{PATH}/{name}")
    return {one["type"]: one for one in (found.get("status") or {}).get("conditions", [])}


async def test_a_declared_cluster_joins_and_its_kubeconfig_is_deleted(
    hub: Hub, cluster_a: Cluster, own_platform: Platform, delta: Cluster
) -> None:
    await declare(cluster_a, "edge", delta.admin_kubeconfig.read_bytes())
    async with joining(hub, own_platform):
        await run_installed(own_platform, delta, "edge")

        async def joined() -> bool:
            return {kind: one["status"] for kind, one in (await conditions(cluster_a, "edge")).items()} == TRUE

        await eventually(joined, "the conditions of a cluster that has joined", 60)

        async def gone() -> bool:
            return (await cluster_a.kubectl("get", "secret", "-n", "kulvert-join", "edge")).returncode != 0

        await eventually(gone, "the Secret to be deleted", 60)
        assert (await reached(own_platform, delta, "edge")).check().out == delta.uid
    for file in own_platform.state.iterdir():
        assert b"client-key-data" not in file.read_bytes()


async def test_a_hostile_kubeconfig_is_refused_and_told_at_the_hub(
    hub: Hub, cluster_a: Cluster, own_platform: Platform, delta: Cluster, tmp_path: Path
) -> None:
    document = yaml.safe_load(delta.admin_kubeconfig.read_text())
    for user in document["users"]:
        user["user"] = {"exec": {"apiVersion": "v1", "command": "touch", "args": [str(tmp_path / "owned")]}}
    await declare(cluster_a, "hostile", yaml.safe_dump(document).encode())
    async with joining(hub, own_platform):

        async def told() -> bool:
            found = (await conditions(cluster_a, "hostile")).get("ManagedClusterJoined", {})
            return found.get("status") == "False" and "would run a program" in found.get("message", "")

        await eventually(told, "the refusal to be told")
        events = (await cluster_a.kubectl("get", "events", "-n", "default", "-o", "yaml")).check().out
        assert "JoinFailed" in events
    assert not (tmp_path / "owned").exists()
    await cluster_a.api.get(f"{SECRETS}/hostile")


@pytest.mark.parametrize(
    ("name", "spec", "why"),
    [
        ("edge-9", {"hubAcceptsClient": False, "leaseDurationSeconds": 60}, ""),
        ("edge-9", {}, "hubAcceptsClient"),
        ("edge.9", {"hubAcceptsClient": True}, "should match"),
        ("edge-9", {"hubAcceptsClient": "yes"}, "boolean"),
        ("edge-9", {"hubAcceptsClient": True, "taints": [{"key": "x", "effect": "NoSchedule"}]}, "Unsupported value"),
        ("edge-9", {"hubAcceptsClient": True, "kubeconfig": "x"}, "unknown field"),
    ],
)
async def test_the_schema_says_what_a_managed_cluster_is(
    hub: Hub, cluster_a: Cluster, name: str, spec: dict[str, Any], why: str
) -> None:
    assert hub.api is not None
    kind = {"apiVersion": "cluster.open-cluster-management.io/v1", "kind": "ManagedCluster"}
    text = yaml.safe_dump(kind | {"metadata": {"name": name}, "spec": spec}).encode()
    result = await cluster_a.kubectl("create", "--dry-run=server", "-f", "-", input=text)
    assert (why in result.err) if why else result.returncode == 0, result.err

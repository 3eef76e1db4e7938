"""Clusters by declaration, at a real hub with exactly the roles that are shipped: registered, accepted, available by
heartbeats that come through the tunnel, selected by their labels, and removed from either side.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.hub.clusters import ACCEPTED, FINALIZER, PATH
from tests.e2e.test_lifecycle import eventually, kulvert
from tests.support.cluster import Cluster
from tests.support.cluster_api import ApiError
from tests.support.cluster_helpers import AGENT_NAMESPACE, create_namespace, service_account_token, token_kubeconfig
from tests.support.kubectl import Result
from tests.support.platform import ADMINS, Platform, _identity

CHARTS = Path(__file__).parents[2] / "charts"
MANIFESTS = ("server-hub-rbac.yaml", "server-hub-clusters-rbac.yaml")
ACCOUNT = "system:serviceaccount:kulvert:kulvert-server"
CRD = "crd/managedclusters.cluster.open-cluster-management.io"
KIND = "managedclusters.cluster.open-cluster-management.io"
NEWS = 2
"""Writes beyond the regular ones that may follow each other; later ones make up for them (test_heartbeats.py)."""
LEASE = f"/apis/coordination.k8s.io/v1/namespaces/{AGENT_NAMESPACE}/leases/kulvert-cluster-edge"
PRODUCTION = {
    "name": "production",
    "subjects": [{"kind": "Group", "name": "developers"}],
    "clusterSelector": {"matchLabels": {"env": "prod"}},
}
DECLARED = """
apiVersion: cluster.open-cluster-management.io/v1
kind: ManagedCluster
metadata: {name: %s, labels: {env: prod}}
spec: {hubAcceptsClient: false}
"""
NOTHING_ELSE = [
    ("update", KIND),
    ("list", "customresourcedefinitions"),
    ("patch", "leases", "-n", "kube-system"),
    ("get", "secrets", "-n", "kulvert"),
]


@pytest.fixture
async def hub(cluster_a: Cluster) -> AsyncIterator[Path]:
    """The kubeconfig of the server's service account, with its roles."""
    (await cluster_a.kubectl("apply", "--server-side", "-f", CHARTS / "crds-without-ocm")).check()
    (await cluster_a.kubectl("wait", "--for=condition=Established", CRD, "--timeout=20s")).check()
    await create_namespace(cluster_a, AGENT_NAMESPACE)
    for manifest in MANIFESTS:
        (await cluster_a.kubectl("apply", "--server-side", "-f", CHARTS / manifest)).check()
    token = await service_account_token(cluster_a, "kulvert", "kulvert-server")
    await cluster_a.wait_for(lambda: may(cluster_a, "delete", KIND), "the roles")
    try:
        yield await token_kubeconfig(cluster_a, token, "clusters.hub.kubeconfig")
    finally:
        for name in (await cluster_a.kubectl("get", KIND, "-o", "name")).out.split():
            await cluster_a.kubectl("patch", name, "--type=merge", "-p", '{"metadata":{"finalizers":[]}}')
        await cluster_a.kubectl("delete", KIND, "--all")
        await cluster_a.kubectl("delete", "leases", "-n", "kulvert", "-l", "kulvert.dev/heartbeats")
        for manifest in MANIFESTS:
            await cluster_a.kubectl("delete", "-f", CHARTS / manifest, "-l", "app.kubernetes.io/name=kulvert-server")


@pytest.fixture
async def server(hub: Path, tmp_path: Path) -> AsyncIterator[Platform]:
    settings = {"hub": {"kubeconfig": str(hub), "clusters": True}, "replicas": {"namespace": AGENT_NAMESPACE}}
    async with Platform(tmp_path / "platform", [ADMINS, PRODUCTION], settings=settings) as served:
        yield served


async def may(cluster: Cluster, *what: str) -> bool:
    return (await cluster.kubectl("auth", "can-i", *what, "--as", ACCOUNT)).out == "yes"


async def found(hub: Cluster, name: str) -> dict[str, Any] | None:
    try:
        return await hub.api.get(f"{PATH}/{name}")
    except ApiError as error:
        if error.status != 404:
            raise
        return None


async def condition(hub: Cluster, name: str, kind: str) -> tuple[str, str]:
    document = await found(hub, name) or {}
    known = {one["type"]: one for one in (document.get("status") or {}).get("conditions", [])}
    return (known[kind]["status"], known[kind]["reason"]) if kind in known else ("", "")


async def available(hub: Cluster, name: str) -> str:
    return (await condition(hub, name, "ManagedClusterConditionAvailable"))[0]


async def patched(hub: Cluster, name: str, patch: str) -> None:
    (await hub.kubectl("patch", KIND, name, "--type=merge", "-p", patch)).check()


async def start_agent(server: Platform, cluster: Cluster, name: str) -> None:
    """One that has a token by which it may ask, and is accepted by nothing."""
    identity = await _identity(cluster)
    (await cluster.kubectl("apply", "--server-side", "-f", CHARTS / "agent-status-rbac.yaml")).check()
    kubeconfig = await token_kubeconfig(cluster, identity.token, f"{name}.agent.kubeconfig")
    token = server.join_token(name, accept=False)
    server._prepared[name] = server._configure(name, name, kubeconfig, {}, token)
    server.run_agent(name, server._prepared[name])


async def registered(server: Platform, name: str) -> bool:
    return name in (await kulvert(server, "cluster", "list")).check().out.split()


@asynccontextmanager
async def counted(hub: Cluster, written: list[str]) -> AsyncIterator[None]:
    """The versions that the Lease has had: each is a write that the API server has seen."""

    async def look() -> None:
        while True:
            try:
                version = (await hub.api.get(LEASE))["metadata"]["resourceVersion"]
            except ApiError:
                version = ""
            if version and version not in written:
                written.append(version)
            await asyncio.sleep(0.25)

    task = asyncio.create_task(look())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def asked(server: Platform, hub: Cluster, user: str, group: str) -> Result:
    """Who he is in the cluster; any test bed cluster's kubectl will do."""
    whoami = ("auth", "whoami", "-o", "jsonpath={.status.userInfo.username}")
    return await hub.kubectl(*whoami, kubeconfig=server.kubeconfig("edge", user, [group]))


@pytest.mark.usefixtures("hub")
async def test_the_roles_are_for_nothing_else(cluster_a: Cluster) -> None:
    for what in NOTHING_ELSE:
        assert not await may(cluster_a, *what), what


async def test_a_declared_cluster_comes_is_available_by_its_heartbeats_and_goes(
    server: Platform, cluster_a: Cluster, cluster_b: Cluster
) -> None:
    there = time.monotonic()
    (await cluster_a.kubectl("apply", "-f", "-", input=(DECLARED % "edge").encode())).check()
    await eventually(lambda: registered(server, "edge"), "the name to be registered")
    await start_agent(server, cluster_b, "edge")

    async def asks() -> bool:
        return "edge" in (await kulvert(server, "cluster", "requests")).out

    await eventually(asks, "the agent to ask")
    written: list[str] = []
    began = time.monotonic()
    async with counted(cluster_a, written):
        await patched(cluster_a, "edge", '{"spec":{"hubAcceptsClient":true}}')
        await _is_available_and_described(server, cluster_a, cluster_b)
        await _labels_decide(server, cluster_a)
        await _accepted_or_not(server, cluster_a, there)
        await _comes_and_goes(server, cluster_a)
    assert written, "no heartbeat was written"
    assert len(written) <= (time.monotonic() - began) / 30 + 1 + NEWS
    await _is_removed(server, cluster_a)


async def _is_available_and_described(server: Platform, hub: Cluster, cluster: Cluster) -> None:
    async def done() -> bool:
        return await available(hub, "edge") == "True"

    await eventually(done, "Available", 40)

    async def described() -> bool:
        status = (await found(hub, "edge") or {})["status"]
        claims = {one["name"]: one["value"] for one in status.get("clusterClaims", [])}
        version = status.get("version", {}).get("kubernetes", "")
        return bool(
            version.startswith("v1.")
            and status.get("capacity", {}).get("cpu")
            and status.get("allocatable", {}).get("memory")
            and claims["id.k8s.io"] == cluster.uid
            and claims["kubeversion.open-cluster-management.io"] == version
        )

    await eventually(described, "version, capacity and claims", 80)
    document = await found(hub, "edge")
    assert document is not None
    assert document["metadata"]["finalizers"] == [FINALIZER]
    assert document["metadata"]["annotations"][ACCEPTED] == cluster.uid
    lease = await hub.api.get(LEASE)
    assert lease["spec"]["leaseDurationSeconds"] == 60
    assert lease["metadata"]["annotations"]["kulvert.dev/ready-agents"] == "1"
    listed = (await kulvert(server, "cluster", "list")).check().out
    assert "v1." in listed
    assert "1/1" in listed


async def _labels_decide(server: Platform, hub: Cluster) -> None:
    async def may_enter() -> bool:
        return (await asked(server, hub, "dev", "developers")).out == "dev"

    async def may_not() -> bool:
        return "no grant" in (await asked(server, hub, "dev", "developers")).err

    await eventually(may_enter, "the grant by label")
    await patched(hub, "edge", '{"metadata":{"labels":{"env":"test"}}}')
    await eventually(may_not, "the label to be another one")


async def _accepted_or_not(server: Platform, hub: Cluster, began: float) -> None:
    """hubAcceptsClient is taken back, and given again: the same agent comes back by its certificate. The server was
    there when it `began`.
    """

    async def without_agent() -> bool:
        return await available(hub, "edge") == "False"

    async def with_agent() -> bool:
        return await available(hub, "edge") == "True"

    await asyncio.sleep(max(began + 25 - time.monotonic(), 0))  # a server that has just begun takes no cluster for gone
    await patched(hub, "edge", '{"spec":{"hubAcceptsClient":false}}')
    await eventually(without_agent, "the agent to be sent away", 60)
    assert "hub does not accept it" in (await asked(server, hub, "admin", "kulvert:admins")).err
    await patched(hub, "edge", '{"spec":{"hubAcceptsClient":true}}')
    await eventually(with_agent, "the agent to be back", 60)


async def _comes_and_goes(server: Platform, hub: Cluster) -> None:
    async def gone() -> bool:
        return await available(hub, "edge") in ("False", "Unknown")

    async def back() -> bool:
        return await available(hub, "edge") == "True"

    await server.stop_agent("edge", signal.SIGKILL)
    await eventually(gone, "a killed agent to be missed", 60)
    await server.restart_agent("edge")
    await eventually(back, "it to be back", 60)


async def _is_removed(server: Platform, hub: Cluster) -> None:
    agent = server.agent("edge")
    (await hub.kubectl("delete", KIND, "edge", "--timeout=60s", timeout=70)).check()
    assert not await registered(server, "edge")

    async def sent_away() -> bool:
        return "has been revoked" in agent.log.read_text(errors="replace")

    await eventually(sent_away, "the agent to be sent away")

    async def without_lease() -> bool:
        try:
            await hub.api.get(LEASE)
        except ApiError as error:
            return error.status == 404
        return False

    await eventually(without_lease, "its heartbeat's Lease to be gone")


async def test_what_the_command_does_is_done_at_the_hub(server: Platform, cluster_a: Cluster) -> None:
    (await kulvert(server, "cluster", "add", "west", "--label", "env=prod", "--id", "u-1")).check()

    async def made() -> bool:
        document = await found(cluster_a, "west") or {}
        return bool(
            document and document["spec"]["hubAcceptsClient"] and document["metadata"]["labels"] == {"env": "prod"}
        )

    await eventually(made, "the object")
    (await kulvert(server, "cluster", "remove", "west", "--force")).check()

    async def gone() -> bool:
        return await found(cluster_a, "west") is None

    await eventually(gone, "the object to go")


async def test_the_kind_that_goes_takes_no_cluster_with_it(server: Platform, cluster_a: Cluster) -> None:
    (await kulvert(server, "cluster", "add", "west", "--id", "u-1")).check()

    async def made() -> bool:
        return await found(cluster_a, "west") is not None

    await eventually(made, "the object")
    (await cluster_a.kubectl("delete", CRD, "--timeout=30s", timeout=40)).check()
    await asyncio.sleep(3)
    assert "Terminating" not in (await kulvert(server, "cluster", "list")).check().out
    assert await registered(server, "west")
    (await cluster_a.kubectl("apply", "--server-side", "-f", CHARTS / "crds-without-ocm")).check()
    await eventually(made, "the object, made again", 150)

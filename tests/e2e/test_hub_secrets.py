"""The server at its hub with exactly the roles that are shipped: what it asks, what it writes, and nothing else."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.hub.client import Hub
from gateway.hub.grants import GRANTS, read
from gateway.hub.informer import Informer
from gateway.hub.objects import HubObjects
from gateway.hub.settings import HubSettings
from gateway.membership.registry import SqliteRegistry
from gateway.serviceaccounts.files import FileProjection
from gateway.serviceaccounts.keeper import TOKEN, ServiceAccountKeeper
from gateway.serviceaccounts.secrets import Projections, SecretProjection
from gateway.serviceaccounts.store import Managed, ServiceAccountStore, Wanted
from tests.support.cluster import Cluster
from tests.support.cluster_helpers import create_namespace, service_account_token, token_kubeconfig
from tunnel.calls import Params

CHARTS = Path(__file__).parents[2] / "charts"
ACCOUNT = "system:serviceaccount:kulvert:kulvert-server"
PATH = "/api/v1/namespaces/argocd/secrets/edge-token"
WANTED = Wanted("edge", "ci", "argo", "system:serviceaccount:argocd:server", lifetime=600.0, secret="argocd/edge-token")

NOTHING_ELSE = [
    ("create", "grants.kulvert.dev"),
    ("get", "secrets", "-n", "other"),
    ("get", "secrets", "-n", "kulvert"),
    ("list", "secrets"),
    ("list", "secrets", "-n", "argocd"),
    ("impersonate", "users"),
    ("create", "pods", "-n", "argocd"),
    ("list", "namespaces"),
    ("create", "serviceaccounts/token", "-n", "argocd"),
]


@pytest.fixture
async def hub(cluster_a: Cluster) -> AsyncIterator[Hub]:
    """As the server's service account, with its roles, and a RoleBinding in namespace argocd."""
    for manifest in ("crds", "server-hub-rbac.yaml", "server-hub-secrets-rbac.yaml"):
        (await cluster_a.kubectl("apply", "--server-side", "-f", CHARTS / manifest)).check()
    for namespace in ("argocd", "other"):
        await create_namespace(cluster_a, namespace)
    bind = ("create", "rolebinding", "kulvert-server-secrets", "-n", "argocd", "--clusterrole=kulvert-server-secrets")
    await cluster_a.kubectl(*bind, "--serviceaccount=kulvert:kulvert-server")
    token = await service_account_token(cluster_a, "kulvert", "kulvert-server")
    await cluster_a.wait_for(lambda: may(cluster_a, "delete", "secrets", "-n", "argocd"), "the roles to be in force")
    config = await token_kubeconfig(cluster_a, token, "server.hub.kubeconfig")
    try:
        async with Hub(HubSettings(kubeconfig=config)) as opened:
            yield opened
    finally:
        for manifest in ("server-hub-secrets-rbac.yaml", "server-hub-rbac.yaml"):
            await cluster_a.kubectl("delete", "-f", CHARTS / manifest, "--ignore-not-found", "-l",
                                    "app.kubernetes.io/name=kulvert-server")  # fmt: skip
        await cluster_a.kubectl("delete", "rolebinding", "-n", "argocd", "kulvert-server-secrets")
        await cluster_a.kubectl("delete", "secret", "-n", "argocd", "edge-token", "--ignore-not-found")


async def may(cluster: Cluster, *what: str) -> bool:
    return (await cluster.kubectl("auth", "can-i", *what, "--as", ACCOUNT)).out == "yes"


async def test_it_may_ask_and_read_and_nothing_else(hub: Hub, cluster_a: Cluster) -> None:
    assert await hub.issuers()
    assert (await hub.review_token("none")).get("authenticated") is not True
    access = {"verb": "get", "resource": "managedclusters", "group": "cluster.open-cluster-management.io"}
    assert (await hub.review_access({"user": "ada", "resourceAttributes": access}))[0] is False
    informer = Informer(hub.api, GRANTS, read, lambda: 0.5)
    running = asyncio.create_task(informer.run(), name="read grants")
    await asyncio.wait_for(informer.synced.wait(), 10)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    for what in NOTHING_ELSE:
        assert not await may(cluster_a, *what), what


class World:
    """A keeper whose agent is in the test's hand."""

    def __init__(self, hub: Hub, directory: Path, namespaces: tuple[str, ...] = ("argocd", "other")) -> None:
        self.registry = SqliteRegistry(directory / "kulvert.db")
        self.store = ServiceAccountStore(self.registry.database)
        self.secrets = SecretProjection(HubObjects(hub.api), namespaces)
        places = Projections(FileProjection(directory / "tokens"), self.secrets)
        self.late = 0.0
        self.keeper = ServiceAccountKeeper(self.store, places, self._call, _Audit(), lambda: "id", self.now)
        self.given = 0

    def now(self) -> float:
        return time.time() + self.late

    async def _call(self, _cluster: str, method: str, params: Params) -> Params:
        self.given += method == TOKEN
        return {"token": f"token-{self.given}", "expires": self.now() + params.get("seconds", 0), "uid": "u"}

    async def look(self) -> Managed | None:
        self.keeper.look()
        await self.keeper.settled()
        return self.store.get(WANTED.key)


class _Audit:
    def record(self, line: bytes) -> None:
        assert b"token-" not in line

    def ready(self) -> bool:
        return True


async def token(cluster: Cluster) -> str:
    found = await cluster.api.get(PATH)
    return base64.b64decode(found["data"]["token"]).decode()


async def test_a_token_is_in_its_secret_is_made_anew_and_goes(hub: Hub, cluster_a: Cluster, tmp_path: Path) -> None:
    world = World(hub, tmp_path)
    world.store.put(WANTED, "root", time.time())
    managed = await world.look()
    assert managed is not None
    assert not managed.state.error
    assert await token(cluster_a) == "token-1"
    selector = "app.kubernetes.io/managed-by=kulvert,kulvert.dev/cluster=edge"
    assert (await cluster_a.kubectl("get", "secret", "-n", "argocd", "-l", selector, "-o", "name")).out
    world.late = 470.0
    await world.look()
    assert await token(cluster_a) == "token-2"
    await cluster_a.api.request("DELETE", PATH)
    await world.secrets.look()
    await world.look()
    assert await token(cluster_a) == "token-3"
    world.store.delete(WANTED.key, "root", time.time())
    assert await world.look() is None
    assert (await cluster_a.kubectl("get", "secret", "-n", "argocd", "edge-token")).returncode
    world.registry.close()


async def test_a_secret_of_others_is_left_as_it_is(hub: Hub, cluster_a: Cluster, tmp_path: Path) -> None:
    (
        await cluster_a.kubectl("create", "secret", "generic", "-n", "argocd", "edge-token", "--from-literal=token=own")
    ).check()
    world = World(hub, tmp_path)
    world.store.put(WANTED, "root", time.time())
    managed = await world.look()
    assert managed is not None
    assert "not Kulvert's" in managed.state.error
    world.store.delete(WANTED.key, "root", time.time())
    assert await world.look() is None
    assert await token(cluster_a) == "own"
    world.registry.close()


@pytest.mark.parametrize(
    ("secret", "why"), [("other/x", "server-hub-secrets-rbac"), ("kube-system/x", "secretNamespaces")]
)
async def test_where_it_may_not_write_it_says_so(hub: Hub, tmp_path: Path, secret: str, why: str) -> None:
    world = World(hub, tmp_path)
    world.store.put(Wanted("edge", "ci", "argo", "ada", secret=secret), "root", time.time())
    managed = await world.look()
    assert managed is not None
    assert why in managed.state.error
    world.registry.close()

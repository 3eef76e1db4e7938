"""Managed service accounts against a real API server: made with the shipped role, used, rotated and deleted."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agent import kubeconfig
from agent.pool import PoolLimits, UpstreamPool
from agent.serviceaccounts import DELETE, LABELS, TOKEN, ServiceAccounts
from gateway.membership.registry import SqliteRegistry
from gateway.serviceaccounts.files import FileProjection
from gateway.serviceaccounts.keeper import ServiceAccountKeeper
from gateway.serviceaccounts.store import ServiceAccountStore, Wanted
from tests.support.cluster import Cluster
from tests.support.cluster_helpers import create_namespace, service_account_token, token_kubeconfig
from tunnel.batch import Batch
from tunnel.calls import CallFailed, Params

CHARTS = Path(__file__).parents[2] / "charts"
BASE, OPTIONAL = CHARTS / "agent-rbac.yaml", CHARTS / "agent-serviceaccounts-rbac.yaml"
ORDER: dict[str, Any] = {"namespace": "managed", "name": "deployer", "audiences": [], "seconds": 600}
USER = "system:serviceaccount:managed:deployer"


@asynccontextmanager
async def shipped(cluster: Cluster, directory: Path, *manifests: Path) -> AsyncIterator[ServiceAccounts]:
    """The agent's calls, with the rights of manifests that we ship alone, in a namespace of this test's own."""
    own = f"shipped-{os.urandom(4).hex()}"
    for manifest in manifests:
        text = manifest.read_text().replace("kulvert-agent", own)
        text = text.replace("name: kulvert\n", f"name: {own}\n").replace("namespace: kulvert\n", f"namespace: {own}\n")
        (directory / manifest.name).write_text(text)
        (await cluster.kubectl("apply", "-f", directory / manifest.name)).check()
    await create_namespace(cluster, "managed")
    token = await service_account_token(cluster, own, own)
    access = kubeconfig.load(await token_kubeconfig(cluster, token, "serviceaccounts.kubeconfig"))
    loop = asyncio.get_running_loop()
    pool = UpstreamPool(access, Batch(loop.call_soon), PoolLimits(), loop, random.Random(1).random)
    try:
        yield ServiceAccounts(pool, None, True)
    finally:
        await pool.close()
        for manifest in reversed(manifests):
            file = directory / manifest.name
            (await cluster.kubectl("delete", "-f", file, "--wait=false", "--ignore-not-found")).check()


async def granted(accounts: ServiceAccounts, order: Params) -> Params:
    """A token, as soon as the role is in force: the authoriser may lag behind."""
    deadline = time.monotonic() + 10
    while True:
        try:
            return await accounts.token(order)
        except CallFailed as failed:
            if failed.reason != "forbidden" or time.monotonic() > deadline:
                raise
        await asyncio.sleep(0.1)


async def whoami(cluster: Cluster, token: str) -> str:
    """`kubectl auth whoami` with a token."""
    path = await token_kubeconfig(cluster, token, "whoami.kubeconfig")
    told = await cluster.kubectl("auth", "whoami", "-o", "jsonpath={.status.userInfo.username}", kubeconfig=path)
    return told.out if told.returncode == 0 else f"refused: {told.err}"


async def refused(cluster: Cluster, token: str) -> None:
    """Waits until a token is good no more: the API server remembers tokens for some seconds."""

    async def asked() -> bool:
        return (await whoami(cluster, token)).startswith("refused")

    await cluster.wait_for(asked, "the token to be refused")


async def test_a_token_is_that_of_a_service_account_with_our_label(cluster_a: Cluster, tmp_path: Path) -> None:
    async with shipped(cluster_a, tmp_path, BASE, OPTIONAL) as accounts:
        given = await granted(accounts, ORDER)
        assert await whoami(cluster_a, given["token"]) == USER
        assert 500 < given["expires"] - time.time() < 700
        path = "/api/v1/namespaces/managed/serviceaccounts"
        made = await cluster_a.api.get(f"{path}/deployer")
        assert made["metadata"]["labels"] == LABELS
        assert made["metadata"]["uid"] == given["uid"]
        assert await accounts.delete(ORDER) == {"deleted": True}
        assert await accounts.delete(ORDER) == {"deleted": False}
        await refused(cluster_a, given["token"])


async def test_no_token_is_given_of_a_service_account_that_is_not_ours(cluster_a: Cluster, tmp_path: Path) -> None:
    async with shipped(cluster_a, tmp_path, BASE, OPTIONAL) as accounts:
        await granted(accounts, ORDER)
        for namespace, name in (("managed", "default"), ("kube-system", "default")):
            with pytest.raises(CallFailed, match="not Kulvert's"):
                await accounts.token(ORDER | {"namespace": namespace, "name": name})
            with pytest.raises(CallFailed, match="not Kulvert's"):
                await accounts.delete(ORDER | {"namespace": namespace, "name": name})
        with pytest.raises(CallFailed, match="no namespace"):
            await accounts.token(ORDER | {"namespace": "not-there"})
        await accounts.delete(ORDER)


async def test_without_the_optional_role_nothing_is_made(cluster_a: Cluster, tmp_path: Path) -> None:
    async with shipped(cluster_a, tmp_path, BASE) as accounts:
        with pytest.raises(CallFailed, match="agent-serviceaccounts-rbac"):
            await accounts.token(ORDER)


async def test_a_file_holds_a_token_that_works_and_is_made_anew(cluster_a: Cluster, tmp_path: Path) -> None:
    wanted = Wanted("alpha", "managed", "deployer", "ada", "deployer.token", (), 600.0)
    registry = SqliteRegistry(tmp_path / "state" / "kulvert.db")
    store, files, late = ServiceAccountStore(registry.database), FileProjection(tmp_path / "tokens"), [0.0]
    async with shipped(cluster_a, tmp_path, BASE, OPTIONAL) as accounts:
        await granted(accounts, ORDER)
        methods = accounts.methods()
        assert set(methods) == {TOKEN, DELETE}

        async def call(_cluster: str, method: str, params: Params) -> Params:
            return await methods[method](params)

        keeper = ServiceAccountKeeper(store, files, call, _Audit(), lambda: "id", lambda: time.time() + late[0])
        store.put(wanted, "root", time.time())
        tokens = []
        for late[0] in (0.0, 0.0, 470.0):
            keeper.look()
            await keeper.settled()
            tokens.append(files.path(wanted).read_text())
        assert tokens[0] == tokens[1] != tokens[2]
        assert await whoami(cluster_a, tokens[2]) == USER
        assert await keeper.clean_up("alpha", "root") == ()
        await refused(cluster_a, tokens[2])
        assert not files.path(wanted).exists()
    kept = b"".join(file.read_bytes() for file in (tmp_path / "state").iterdir())
    registry.close()
    assert not [token for token in tokens if token.encode() in kept]


class _Audit:
    def record(self, line: bytes) -> None:
        assert b"eyJ" not in line

    def ready(self) -> bool:
        return True

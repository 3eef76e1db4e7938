"""Who may have service accounts made by the management API, and who sees them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

import gateway.serviceaccounts.api as api
from auth.identity import Identity
from gateway.failures import Refused
from gateway.handover import Caller
from gateway.membership.registry import SqliteRegistry
from gateway.serviceaccounts.store import ServiceAccountStore

ONE = "/apis/kulvert.dev/v1alpha1/clusters/edge/managedserviceaccounts/ci/deployer"
LIST = "/apis/kulvert.dev/v1alpha1/managedserviceaccounts"
OBJECT: dict[str, Any] = {
    "apiVersion": "kulvert.dev/v1alpha1", "kind": "ManagedServiceAccount", "metadata": {"name": "deployer"},
    "spec": {"cluster": "edge", "namespace": "ci", "holder": "ada", "file": "t"},
}  # fmt: skip
Client = TestClient[web.Request, web.Application]


@asynccontextmanager
async def served(directory: Path, monkeypatch: Any, enabled: bool = True) -> AsyncIterator[Client]:
    """The endpoints; the header `user` says who asks, and `owner` manages the cluster edge."""
    registry = SqliteRegistry(directory / "kulvert.db")
    store = ServiceAccountStore(registry.database)

    def caller(request: web.BaseRequest) -> Caller:
        user = request.headers.get("user")
        identity = Identity(user, (), "", (), "test", user, 9e9) if user else None
        return Caller(identity, "", "audit-id")

    @web.middleware
    async def refusing(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        try:
            return await handler(request)
        except Refused as refused:
            return web.Response(status=refused.failure.code, text=refused.detail)

    monkeypatch.setattr(api, "caller_of", caller)
    app = web.Application(middlewares=[refusing])
    may = lambda identity, cluster: identity.user == "owner" and cluster in ("edge", "gone")  # noqa: E731
    made = api.ServiceAccountsApi(store, may, {"edge"}.__contains__, enabled, lambda: 100.0)
    app.add_routes(made.routes())
    async with TestClient(TestServer(app)) as client:
        yield client
    registry.close()


def who(user: str) -> dict[str, str]:
    return {"user": user}


async def test_who_manages_the_cluster_declares_reads_and_deletes(tmp_path: Path, monkeypatch: Any) -> None:
    async with served(tmp_path, monkeypatch) as client:
        for _ in range(2):
            made = await client.put(ONE, json=OBJECT, headers=who("owner"))
            assert made.status == 200
        found = await (await client.get(ONE, headers=who("owner"))).json()
        assert found["spec"]["holder"] == "ada"
        assert found["metadata"]["annotations"] == {"kulvert.dev/asked-by": "owner"}
        assert [one["type"] for one in found["status"]["conditions"]] == ["TokenReported", "Projected"]
        deleted = await (await client.delete(ONE, headers=who("owner"))).json()
        assert deleted["metadata"]["deletionTimestamp"] == "1970-01-01T00:01:40Z"


async def test_nobody_else_does_and_the_holder_only_sees_it(tmp_path: Path, monkeypatch: Any) -> None:
    async with served(tmp_path, monkeypatch) as client:
        for user, code in (("ada", 403), ("", 401)):
            assert (await client.put(ONE, json=OBJECT, headers=who(user))).status == code
            assert (await client.delete(ONE, headers=who(user))).status == code
        await client.put(ONE, json=OBJECT, headers=who("owner"))
        assert (await client.get(ONE, headers=who("ada"))).status == 200
        assert (await client.get(ONE, headers=who("eve"))).status == 403
        assert (await client.delete(ONE, headers=who("ada"))).status == 403
        lists = [(await (await client.get(LIST, headers=who(user))).json())["items"] for user in ("ada", "eve")]
        assert [len(items) for items in lists] == [1, 0]


async def test_an_object_for_another_place_is_refused(tmp_path: Path, monkeypatch: Any) -> None:
    async with served(tmp_path, monkeypatch) as client:
        for spec in ({"cluster": "b"}, {"namespace": "kube-system"}, {"file": "../x"}, {"unknown": 1}):
            wrong = OBJECT | {"spec": OBJECT["spec"] | spec}
            assert (await client.put(ONE, json=wrong, headers=who("owner"))).status == 400
        assert (await client.put(ONE, data=b"{", headers=who("owner"))).status == 400
        assert (await client.put(ONE, data=b" " * 20_000, headers=who("owner"))).status == 413
        gone = ONE.replace("edge", "gone")
        assert (await client.put(gone, json=OBJECT, headers=who("owner"))).status == 404
        assert (await client.put(ONE.replace("edge", "b"), json=OBJECT, headers=who("owner"))).status == 403


async def test_it_is_off_by_default(tmp_path: Path, monkeypatch: Any) -> None:
    async with served(tmp_path, monkeypatch, enabled=False) as client:
        refused = await client.put(ONE, json=OBJECT, headers=who("owner"))
        assert refused.status == 403
        assert "serviceAccounts.enabled" in await refused.text()

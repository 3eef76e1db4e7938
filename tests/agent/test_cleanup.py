"""What the agent removes when the server asks: Kulvert's own, and never what bears no label of it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.cleanup import Cleanup, own_namespace
from tests.agent.apiserver import Client, Script
from tests.agent.conftest import Before
from tunnel.calls import CallFailed

RBAC = "/apis/rbac.authorization.k8s.io/v1"
OURS = {"app.kubernetes.io/managed-by": "kulvert"}
AGENT = OURS | {"app.kubernetes.io/name": "kulvert-agent"}
Object = dict[str, Any]


def named(name: str, labels: dict[str, str], namespace: str = "") -> Object:
    metadata: Object = {"name": name, "uid": f"uid-{name}", "labels": labels}
    return {"metadata": metadata | ({"namespace": namespace} if namespace else {})}


class Cluster:
    """Objects by path; lists by collection. `forbidden` says which requests a role does not allow."""

    def __init__(self, objects: dict[str, Object], forbidden: Callable[[str, str], bool] = lambda *_: False) -> None:
        self.objects = objects
        self.forbidden = forbidden
        self.changes: list[str] = []

    def answer(self, method: str, target: str, body: bytes) -> tuple[int, Object]:
        path, _, query = target.partition("?")
        if self.forbidden(method, path):
            return 403, {}
        if query:
            return 200, {"items": self._listed(path)}
        found = self.objects.get(path)
        if found is None:
            return 404, {}
        if method == "PUT":
            self.objects[path] = json.loads(body)
            self.changes.append(f"PUT {path}")
        elif method == "DELETE":
            assert json.loads(body)["preconditions"] == {"uid": found["metadata"]["uid"]}
            del self.objects[path]
            self.changes.append(f"DELETE {path}")
        return 200, found

    def _listed(self, collection: str) -> list[Object]:
        base, _, plural = collection.rpartition("/")
        pattern = re.compile(re.escape(base) + r"(/namespaces/[^/]+)?/" + plural + "/[^/]+")
        found = [one for path, one in self.objects.items() if pattern.fullmatch(path)]
        ours = [one for one in found if one["metadata"]["labels"].get("app.kubernetes.io/managed-by") == "kulvert"]
        return [one for one in ours if one["metadata"]["labels"] != AGENT]

    def script(self) -> Script:
        async def script(client: Client) -> None:
            while True:
                head = await client.head()
                body = await client.body(head) if b"content-length: " in head else b""
                method, target, _ = head.decode().split(" ", 2)
                code, found = self.answer(method, target, body)
                content = json.dumps(found).encode()
                await client.say(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%b" % (code, len(content), content))

        return script


async def called(before: Before, cluster: Cluster, method: str, **params: Any) -> Object:
    async with before(cluster.script()) as world:
        return await Cleanup(world.pool, "kulvert", 2.0).methods()[f"cluster.{method}"](params)


async def test_what_kulvert_made_goes_and_what_others_made_stays(before: Before) -> None:
    cluster = Cluster(
        {
            "/api/v1/namespaces/ci/serviceaccounts/deployer": named("deployer", OURS, "ci"),
            "/api/v1/namespaces/ci/serviceaccounts/theirs": named("theirs", {"app": "x"}, "ci"),
            f"{RBAC}/namespaces/ci/rolebindings/deployer": named("deployer", OURS, "ci"),
            f"{RBAC}/clusterroles/made": named("made", OURS),
            f"{RBAC}/clusterroles/kulvert-agent": named("kulvert-agent", AGENT),
        }
    )
    report = await called(before, cluster, "cleanup")
    assert report["deleted"] == ["ServiceAccount ci/deployer", "RoleBinding ci/deployer", "ClusterRole made"]
    assert (report["left"], report["unseen"]) == ([], [])
    assert sorted(path.rpartition("/")[2] for path in cluster.objects) == ["kulvert-agent", "theirs"]


async def test_what_no_role_allows_is_said(before: Before) -> None:
    account = "/api/v1/namespaces/ci/serviceaccounts/deployer"
    cluster = Cluster(
        {account: named("deployer", OURS, "ci"), f"{RBAC}/clusterroles/made": named("made", OURS)},
        lambda method, path: method == "DELETE" or path.endswith("bindings"),
    )
    report = await called(before, cluster, "cleanup")
    assert report["deleted"] == []
    assert [one.partition(" (")[0] for one in report["left"]] == ["ServiceAccount ci/deployer", "ClusterRole made"]
    assert "the API server answered 403" in report["left"][0]
    assert [one.partition(":")[0] for one in report["unseen"]] == ["RoleBinding", "ClusterRoleBinding"]


async def test_what_the_server_knows_is_deleted_though_nothing_can_be_listed(before: Before) -> None:
    path = "/api/v1/namespaces/ci/serviceaccounts/"
    objects = {f"{path}deployer": named("deployer", OURS, "ci"), f"{path}theirs": named("theirs", {}, "ci")}
    cluster = Cluster(objects)
    known = ["ServiceAccount ci/deployer", "ServiceAccount ci/theirs", "ServiceAccount ci/gone", "Secret ci/x", 7,
             "ServiceAccount ../x", "ServiceAccount ci/a/../../b"]  # fmt: skip
    cluster.forbidden = lambda _method, path: path.endswith(("serviceaccounts", "roles", "bindings"))
    report = await called(before, cluster, "cleanup", known=known)
    assert report["deleted"] == ["ServiceAccount ci/deployer"]
    assert len(report["left"]) == 1
    assert "does not bear the label" in report["left"][0]
    assert list(cluster.objects) == [f"{path}theirs"]


def installed() -> dict[str, Object]:
    paths = {
        f"{RBAC}/{kind}/{name}": named(name, AGENT)
        for kind in ("clusterroles", "clusterrolebindings")
        for name in ("kulvert-agent", "kulvert-agent-uninstall")
    }
    return paths | {"/api/v1/namespaces/kulvert": named("kulvert", AGENT)}


async def test_the_agent_takes_itself_away_its_namespace_last(before: Before) -> None:
    cluster = Cluster(installed())
    report = await called(before, cluster, "uninstall")
    assert report["left"] == []
    remover = f"{RBAC}/clusterroles/kulvert-agent-uninstall"
    owner = cluster.objects[remover]["metadata"]["ownerReferences"][0]
    assert (owner["kind"], owner["name"], owner["uid"]) == (
        "ClusterRoleBinding", "kulvert-agent-uninstall", "uid-kulvert-agent-uninstall",
    )  # fmt: skip
    assert [change.rpartition("/")[2] for change in cluster.changes] == [
        "kulvert-agent", "kulvert-agent", "kulvert-agent-uninstall", "kulvert-agent-uninstall", "kulvert",
    ]  # fmt: skip
    assert cluster.changes[-2].startswith(f"DELETE {RBAC}/clusterrolebindings")
    assert list(cluster.objects) == [remover]
    again = await called(before, Cluster({}), "uninstall")
    assert (again["deleted"], again["left"]) == ([], [])


async def test_without_the_optional_role_all_is_left_and_named(before: Before) -> None:
    report = await called(before, Cluster(installed(), lambda *_: True), "uninstall")
    assert report["deleted"] == []
    assert len(report["left"]) == 5
    assert "Namespace kulvert (the API server answered 403 when asked for it)" in report["left"]


async def test_a_namespace_that_somebody_else_made_stays(before: Before) -> None:
    objects = installed() | {"/api/v1/namespaces/kulvert": named("kulvert", {})}
    report = await called(before, Cluster(objects), "uninstall")
    assert report["left"] == ["Namespace kulvert (it does not bear the label app.kubernetes.io/managed-by=kulvert)"]


async def test_an_api_server_that_is_gone_is_said_to_the_server(before: Before) -> None:
    async def silent(client: Client) -> None:
        await client.head()

    async with before(silent) as world:
        with pytest.raises(CallFailed) as failed:
            await Cleanup(world.pool, "kulvert", 2.0).cleanup({})
    assert failed.value.reason == "unreachable"


def test_the_namespace_is_the_pods_own(tmp_path: Path) -> None:
    (tmp_path / "namespace").write_text("elsewhere\n")
    assert own_namespace(tmp_path / "namespace") == "elsewhere"
    assert own_namespace(tmp_path / "nowhere") == "kulvert"


class Pages(Cluster):
    """Lists two objects at a time; those with a finalizer stay when they are deleted."""

    def answer(self, method: str, target: str, body: bytes) -> tuple[int, Object]:
        path, _, query = target.partition("?")
        found = self.objects.get(path, {"metadata": {}})
        if method == "DELETE" and "finalizers" in found["metadata"]:
            return 200, found
        code, found = super().answer(method, target, body)
        if query:
            start = int(dict(part.split("=") for part in query.split("&")).get("continue", "0"))
            items = self._listed(path)
            more = {"continue": str(start + 2)} if len(items) > start + 2 else {}
            found = {"items": items[start : start + 2], "metadata": more}
        return code, found


async def test_what_waits_for_its_finalizers_hides_nothing_and_is_told(before: Before) -> None:
    base = "/api/v1/namespaces/a/serviceaccounts/"
    objects = {base + name: named(name, OURS, "a") for name in ("held-1", "held-2", "last")}
    for name in ("held-1", "held-2"):
        objects[base + name]["metadata"]["finalizers"] = ["example.com/theirs"]
    cluster = Pages(objects)
    report = await called(before, cluster, "cleanup")
    assert report["deleted"] == ["ServiceAccount a/last"]
    assert [one.partition(" (")[0] for one in report["left"]] == ["ServiceAccount a/held-1", "ServiceAccount a/held-2"]

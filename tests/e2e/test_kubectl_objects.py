"""kubectl on objects, through the gateway: what it prints is what it would print at the API server itself."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
import yaml

from tests.support.cluster import Cluster
from tests.support.cluster_helpers import create_pod, delete_pod
from tests.support.kubectl_through import Requests, Through, through
from tests.support.platform import ADMINS, Platform, grant

DEV = ("User", "dev", "devs")


@pytest.fixture
def kubectl(platform: Platform, cluster_a: Cluster) -> Through:
    return through(platform, cluster_a)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pod(cluster_a: Cluster) -> AsyncIterator[str]:
    await create_pod(cluster_a, "objects")
    yield "objects"
    await delete_pod(cluster_a, "objects")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def dev(platform: Platform, cluster_a: Cluster) -> AsyncIterator[Through]:
    """Somebody whom the platform lets in, and to whom the cluster has given nothing."""
    platform.set_grants([ADMINS, grant("devs", ["alpha"], groups=["devs"])])
    kubectl = through(platform, cluster_a, user="dev", groups=("devs",))

    async def is_let_in() -> bool:
        return (await kubectl.run("get", "--raw", "/version")).returncode == 0

    await cluster_a.wait_for(is_let_in, "the grant to be in force")
    yield kubectl
    platform.set_grants([ADMINS])


def config_map(name: str, **data: str) -> bytes:
    document = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}
    return yaml.safe_dump(document).encode()


# --- what a cluster is


async def test_version_is_the_clusters(kubectl: Through) -> None:
    told = json.loads((await kubectl.same("version", "-o", "json")).check().out)
    assert told["serverVersion"]["gitVersion"].startswith("v1.36.")


@pytest.mark.parametrize(
    "command",
    [
        "api-resources",
        "api-resources --verbs=list --namespaced -o wide",
        "api-versions",
        "explain pod.spec.containers --recursive",
        "explain deployment.spec.strategy --api-version=apps/v1",
        "get --raw /openapi/v3",
        "get --raw /openapi/v2",
        "get --raw /readyz?verbose",
        "get --raw /apis",
    ],
)
async def test_discovery_is_the_same_to_the_byte(kubectl: Through, command: str) -> None:
    assert (await kubectl.same(*command.split())).check().out


@pytest.mark.usefixtures("pod")
@pytest.mark.parametrize(
    "command",
    [
        "get pods -o yaml --show-managed-fields",
        "get pods -o wide",
        "get pod objects -o json",
        "get nodes,namespaces,clusterroles -o name",
        "describe pod objects",
        "describe namespace default",
        "get --raw /api/v1/namespaces/default/pods/objects",
        "auth can-i --list",
    ],
)
async def test_objects_read_the_same_to_the_byte(kubectl: Through, command: str) -> None:
    assert (await kubectl.same(*command.split())).check().out


# --- the life of an object


async def test_an_object_is_created_labelled_patched_replaced_and_deleted(kubectl: Through) -> None:
    made = await kubectl.run("create", "configmap", "life", "--from-literal=a=1")
    assert made.check().out == "configmap/life created"
    (await kubectl.run("label", "configmap", "life", "of=brian")).check()
    patches = {
        "strategic": '{"data":{"b":"2"}}',
        "merge": '{"data":{"a":null}}',
        "json": '[{"op":"add","path":"/data/c","value":"3"}]',
    }
    for kind, patch in patches.items():
        (await kubectl.run("patch", "configmap", "life", f"--type={kind}", "-p", patch)).check()
    seen = await read(kubectl, "configmap", "life")
    assert (seen["data"], seen["metadata"]["labels"]) == ({"b": "2", "c": "3"}, {"of": "brian"})
    (await kubectl.run("replace", "-f", "-", input=config_map("life", d="4"))).check()
    assert (await read(kubectl, "configmap", "life"))["data"] == {"d": "4"}
    assert "d:\n----\n4" in (await kubectl.same("describe", "configmap", "life")).check().out
    (await kubectl.run("delete", "configmap", "life")).check()
    assert "NotFound" in (await kubectl.same("get", "configmap", "life")).err


async def test_apply_on_the_clients_side(kubectl: Through) -> None:
    said = [(await kubectl.run("apply", "-f", "-", input=config_map("applied", a=a))).check().out for a in "112"]
    assert [line.split()[1] for line in said] == ["created", "unchanged", "configured"]
    changed = await kubectl.run("diff", "-f", "-", input=config_map("applied", a="3"))
    assert (changed.returncode, '+  a: "3"' in changed.out) == (1, True)
    assert (await read(kubectl, "configmap", "applied"))["data"] == {"a": "2"}
    (await kubectl.run("delete", "-f", "-", input=config_map("applied"))).check()


async def test_apply_on_the_servers_side_and_who_owns_what(kubectl: Through) -> None:
    apply = ("apply", "--server-side", "-f", "-")
    (await kubectl.run(*apply, "--field-manager=one", input=config_map("owned", a="1"))).check()
    two = (*apply, "--field-manager=two")
    refused = await kubectl.same(*two, input=config_map("owned", a="2"))
    assert refused.returncode == 1
    assert 'conflict with "one": .data.a' in refused.err
    (await kubectl.run(*two, "--force-conflicts", input=config_map("owned", a="2"))).check()
    managers = (await read(kubectl, "configmap", "owned"))["metadata"]["managedFields"]
    assert [manager["manager"] for manager in managers] == ["two"]
    (await kubectl.run("delete", "configmap", "owned")).check()


async def test_scale_and_wait_for_what_follows(kubectl: Through) -> None:
    (await kubectl.run("create", "deployment", "scaled", "--image=example.test/image:1", "--replicas=0")).check()
    (await kubectl.run("scale", "deployment", "scaled", "--replicas=2", "--current-replicas=0")).check()
    until = "--for=jsonpath={.status.replicas}=2"
    (await kubectl.run("wait", "deployment", "scaled", until, "--timeout=15s")).check()
    pods = (await kubectl.run("get", "pods", "-l", "app=scaled", "-o", "name")).check().out.splitlines()
    assert len(pods) == 2
    (await kubectl.run("delete", "deployment", "scaled", "--cascade=foreground", "--timeout=20s")).check()
    assert (await kubectl.run("get", "pods", "-l", "app=scaled", "-o", "name")).check().out == ""


async def test_wait_sees_a_pod_become_ready_and_go(kubectl: Through, pod: str) -> None:
    ready = await kubectl.run("wait", f"pod/{pod}", "--for=condition=Ready", "--timeout=5s")
    assert ready.check().out == f"pod/{pod} condition met"
    (await kubectl.run("create", "configmap", "brief")).check()
    waits = ("wait", "configmap/brief", "--for=delete", "--timeout=15s")
    async with kubectl.running(*waits) as waiting:
        (await kubectl.run("delete", "configmap", "brief", "--wait=false")).check()
        assert await waiting.wait() == 0
    late = await kubectl.run("wait", f"pod/{pod}", "--for=condition=Nothing", "--timeout=1s")
    assert (late.returncode, late.err) == (1, f"error: timed out waiting for the condition on pods/{pod}")


# --- who one is, and what one may


async def test_whoami_is_the_platforms_user_with_its_groups(platform: Platform, cluster_a: Cluster) -> None:
    ada = through(platform, cluster_a, user="ada@example.test", groups=("kulvert:admins", "team/a b", "größe"))
    seen = json.loads((await ada.run("auth", "whoami", "-o", "json")).check().out)["status"]["userInfo"]
    assert seen["username"] == "ada@example.test"
    assert sorted(seen["groups"]) == ["größe", "kulvert:admins", "system:authenticated", "team/a b"]


async def test_can_i_is_the_clusters_own_judgement(kubectl: Through, dev: Through) -> None:
    asked = ("auth", "can-i", "delete", "pods/log", "--all-namespaces")
    assert (await kubectl.same(*asked)).check().out == "yes"
    refused = await dev.same(*asked)
    assert (refused.returncode, refused.out) == (1, "no")
    assert (await dev.same("auth", "can-i", "create", "selfsubjectaccessreviews")).check().out == "yes"


@pytest.mark.usefixtures("pod")
@pytest.mark.parametrize(
    "command",
    [
        "get pods",
        "get secrets --all-namespaces",
        "delete pod objects",
        "exec objects -- true",
        "logs objects",
        "create configmap refused",
        "get nodes --watch",
    ],
)
async def test_what_rbac_refuses_is_refused_in_its_own_words(dev: Through, command: str) -> None:
    refused = await dev.same(*command.split())
    assert refused.returncode == 1
    assert 'User "dev" cannot' in refused.err


@pytest.mark.usefixtures("pod")
@pytest.mark.parametrize(
    "command",
    [
        "get pod nobody",
        "logs nobody",
        "exec nobody -- true",
        "exec objects -c nothing -- true",
        "create serviceaccount default",
        "get nonsense",
        "get --raw /no/such/path",
        "get --raw /api/v1/nodes/node-1/proxy/pods",
        "get --raw /api/v1/namespaces/default/services/none/proxy/",
        "get pods --field-selector=spec.nonsense=1",
        "annotate pod objects UPPER/bad/key=1",
    ],
)
async def test_what_fails_fails_in_the_clusters_words(kubectl: Through, command: str) -> None:
    assert (await kubectl.same(*command.split())).returncode == 1


async def test_nobody_becomes_somebody_else_without_a_grant(kubectl: Through) -> None:
    refused = await kubectl.run("get", "pods", "--as=dev")
    assert refused.returncode == 1
    assert "Error from server (Forbidden): Kulvert's gateway" in refused.err
    assert "impersonate" in refused.err


async def test_every_answer_names_its_audit_record(platform: Platform, cluster_a: Cluster, pod: str) -> None:
    connection = Requests(platform, "alpha").connect()
    connection.request("GET", f"/clusters/alpha/api/v1/namespaces/default/pods/{pod}")
    answer = connection.getresponse()
    answer.read()
    connection.close()
    audit_id = answer.headers["Audit-Id"]

    async def recorded() -> list[Any]:
        return [record for record in platform.audit() if record["auditID"] == audit_id]

    [record] = await cluster_a.wait_for(recorded, "the audit record")
    assert (record["user"]["username"], record["verb"], record["responseStatus"]["code"]) == ("admin", "get", 200)


async def read(kubectl: Through, kind: str, name: str) -> dict[str, Any]:
    answer = await kubectl.run("get", kind, name, "-o", "json", "--show-managed-fields")
    found: dict[str, Any] = json.loads(answer.check().out)
    return found

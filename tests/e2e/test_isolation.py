"""Two clusters, two users: each reaches what the grants allow, and there the cluster's own RBAC decides."""

from __future__ import annotations

import asyncio
import http.client
import re
import ssl
from collections.abc import AsyncIterator

import pytest

from tests.support.cluster import Cluster
from tests.support.cluster_api import until
from tests.support.cluster_helpers import bind
from tests.support.https import Answer, User, audit_of
from tests.support.platform import ADMINS, Platform, grant

GRANTS = (ADMINS, grant("ann", ["alpha"], users=["ann", "anna"]), grant("ben", ["beta", "gone"], groups=["bens"]))
PODS = "/api/v1/namespaces/default/pods"
FORBIDDEN = (
    PODS,
    "/api/v1/nodes/node-1",
    "/apis/apps/v1/namespaces/kube-system/deployments?limit=500",
    "/metrics",
    "/api/v1/namespaces/default/secrets/absent",
)


@pytest.fixture
async def granted(platform: Platform) -> AsyncIterator[Platform]:
    """The platform with two users more, who have nothing but their grants."""
    platform.set_grants(GRANTS)
    ann = User(platform, "ann", ["devs"])

    async def in_force() -> bool:
        return "Kulvert" not in (await ann.get("alpha")).body.decode()

    await until(in_force, "the grants to be in force", 5)
    yield platform
    platform.set_grants((ADMINS,))


@pytest.fixture
def ann(granted: Platform) -> User:
    return User(granted, "ann", ["devs"])


@pytest.fixture
async def viewers(cluster_a: Cluster, cluster_b: Cluster) -> AsyncIterator[None]:
    """Users who may look: anna in alpha, bea in beta."""
    for cluster, user in ((cluster_a, "anna"), (cluster_b, "bea")):
        await bind(cluster, "view", user=user)
    yield
    for cluster, user in ((cluster_a, "anna"), (cluster_b, "bea")):
        await cluster.api.request("DELETE", f"/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/view-{user}")


@pytest.fixture
def ben(granted: Platform) -> User:
    return User(granted, "ben", ["bens"])


async def direct(cluster: Cluster, user: str, group: str, method: str, path: str) -> tuple[int, str, bytes]:
    """What the API server itself answers an administrator who impersonates: status, type, body."""
    context = ssl.create_default_context(cafile=cluster.ca_file)
    context.load_cert_chain(cluster.files.admin.cert, cluster.files.admin.key)

    def ask() -> tuple[int, str, bytes]:
        host, port = cluster.server.removeprefix("https://").split(":")
        connection = http.client.HTTPSConnection(host, int(port), context=context, timeout=10)
        try:
            connection.request(method, path, headers={"Impersonate-User": user, "Impersonate-Group": group})
            answer = connection.getresponse()
            return answer.status, answer.headers["Content-Type"], answer.read()
        finally:
            connection.close()

    return await asyncio.to_thread(ask)


@pytest.mark.parametrize("path", FORBIDDEN)
@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_the_clusters_own_no_comes_through_byte_for_byte(
    ann: User, cluster_a: Cluster, method: str, path: str
) -> None:
    through = await ann.ask(method, f"/clusters/alpha{path}")
    assert (through.status, through.headers["content-type"], through.body) == await direct(
        cluster_a, "ann", "devs", method, path
    )
    assert through.status == 403
    assert b"Kulvert" not in through.body
    assert "warning" not in through.headers


async def test_kubectl_reads_the_clusters_own_no_as_if_it_had_asked_directly(
    granted: Platform, cluster_a: Cluster
) -> None:
    kubeconfig = granted.kubeconfig("alpha", "ann", ["devs"])
    for command in (["get", "pods"], ["delete", "node", "node-1"], ["auth", "can-i", "list", "pods"]):
        through = await cluster_a.kubectl(*command, kubeconfig=kubeconfig)
        plain = await cluster_a.kubectl(*command, "--as", "ann", "--as-group", "devs")
        assert (through.returncode, through.stdout, through.stderr) == (plain.returncode, plain.stdout, plain.stderr)
        assert through.returncode == 1
    assert 'User "ann" cannot' in (await cluster_a.kubectl("get", "pods", kubeconfig=kubeconfig)).err


@pytest.mark.usefixtures("viewers")
async def test_each_user_reaches_what_the_grants_allow(
    granted: Platform, cluster_a: Cluster, cluster_b: Cluster
) -> None:
    anna, bea = User(granted, "anna", ["devs"]), User(granted, "bea", ["bens"])
    for user, yes, no in ((anna, cluster_a, cluster_b), (bea, cluster_b, cluster_a)):
        seen = await user.get(yes.name, "/api/v1/namespaces/kube-system")
        assert (seen.status, seen.json["metadata"]["uid"]) == (200, yes.uid)
        (record,) = await audit_of(granted, seen.audit_id)
        assert (record["user"]["username"], record["annotations"]["kulvert.dev/cluster"]) == (user.name, yes.name)
        unseen = await user.get(yes.name, "/api/v1/namespaces/kube-system/secrets")
        assert unseen.status == 403  # view is no more than view, and the cluster says so
        assert b"Kulvert" not in unseen.body
        refused = await user.get(no.name, "/api/v1/namespaces/kube-system")
        refused.expect(403, "Forbidden", "gateway", "Kulvert's gateway does not let you do this")
        (record,) = await audit_of(granted, refused.audit_id)
        assert record["user"]["username"] == user.name
        assert record["annotations"]["kulvert.dev/decision"] == "forbid"


@pytest.mark.parametrize("path", ["/api", PODS, "/", "", "/healthz", "/../beta/api"])
async def test_without_a_grant_nobody_learns_whether_a_cluster_exists(ann: User, path: str) -> None:
    def shape(answer: Answer, name: str) -> tuple[int, dict[str, str], str]:
        ours = {"audit-id", "date"}
        headers = {key: value for key, value in answer.headers.items() if key not in ours}
        text = answer.body.decode().replace(answer.audit_id, "ID").replace(name, "NAME")
        return answer.status, {k: v.replace(name, "NAME") for k, v in headers.items() if k != "content-length"}, text

    there, absent = await ann.get("beta", path), await ann.get("nope", path)
    assert shape(there, "beta") == shape(absent, "nope")
    assert len(there.body) == len(absent.body)
    assert there.status in (400, 403)


async def test_kubectl_says_why_the_gateway_refuses(granted: Platform, cluster_a: Cluster) -> None:
    """kubectl's discovery reads no Status, and would say "unknown": a Warning tells its user."""
    kubeconfig = granted.kubeconfig("beta", "ann", ["devs"])
    refused = await cluster_a.kubectl("get", "pods", kubeconfig=kubeconfig)
    assert refused.returncode == 1
    assert "Warning: Kulvert's gateway does not let you do this" in refused.err
    raw = await cluster_a.kubectl("get", "--raw", PODS, kubeconfig=kubeconfig)
    assert re.search(r"\(Forbidden\): Kulvert's gateway does not let you do this", raw.err)


async def test_a_grant_that_is_taken_back_is_gone_within_two_seconds(granted: Platform, ann: User) -> None:
    assert b"Kulvert" not in (await ann.get("alpha")).body
    granted.set_grants((ADMINS,))

    async def refused() -> bool:
        return b"Kulvert's gateway does not let you" in (await ann.get("alpha")).body

    await until(refused, "the grant to be gone", 2.5)


async def test_one_connection_never_carries_ones_rights_to_another(ann: User, ben: User) -> None:
    """The certificate is the connection's; the path decides for each request by itself."""
    async with await ann.connect() as one, await ben.connect() as other:
        for _ in range(3):
            for connection, own, foreign in ((one, "alpha", "beta"), (other, "beta", "alpha")):
                who = await connection.ask("POST", f"/clusters/{foreign}/api/v1/namespaces", body=b"{}")
                assert who.hop == "gateway"
                assert (await connection.ask("GET", f"/clusters/{own}/version")).status == 200

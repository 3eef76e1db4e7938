"""Pass-through before a real API server: it sees the service account itself, and never the agent."""

from __future__ import annotations

import asyncio
import random
import time

import orjson
import pytest

from agent import kubeconfig
from agent.policy import LocalPolicy
from agent.pool import PoolLimits, UpstreamPool
from agent.report import read_report
from auth.authenticator import AuthenticationFailed
from auth.clustertokens import ClusterTokenAuthenticator, PinnedIssuer
from auth.identity import Credentials, Identity
from gateway.membership.clusterkeys import KeyReport
from tests.support.agentside import AgentSide, agent_side
from tests.support.cluster import Cluster
from tests.support.cluster_helpers import create_namespace, create_pod, delete_pod, service_account_token
from tunnel.batch import Batch
from tunnel.errors import Hop, Reason
from tunnel.ports import Headers, RequestBlock

ALLOWED = LocalPolicy(allow_pass_through=True)
ALICE: Headers = [(b"impersonate-user", b"alice"), (b"impersonate-group", b"dev")]
ROBOT = "system:serviceaccount:passing:robot"


async def robot(cluster: Cluster) -> str:
    await create_namespace(cluster, "passing")
    return await service_account_token(cluster, "passing", "robot")


def bearer(token: str) -> Headers:
    return [(b"authorization", b"Bearer " + token.encode())]


async def test_the_cluster_sees_the_service_account_itself(cluster_a: Cluster) -> None:
    token = await robot(cluster_a)
    async with agent_side(cluster_a, ALLOWED) as side:
        seen = await side.whoami(bearer(token), through=True)
        assert seen["username"] == ROBOT
        assert set(seen["groups"]) == {
            "system:serviceaccounts", "system:serviceaccounts:passing", "system:authenticated",
        }  # fmt: skip
        assert (await side.whoami(ALICE))["username"] == "alice"


async def test_interleaved_on_one_connection_each_request_is_its_own_user(cluster_a: Cluster) -> None:
    token = await robot(cluster_a)
    async with agent_side(cluster_a, ALLOWED) as side:
        for number in range(30):
            through = number % 3 == 1
            headers = bearer(token) if through else [(b"impersonate-user", b"user-%d" % number)]
            seen = await side.whoami([(b"audit-id", b"%d" % number), *headers], through)
            assert seen["username"] == (ROBOT if through else f"user-{number}")
            assert seen["username"] != side.user
        assert side.pool.state.open == 1


async def test_a_token_of_another_cluster_is_refused_by_this_one(cluster_a: Cluster, cluster_b: Cluster) -> None:
    """Both test clusters name one issuer, as real ones do."""
    token = await robot(cluster_b)
    async with agent_side(cluster_a, ALLOWED) as side:
        exchange = await side.ask(bearer(token), b"/api/v1/namespaces/default/pods", through=True)
        assert exchange.head.status == 401


async def test_a_bad_token_never_becomes_the_agent(cluster_a: Cluster) -> None:
    async with agent_side(cluster_a, ALLOWED) as side:
        for token in ("x", "e30.e30.e30"):
            exchange = await side.ask(bearer(token), b"/api", through=True)
            assert exchange.head.status == 401


async def test_nothing_is_passed_through_unless_the_owner_allows_it(cluster_a: Cluster) -> None:
    token = await robot(cluster_a)
    async with agent_side(cluster_a, LocalPolicy()) as side:
        exchange = await side.ask(bearer(token), b"/api", through=True)
        assert exchange.reset is not None
        assert (exchange.reset.hop, exchange.reset.reason) == (Hop.AGENT, Reason.POLICY)


async def test_an_agent_with_a_client_certificate_passes_none_through(cluster_a: Cluster) -> None:
    token = await robot(cluster_a)
    loop = asyncio.get_running_loop()
    access = kubeconfig.load(cluster_a.admin_kubeconfig)
    pool = UpstreamPool(access, Batch(loop.call_soon), PoolLimits(), loop, random.Random(1).random)
    try:
        exchange = await AgentSide(pool, ALLOWED, "").ask(bearer(token), b"/api", through=True)
        assert exchange.reset is not None
        assert exchange.reset.reason is Reason.POLICY
    finally:
        await pool.close()
        await asyncio.sleep(0.01)


async def test_exec_is_passed_through_too(cluster_a: Cluster) -> None:
    token = await robot(cluster_a)
    rules = [{"apiGroups": [""], "resources": ["pods/exec"], "verbs": ["create", "get"]}]
    rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default"
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "robot"}, "rules": rules}
    binding = role | {
        "kind": "RoleBinding",
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "robot"},
        "subjects": [{"kind": "ServiceAccount", "namespace": "passing", "name": "robot"}],
    }
    binding.pop("rules")
    await create_pod(cluster_a, "passed")
    await cluster_a.api.create(f"{rbac}/roles", role)
    await cluster_a.api.create(f"{rbac}/rolebindings", binding)
    try:
        async with agent_side(cluster_a, ALLOWED) as side:
            await _exec(side, token)
    finally:
        await cluster_a.api.request("DELETE", f"{rbac}/rolebindings/robot")
        await cluster_a.api.request("DELETE", f"{rbac}/roles/robot")
        await delete_pod(cluster_a, "passed")


async def _exec(side: AgentSide, token: str) -> None:
    headers: Headers = [
        *bearer(token), (b"upgrade", b"websocket"), (b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ=="),
        (b"sec-websocket-version", b"13"), (b"sec-websocket-protocol", b"v5.channel.k8s.io"),
    ]  # fmt: skip
    target = b"/api/v1/namespaces/default/pods/passed/exec?command=echo&command=passed-on&stdout=true"
    head = RequestBlock(b"GET", target, headers, ended=False, upgrade=True, pass_through=True)
    exchange, relay = side.start(head)
    await exchange.until(lambda: b"passed-on" in exchange.data or exchange.reset or exchange.ended)
    assert exchange.head.status == 101, exchange.data
    assert b"passed-on" in exchange.data
    relay.on_end([])
    await exchange.over()


class _Pins(dict[str, PinnedIssuer]):
    """Keys as they were reported."""


async def test_reported_keys_know_a_clusters_own_tokens_and_no_others(cluster_a: Cluster, cluster_b: Cluster) -> None:
    pins, tokens = _Pins(), {}
    for cluster in (cluster_a, cluster_b):
        async with agent_side(cluster, LocalPolicy()) as side:
            report = await read_report(side.pool)
            pins[cluster.name] = KeyReport.of(orjson.loads(orjson.dumps(report))).pinned()
        tokens[cluster.name] = await robot(cluster)
    assert pins["alpha"].issuer == pins["beta"].issuer
    known = ClusterTokenAuthenticator(pins)
    now = time.time()
    found: Identity | None = known.authenticate(_credentials(tokens["alpha"]), now, "alpha")
    assert found is not None
    assert (found.user, found.cluster) == (ROBOT, "alpha")
    assert known.authenticate(_credentials(tokens["beta"]), now, "alpha") is None
    vault = await service_account_token(cluster_a, "passing", "robot", audiences=("vault",))
    with pytest.raises(AuthenticationFailed, match="audience"):
        known.authenticate(_credentials(vault), now, "alpha")


def _credentials(token: str) -> Credentials:
    return Credentials(b"Bearer " + token.encode())

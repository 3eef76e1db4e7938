"""The policy of a cluster's owner before a real API server: what it closes is closed, and all the rest works."""

from __future__ import annotations

import pytest

from agent.policy import LocalPolicy
from agent.policyrules import Lists, RuleSettings
from tests.support.agentside import agent_side
from tests.support.cluster import Cluster
from tests.support.cluster_helpers import bind
from tunnel.errors import Hop, Reason
from tunnel.ports import Headers

USER: Headers = [(b"impersonate-user", b"kulvert-policy-user")]
PODS = b"/api/v1/namespaces/default/pods"
CONFIG_MAP = b'{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "made-by-policy-test"}}'


def policy(**rules: object) -> LocalPolicy:
    return LocalPolicy(rules=RuleSettings(**rules).made())  # type: ignore[arg-type]  # a test's own fields


@pytest.fixture
async def admin(cluster_a: Cluster) -> None:
    await bind(cluster_a, "cluster-admin", user="kulvert-policy-user")


@pytest.mark.usefixtures("admin")
async def test_read_only_reads_everything_and_changes_nothing(cluster_a: Cluster) -> None:
    async with agent_side(cluster_a, policy(read_only=True)) as side:
        for target in (PODS, b"/api", b"/apis", b"/openapi/v3", b"/version", b"/api/v1/secrets?limit=1", b"/readyz"):
            assert (await side.ask(USER, target)).head.status == 200, target
        assert (await side.whoami(USER))["username"] == "kulvert-policy-user"
        maps = b"/api/v1/namespaces/default/configmaps"
        made = await side.ask(USER, maps, b"POST", CONFIG_MAP)
        assert made.reset is not None
        assert (made.reset.hop, made.reset.reason) == (Hop.AGENT, Reason.POLICY)
        assert "only reading is open here (readOnly)" in made.reset.message
        assert (await side.ask(USER, maps + b"/made-by-policy-test")).head.status == 404


@pytest.mark.usefixtures("admin")
async def test_closed_namespaces_are_closed_by_every_spelling_that_the_api_server_takes(cluster_a: Cluster) -> None:
    closed = policy(namespaces=Lists(deny=("kube-system",)))
    spellings = (
        b"/api/v1/namespaces/kube-system/serviceaccounts",
        b"/api/v1/namespaces/kube%2Dsystem/serviceaccounts",
        b"/api/v1/namespaces/%6bube-system/serviceaccounts",
        b"/api/v1/serviceaccounts",
        b"/api/v1/serviceaccounts/",
        b"/api/v1/serviceaccounts?fieldSelector=metadata.namespace%3Dkube-system",
        b"/api/v1/watch/namespaces/kube-system/serviceaccounts?timeoutSeconds=1",
        b"/api/v1//namespaces/kube-system/serviceaccounts",
        b"//api/v1/namespaces/kube-system/serviceaccounts",
        b"/api/v1/namespaces/default/../kube-system/serviceaccounts",
        b"/api/v1/namespaces/default%2f..%2fkube-system/serviceaccounts",
        b"/api/v1/./namespaces/kube-system/serviceaccounts",
    )
    async with agent_side(cluster_a, closed) as side:
        for target in spellings:
            exchange = await side.ask(USER, target)
            assert exchange.reset is not None, target
            assert exchange.reset.reason is Reason.POLICY, target
        assert (await side.ask(USER, b"/api/v1/namespaces/default/serviceaccounts")).head.status == 200
        assert (await side.ask(USER, b"/api/v1/nodes")).head.status == 200


@pytest.mark.usefixtures("admin")
async def test_users_and_groups_that_are_closed_do_not_come_in(cluster_a: Cluster) -> None:
    async with agent_side(cluster_a, policy(deny_users=("*-policy-user",), deny_groups=("contractors",))) as side:
        for headers in (USER, [(b"impersonate-user", b"bob"), (b"impersonate-group", b"contractors")]):
            exchange = await side.ask(headers, PODS)
            assert exchange.reset is not None
            assert exchange.reset.reason is Reason.POLICY
            assert "policy-user" not in exchange.reset.message
        assert (await side.whoami([(b"impersonate-user", b"bob")]))["username"] == "bob"

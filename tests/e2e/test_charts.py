"""Helm through the gateway: charts are installed, changed, rolled back, taken away as at a cluster's own API server.

The pods are admitted by the strictest of Kubernetes' own policies, and become ready by kwok: what is shown is that the
API server and Helm are content with the charts, not that a container runs.
"""

from __future__ import annotations

import base64
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tests.charts.cases import CHARTS
from tests.charts.helm import Helm
from tests.support.cluster import Cluster
from tests.support.cluster_helpers import service_account_token, token_kubeconfig
from tests.support.platform import Platform
from tests.support.releases import CRDS, OCM, Release, crds, releasing

AGENT = ("--set", "cluster=edge-7,servers={https://k.example.com:8444},joinToken.existingSecret=join")
REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
CRD = "kind: CustomResourceDefinition"


@pytest.fixture
async def release(
    platform: Platform, cluster_a: Cluster, testbed: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> AsyncIterator[Release]:
    helm, kubeconfig = Helm(testbed / "helm", tmp_path), platform.kubeconfig(cluster_a.name)
    async with releasing(helm, cluster_a, kubeconfig, request.node.name) as made:
        yield made


async def test_the_agents_chart_comes_changes_goes_back_and_goes(release: Release) -> None:
    chart = CHARTS / "kulvert-agent"
    told = await release.helm("install", "edge", chart, *AGENT, "--wait", "--timeout", "60s")
    assert "kulvert cluster accept edge-7" in told
    assert "by constrained impersonation" in told, "by the version that the cluster itself tells"
    deployment = await release.get("deployment", "edge-kulvert-agent")
    assert deployment["status"]["readyReplicas"] == 2
    made = await release.objects()

    identity = base64.b64encode(b"a key and a certificate").decode()
    kept = await release.get("secret", "edge-kulvert-agent-state")
    path = f"/api/v1/namespaces/{release.namespace}/secrets/edge-kulvert-agent-state"
    await release.cluster.api.request("PUT", path, kept | {"data": {"agent.pem": identity}})

    changes = ("--reset-then-reuse-values", "--set", "replicaCount=3,policy.readOnly=true,joinToken.existingSecret=")
    await release.helm("upgrade", "edge", chart, *changes, "--wait", "--timeout", "60s")
    deployment = await release.get("deployment", "edge-kulvert-agent")
    assert deployment["status"]["readyReplicas"] == 3
    assert "join" not in {volume["name"] for volume in deployment["spec"]["template"]["spec"]["volumes"]}
    settings = (await release.get("configmap", "edge-kulvert-agent"))["data"]["agent.yaml"]
    assert "readOnly: true" in settings
    assert "joinTokenFile" not in settings

    await release.helm("rollback", "edge", "1", "--wait", "--timeout", "60s")
    deployment = await release.get("deployment", "edge-kulvert-agent")
    assert deployment["spec"]["replicas"] == 2
    assert "join" in {volume["name"] for volume in deployment["spec"]["template"]["spec"]["volumes"]}
    assert "readOnly" not in (await release.get("configmap", "edge-kulvert-agent"))["data"]["agent.yaml"]
    kept = await release.get("secret", "edge-kulvert-agent-state")
    assert kept["data"] == {"agent.pem": identity}, "no change of the chart takes an agent's identity away"
    assert await release.objects() == made
    assert (await release.helm("get", "hooks", "edge")).strip() == ""

    await release.helm("uninstall", "edge", "--wait", "--timeout", "60s")
    assert await release.objects() == set()


async def test_the_servers_chart_comes_changes_goes_back_and_goes(release: Release) -> None:
    chart = CHARTS / "kulvert"
    told = await release.helm(
        "install", "kulvert", chart, "--set", "names={k.example.com}", "--wait", "--timeout", "60s"
    )
    assert "in the mode standby" in told
    assert await crds(release.cluster) == set(CRDS)
    deployment = await release.get("deployment", "kulvert")
    assert deployment["status"]["readyReplicas"] == 2
    agents = await release.get("service", "kulvert-agents")
    assert agents["spec"]["selector"]["kulvert.dev/active"] == "true"
    made = await release.objects()

    sharded = ("--reuse-values", "--set", "mode=sharded,replicaCount=3")
    await release.helm("upgrade", "kulvert", chart, *sharded, "--wait", "--timeout", "60s")
    assert (await release.get("deployment", "kulvert"))["status"]["readyReplicas"] == 3
    agents = await release.get("service", "kulvert-agents")
    assert "kulvert.dev/active" not in agents["spec"]["selector"]
    assert "mode: sharded" in (await release.get("configmap", "kulvert"))["data"]["server.yaml"]

    await release.helm("rollback", "kulvert", "1", "--wait", "--timeout", "60s")
    assert "mode: standby" in (await release.get("configmap", "kulvert"))["data"]["server.yaml"]
    assert (await release.get("service", "kulvert-agents"))["spec"]["selector"]["kulvert.dev/active"] == "true"
    assert await release.objects() == made
    assert (await release.helm("get", "hooks", "kulvert")).strip() == ""

    await release.helm("uninstall", "kulvert", "--wait", "--timeout", "60s")
    left = {f"customresourcedefinition.apiextensions.k8s.io/{OCM}"}
    assert await release.objects() == left, "it bears the chart's labels; the CRD of grants has none"
    assert await crds(release.cluster) == set(CRDS)


async def test_a_second_installation_takes_over_what_the_first_one_left(release: Release) -> None:
    chart = CHARTS / "kulvert"
    await release.helm("install", "kulvert", chart)
    await release.helm("uninstall", "kulvert", "--wait", "--timeout", "60s")
    await release.helm("install", "kulvert", chart, "--wait", "--timeout", "60s")
    crd = await release.get("crd", OCM)
    assert crd["metadata"]["annotations"]["meta.helm.sh/release-namespace"] == release.namespace
    await release.helm("upgrade", "kulvert", chart)
    assert CRD in await release.helm("get", "manifest", "kulvert"), "an upgrade does not let it go"
    await release.helm("uninstall", "kulvert", "--wait", "--timeout", "60s")


async def test_managedclusters_of_others_are_left_alone(release: Release) -> None:
    (await release.cluster.kubectl("apply", "-f", CHARTS / "crds-without-ocm")).check()
    before = await release.get("crd", OCM)
    await release.helm("install", "kulvert", CHARTS / "kulvert")
    assert CRD not in await release.helm("get", "manifest", "kulvert")
    after = await release.get("crd", OCM)
    assert after["metadata"]["generation"] == before["metadata"]["generation"]
    assert "meta.helm.sh/release-name" not in after["metadata"].get("annotations", {})
    refused = await release.helm(
        "upgrade", "kulvert", CHARTS / "kulvert", "--set", "hub.managedClusterCRD=true", fails=True
    )
    assert "cannot be owned" in refused or "invalid ownership metadata" in refused
    await release.helm("uninstall", "kulvert", "--wait", "--timeout", "60s")
    assert await release.get("crd", OCM), "and an uninstallation does not take them away"


async def test_the_volume_of_a_single_server_outlives_it(release: Release) -> None:
    values = "mode=single,hub.enabled=false,state.persistence.enabled=true"
    told = await release.helm("install", "kulvert", CHARTS / "kulvert", "--set", values, "--skip-crds")
    assert "ITS STATE IS GONE" not in told
    await release.helm("uninstall", "kulvert")
    assert (await release.get("pvc", "kulvert-state"))["spec"]["accessModes"] == ["ReadWriteOnce"]
    assert await release.objects() == {"persistentvolumeclaim/kulvert-state"}
    patch = ("--type=merge", "-p", '{"metadata":{"finalizers":null}}')  # the test bed has no controller that would
    (await release.cluster.kubectl("patch", "pvc", "kulvert-state", "-n", release.namespace, *patch)).check()


@pytest.mark.parametrize(
    ("chart", "account", "may", "may_not"),
    [
        (
            "kulvert",
            "kulvert",
            lambda ns: [
                ("create", "leases.coordination.k8s.io", ns), ("update", "secrets", ns), ("patch", "pods", ns),
                ("watch", "grants.kulvert.dev", ""), ("patch", OCM, ""),
            ],
            [
                ("get", "secrets", "default"), ("patch", "pods", "default"),
                ("list", "leases.coordination.k8s.io", "default"),
                ("create", "tokenreviews.authentication.k8s.io", ""), ("update", "grants.kulvert.dev", ""),
                ("create", "pods", "default"), ("impersonate", "users", ""),
            ],
        ),
        (
            "kulvert-agent",
            "kulvert-kulvert-agent",
            lambda ns: [
                ("impersonate:user-info", "users.authentication.k8s.io", ""), ("get", "namespaces/kube-system", ""),
                ("update", "secrets/kulvert-kulvert-agent-state", ns),
            ],
            [
                ("impersonate", "users", ""), ("impersonate", "groups", ""), ("get", "pods", "default"),
                ("get", "secrets/other", "default"), ("list", "nodes", ""), ("get", "namespaces/default", ""),
                ("create", "serviceaccounts:token", "default"),
            ],
        ),
    ],
    ids=["kulvert", "kulvert-agent"],
)  # fmt: skip
async def test_accounts_may_do_what_they_need_and_no_more(
    release: Release,
    chart: str,
    account: str,
    may: Callable[[str], list[tuple[str, str, str]]],
    may_not: list[tuple[str, str, str]],
) -> None:
    values = ("--set", "fullnameOverride=kulvert-kulvert-agent", *AGENT) if chart == "kulvert-agent" else ()
    await release.helm("install", "kulvert", CHARTS / chart, *values)
    user = f"system:serviceaccount:{release.namespace}:{account}"

    async def answered(verb: str, what: str, where: str) -> bool:
        found = re.fullmatch(r"(\w+)(?:\.([\w.-]+))?(?::(\w+))?(?:/([\w-]+))?", what)
        assert found, what
        asked = dict(zip(("resource", "group", "subresource", "name"), found.groups(default=""), strict=True))
        attributes = {"verb": verb, "namespace": where, **asked}
        review = {"spec": {"user": user, "resourceAttributes": attributes}}
        answer = await release.cluster.api.request("POST", REVIEWS, review)
        return bool(answer["status"]["allowed"])

    for verb, what, where in may(release.namespace):
        await release.cluster.wait_for(lambda v=verb, w=what, n=where: answered(v, w, n), f"{verb} {what}")  # type: ignore[misc]
    assert [one for one in may_not if await answered(*one)] == []
    await release.helm("uninstall", "kulvert")


@pytest.mark.parametrize("mode", ["constrained", "listed"])
async def test_a_real_agent_works_with_the_charts_account_and_acts_as_nobody_else(
    release: Release, platform: Platform, mode: str
) -> None:
    whom = f"impersonation.mode={mode},impersonation.users={{ada}},impersonation.groups={{kulvert:admins}}"
    await release.helm("install", "kulvert", CHARTS / "kulvert-agent", *AGENT, "--set", whom)
    token = await service_account_token(release.cluster, release.namespace, "kulvert-kulvert-agent")
    name = f"charted-{mode}"
    kubeconfig = await token_kubeconfig(release.cluster, token, f"{name}.kubeconfig")
    await platform.attach(name, kubeconfig)
    try:
        allowed = await release.cluster.kubectl("get", "namespaces", kubeconfig=platform.kubeconfig(name, "ada"))
        assert "kube-system" in allowed.check().out
        refused = await release.cluster.kubectl("get", "namespaces", kubeconfig=platform.kubeconfig(name, "ben"))
        assert refused.returncode != 0
        assert "cannot impersonate" in refused.err
        assert "ben" in refused.err
    finally:
        await platform.stop_agent(name)
        await release.helm("uninstall", "kulvert")

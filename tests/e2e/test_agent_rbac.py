"""The manifest that we ship for an agent's service account is enough for its work, and no more."""

from __future__ import annotations

from pathlib import Path

import yaml

from tests.support.cluster import Cluster
from tests.support.cluster_helpers import service_account_token, token_kubeconfig
from tests.support.platform import Platform

MANIFEST = Path(__file__).parents[2] / "charts" / "agent-rbac.yaml"
OWN = "shipped"


def renamed(directory: Path) -> Path:
    """The manifest under names of this test's own, beside those that other tests use."""
    path = directory / "rbac.yaml"
    path.write_text(MANIFEST.read_text().replace("kulvert-agent", OWN).replace("name: kulvert\n", f"name: {OWN}\n"))
    text = path.read_text().replace("namespace: kulvert\n", f"namespace: {OWN}\n")
    path.write_text(text)
    return path


async def test_an_agent_works_with_the_shipped_role_alone(
    platform: Platform, cluster_a: Cluster, tmp_path: Path
) -> None:
    manifest = renamed(tmp_path)
    (await cluster_a.kubectl("apply", "-f", manifest)).check()
    try:
        token = await service_account_token(cluster_a, OWN, OWN)
        kubeconfig = await token_kubeconfig(cluster_a, token, "shipped.kubeconfig")
        await platform.attach(OWN, kubeconfig)
        result = await cluster_a.kubectl("get", "namespaces", kubeconfig=platform.kubeconfig(OWN))
        assert "kube-system" in result.check().out
        await platform.stop_agent(OWN)
        for verb, resource in (("list", "pods"), ("get", "secrets"), ("create", "serviceaccounts/token")):
            asked = await cluster_a.kubectl(
                "auth", "can-i", verb, resource, "--as", f"system:serviceaccount:{OWN}:{OWN}"
            )
            assert asked.out == "no"
    finally:
        (await cluster_a.kubectl("delete", "-f", manifest, "--wait=false")).check()


def test_the_manifest_gives_the_agent_no_wildcard() -> None:
    roles = [one for one in yaml.safe_load_all(MANIFEST.read_text()) if one["kind"] == "ClusterRole"]
    rules = [rule for role in roles for rule in role["rules"]]
    assert not any("*" in values for rule in rules for values in rule.values())

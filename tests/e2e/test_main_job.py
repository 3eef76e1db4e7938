"""Plain kubectl, through the tunnel, to real API servers that can only dial out."""

from __future__ import annotations

import json

from tests.support.cluster import Cluster
from tests.support.platform import Platform


async def test_kubectl_get_pods_answers_through_the_tunnel(platform: Platform, cluster_a: Cluster) -> None:
    result = await cluster_a.kubectl("get", "pods", "-A", "-o", "json", kubeconfig=platform.kubeconfig("alpha"))
    assert json.loads(result.check().out)["kind"] == "List"


async def test_whoami_shows_the_platform_user_and_groups(platform: Platform, cluster_a: Cluster) -> None:
    kubeconfig = platform.kubeconfig("alpha", "ada", ["devs", "kulvert:admins"])
    result = await cluster_a.kubectl("auth", "whoami", "-o", "json", kubeconfig=kubeconfig)
    seen = json.loads(result.check().out)["status"]["userInfo"]
    assert seen["username"] == "ada"
    assert set(seen["groups"]) == {"devs", "kulvert:admins", "system:authenticated"}

"""An agent's manifest: what it needs, under the names and labels by which it is taken away again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from agent.cleanup import AGENT, LABEL, NAME, OWNER, REMOVER
from agent.config import load
from gateway.joining.manifest import NAMESPACE, STATE, Installation, path_of, roles
from gateway.membership.removals import INSTALLED

CHARTS = Path(__file__).parents[3] / "charts"
MADE = Installation("edge-7", ("https://k.example.com:8444",), "kvt_id.secret", "PEM", "img:1")


def charted(name: str) -> list[Any]:
    return list(yaml.safe_load_all((CHARTS / name).read_text()))


def found(kind: str) -> dict[str, Any]:
    return [one for one in MADE.objects() if one["kind"] == kind][-1]


def test_the_roles_are_those_that_are_shipped() -> None:
    assert roles(uninstall=False) == charted("agent-rbac.yaml")
    assert roles() == charted("agent-rbac.yaml") + charted("agent-uninstall-rbac.yaml")
    assert roles(uninstall=False, constrained=True) == charted("agent-rbac-constrained.yaml")
    state = [one for one in MADE.objects() if one["metadata"]["name"] == STATE]
    assert state == charted("agent-state-rbac.yaml")


def test_everything_bears_the_labels_by_which_the_agent_finds_it_again() -> None:
    for one in MADE.objects():
        assert one["metadata"]["labels"] == {LABEL: OWNER, NAME: AGENT}
    names = {f"{one['kind']} {one['metadata']['name']}" for one in MADE.objects() if "namespace" not in one["metadata"]}
    assert names == {line.partition(",")[0] for line in INSTALLED}
    assert f"ClusterRole {REMOVER}" in names


def test_what_is_printed_is_read_again_and_the_token_is_in_the_secret_alone() -> None:
    objects = list(yaml.safe_load_all(MADE.text()))
    assert objects == MADE.objects()
    assert objects[0]["kind"] == "Namespace"
    holders = [one["kind"] for one in objects if "kvt_id" in yaml.safe_dump(one)]
    assert holders == ["Secret"]
    assert "kvt_id" not in repr(MADE)


def test_the_configuration_is_one_that_the_agent_takes(tmp_path: Path) -> None:
    text: str = found("ConfigMap")["data"]["agent.yaml"]
    (tmp_path / "token").write_text("kvt_" + "a" * 16 + "." + "A" * 43)
    path = tmp_path / "agent.yaml"
    path.write_text(text.replace("/etc/kulvert-join/token", str(tmp_path / "token")))
    settings = load(path, {}, {})
    assert settings.cluster == "edge-7"
    container = found("Deployment")["spec"]["template"]["spec"]["containers"][0]
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert settings.state_dir is not None
    assert str(settings.state_dir.parent) in mounts
    assert settings.state_secret in {one["metadata"]["name"] for one in MADE.objects() if one["kind"] == "Secret"}
    assert settings.ca_file is not None
    assert str(settings.ca_file.parent) in mounts


def test_the_pod_is_as_restricted_as_the_strictest_policy_wants() -> None:
    pod = found("Deployment")["spec"]["template"]["spec"]
    container = pod["containers"][0]
    assert pod["securityContext"]["runAsNonRoot"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
    }  # fmt: skip
    assert pod["automountServiceAccountToken"] is False
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}


def test_without_a_ca_of_its_own_the_agent_trusts_its_system() -> None:
    made = Installation("edge", ("https://k:1",), "t", uninstall=False).objects()
    (config,) = (one for one in made if one["kind"] == "ConfigMap")
    assert list(config["data"]) == ["agent.yaml"]
    assert "caFile" not in config["data"]["agent.yaml"]
    assert not any(REMOVER in one["metadata"]["name"] for one in made)


def test_objects_are_where_the_api_server_keeps_them() -> None:
    paths = [path_of(one) for one in MADE.objects()]
    assert paths[0] == "/api/v1/namespaces/kulvert"
    assert f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/kulvert-agent" in paths
    assert "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/kulvert-agent" in paths

"""`kulvert access explain` on a server's state."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import Result

from tests.cli.command import kulvert

GRANTS = """\
apiVersion: kulvert.dev/v1alpha1
kind: Grants
grants:
- name: deployers
  subjects: [{kind: ServiceAccount, namespace: ci, name: deployer}]
  clusters: [edge-*]
  impersonate: {userPrefix: "hub:", groupPrefix: "hub:"}
- name: argocd
  subjects: [{kind: ServiceAccount, namespace: argocd, name: controller, cluster: edge-7}]
  clusters: [edge-7]
  passThrough: true
- name: look
  subjects: [{kind: Group, name: dev}]
  clusterSelector: {matchLabels: {env: dev}}
  access: {readOnly: true}
- name: elsewhere
  subjects: [{kind: User, name: ada}]
  clusters: [prod-*]
"""


@pytest.fixture
def state(tmp_path: Path) -> Path:
    assert kulvert("cluster", "add", "edge-7", "--label", "env=dev", "--state-dir", tmp_path / "s").exit_code == 0
    (tmp_path / "s" / "grants.yaml").write_text(GRANTS)
    (tmp_path / "s" / "grants.yaml").chmod(0o600)
    return tmp_path / "s"


def explain(state: Path, *args: str | Path) -> Result:
    return kulvert("access", "explain", *args, "--state-dir", state)


def test_the_answer_names_the_rule_whom_the_cluster_sees_and_what_was_with_the_others(state: Path) -> None:
    kulvert("grant", "create", "more", "--user", "ada", "--cluster", "*", "--state-dir", state)
    result = explain(state, "ada", "edge-7", "get", "pods/log", "web", "-n", "team-a", "--group", "dev")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0] == "yes: allowed by grant 'look'"
    assert lines[1] == "the cluster sees user ada, in groups dev"
    assert [line.split()[:2] for line in lines[4:7]] == [["look", "file"], ["elsewhere", "file"], ["more", "store"]]
    assert "does not cover cluster 'edge-7'" in lines[5]
    assert "would match, but an earlier one decides" in lines[6]
    assert lines[-1] == "2 more in force name somebody else"


def test_no_is_an_exit_code_and_says_what_came_nearest(state: Path) -> None:
    result = explain(state, "ada", "edge-7", "create", "pods", "--subresource", "exec", "--group", "dev", "-n", "a")
    assert result.exit_code == 1
    assert result.stdout.startswith(
        "no: no grant lets 'ada' reach cluster 'edge-7' for this: grant 'look' comes nearest"
    )
    assert explain(state, "eve", "edge-7", "get", "pods").exit_code == 1
    assert explain(state, "ada", "edge-8", "get", "pods", "--group", "dev").exit_code == 1


def test_service_accounts_paths_and_json(state: Path) -> None:
    hub = explain(state, "system:serviceaccount:ci:deployer", "edge-7", "delete", "deployments.apps", "-o", "json")
    found = json.loads(hub.stdout)
    assert (found["rule"], found["impersonated"]["user"]) == ("deployers", "hub:system:serviceaccount:ci:deployer")
    own = explain(state, "system:serviceaccount:argocd:controller", "edge-7", "list", "pods", "--pass-through")
    assert "the cluster sees the service account itself" in own.stdout
    assert explain(state, "system:serviceaccount:argocd:controller", "edge-7", "list", "pods").exit_code == 1
    assert explain(state, "ada", "edge-7", "get", "/healthz", "--group", "dev").exit_code == 0
    assert explain(state, "ada", "edge-7", "get", "/metrics", "--group", "dev").exit_code == 1


def test_a_server_whose_grants_are_elsewhere_is_asked_with_them(state: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(GRANTS.replace("name: dev}", "name: qa}"))
    other.chmod(0o600)
    assert explain(state, "ada", "edge-7", "get", "pods", "--group", "qa", "--grants", other).exit_code == 0
    assert "cannot be read" in explain(state, "ada", "edge-7", "get", "pods", "--grants", tmp_path / "nil").stderr


def test_a_typing_error_is_one_line(state: Path) -> None:
    result = explain(state, "ada", "edge-7", "get", "Pods")
    assert result.exit_code == 1
    assert "must be RESOURCE[.GROUP][/SUBRESOURCE]" in result.stderr
    assert result.stderr.count("\n") == 1

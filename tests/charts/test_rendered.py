"""What must hold in everything that the charts make, whatever the values."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.charts.cases import AGENTS, CASES, SERVERS, Case, Object, case

ALLOWED_STARS = {"impersonate-on:user-info"}


def deployment(one: Case) -> dict[str, Any]:
    return dict(one.of_kind("Deployment")["spec"])


def pod(one: Case) -> dict[str, Any]:
    return dict(deployment(one)["template"]["spec"])


def container(one: Case) -> dict[str, Any]:
    (found,) = pod(one)["containers"]
    return dict(found)


def rules(one: Case) -> Iterator[tuple[Object, dict[str, Any]]]:
    for role in one.objects:
        if role["kind"] in ("Role", "ClusterRole"):
            yield from ((role, rule) for rule in role["rules"])


@pytest.mark.parametrize("one", CASES, ids=lambda one: one.name)
def test_the_pod_is_as_restricted_as_the_strictest_policy_wants(one: Case) -> None:
    context = pod(one)["securityContext"]
    assert (context["runAsNonRoot"], context["seccompProfile"]) == (True, {"type": "RuntimeDefault"})
    assert isinstance(context["runAsUser"], int)
    assert container(one)["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
    }  # fmt: skip
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod(one).keys()
    assert container(one)["resources"]["limits"]["memory"]
    assert {mount["name"] for mount in container(one)["volumeMounts"]} == {item["name"] for item in pod(one)["volumes"]}


@pytest.mark.parametrize("one", CASES, ids=lambda one: one.name)
def test_every_object_bears_the_labels_and_selectors_are_of_those_that_do_not_change(one: Case) -> None:
    for found in one.objects:
        labels = found["metadata"]["labels"]
        assert labels["app.kubernetes.io/name"] == one.chart
        assert labels["helm.sh/chart"].startswith(one.chart)
        assert found["metadata"].get("namespace", "kulvert") or found["kind"] == "Namespace"
    selector = deployment(one)["selector"]["matchLabels"]
    assert set(selector) == {"app.kubernetes.io/name", "app.kubernetes.io/instance"}
    assert selector.items() <= deployment(one)["template"]["metadata"]["labels"].items()


@pytest.mark.parametrize("one", CASES, ids=lambda one: one.name)
def test_no_role_has_a_wildcard_but_for_what_gives_nothing_by_itself(one: Case) -> None:
    for role, rule in rules(one):
        verbs = {verb.rpartition(":")[0] for verb in rule["verbs"]}
        stars = [name for name, values in rule.items() if "*" in values]
        assert not stars or verbs == ALLOWED_STARS, (role["metadata"]["name"], rule)


@pytest.mark.parametrize("one", CASES, ids=lambda one: one.name)
def test_every_role_is_bound_to_the_charts_own_account_and_to_nobody_else(one: Case) -> None:
    accounts = {found["metadata"]["name"] for found in one.objects if found["kind"] == "ServiceAccount"}
    assert pod(one)["serviceAccountName"] in accounts
    bound = set()
    for binding in one.objects:
        if binding["kind"] in ("RoleBinding", "ClusterRoleBinding"):
            (subject,) = binding["subjects"]
            assert (subject["kind"], subject["namespace"]) == ("ServiceAccount", "kulvert")
            assert subject["name"] in accounts
            bound.add(
                (binding["roleRef"]["kind"], binding["roleRef"]["name"], binding["metadata"].get("namespace", ""))
            )
    roles = {(found["kind"], found["metadata"]["name"], found["metadata"].get("namespace", ""))
             for found in one.objects if found["kind"] in ("Role", "ClusterRole")}  # fmt: skip
    assert bound == roles


@pytest.mark.parametrize("one", SERVERS, ids=lambda one: one.name)
def test_secrets_are_open_in_the_namespaces_that_were_named_and_never_everywhere(one: Case) -> None:
    everywhere = [rule for role, rule in rules(one) if role["kind"] == "ClusterRole"]
    assert not any("secrets" in rule.get("resources", ()) or "pods" in rule.get("resources", ()) for rule in everywhere)
    named = {role["metadata"]["namespace"] for role, rule in rules(one) if "secrets" in rule.get("resources", ())}
    assert named == {
        "kulvert-standby": {"kulvert"}, "kulvert-sharded": {"kulvert"}, "kulvert-single": set(),
        "kulvert-everything": {"kulvert", "joining", "tokens"},
    }[one.name]  # fmt: skip


@pytest.mark.parametrize("one", AGENTS, ids=lambda one: one.name)
def test_an_agent_may_act_as_others_as_its_mode_says_and_no_further(one: Case) -> None:
    acting = [rule for _, rule in rules(one) if "impersonate" in rule["verbs"]]
    by_constraint = [rule for _, rule in rules(one) if "impersonate:user-info" in rule["verbs"]]
    if one.name in ("kulvert-agent-constrained", "kulvert-agent-joined"):
        assert not acting
        assert len(by_constraint) == 1
        return
    assert not by_constraint
    whom = {rule["resources"][0]: rule.get("resourceNames") for rule in acting if rule["apiGroups"] == [""]}
    listed = {"users": ["ada", "oidc:ben"], "groups": ["dev"]}
    assert whom == (listed if one.name == "kulvert-agent-everything" else {"users": None})


@pytest.mark.parametrize("one", AGENTS, ids=lambda one: one.name)
def test_nothing_comes_in_to_an_agent(one: Case) -> None:
    policy = one.of_kind("NetworkPolicy")["spec"]
    assert (policy["policyTypes"], policy["ingress"]) == (["Ingress", "Egress"], [])
    assert "ports" not in container(one)
    out = {port["port"] for rule in policy["egress"] for port in rule.get("ports", ())}
    more = {3128, 443, 16443} if one.name == "kulvert-agent-everything" else {443, 6443, 5353}
    assert out == {53, 8444} | more
    assert not any(one["kind"] == "Service" for one in one.objects)


def test_replicas_reach_each_other_and_nobody_else_reaches_their_door() -> None:
    for name in ("kulvert-standby", "kulvert-sharded"):
        policy = case(name).of_kind("NetworkPolicy")["spec"]
        own = {"podSelector": {"matchLabels": deployment(case(name))["selector"]["matchLabels"]}}
        for direction, whom in (("ingress", "from"), ("egress", "to")):
            (rule,) = (
                rule for rule in policy[direction] if rule.get("ports") == [{"protocol": "TCP", "port": "peers"}]
            )
            assert rule[whom] == [own]
    assert [port["name"] for port in container(case("kulvert-single"))["ports"]] == ["https", "agents"]


def test_a_rollout_of_two_replicas_waits_for_nobody_but_the_new_pods_readiness() -> None:
    for name in ("kulvert-standby", "kulvert-sharded"):
        assert deployment(case(name))["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
        assert "kulvert.dev/active" not in deployment(case(name))["template"]["metadata"]["labels"]
        assert "kulvert.dev/active" not in case(name).of_kind("Service", "kulvert")["spec"]["selector"]
    assert deployment(case("kulvert-standby"))["replicas"] == 2
    assert "replicas" not in deployment(case("kulvert-sharded")), "they are the autoscaler's"
    assert deployment(case("kulvert-single"))["strategy"] == {"type": "Recreate"}


def test_a_single_server_has_a_volume_that_stays_and_no_budget_that_keeps_its_node_from_draining() -> None:
    one = case("kulvert-single")
    assert one.of_kind("PersistentVolumeClaim")["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert not any(found["kind"] in ("PodDisruptionBudget", "ClusterRole", "Role") for found in one.objects)
    assert pod(one)["automountServiceAccountToken"] is False


def test_a_certificate_is_for_the_names_that_are_dialled() -> None:
    spec = case("kulvert-sharded").of_kind("Certificate")["spec"]
    assert spec["dnsNames"] == [
        "kulvert.kulvert.svc", "kulvert-agents.kulvert.svc", "*.clusters.example.com", "kulvert.example.com",
    ]  # fmt: skip
    assert spec["ipAddresses"] == ["203.0.113.7"]
    secrets = [item["secret"]["secretName"] for item in pod(case("kulvert-sharded"))["volumes"] if "secret" in item]
    assert secrets == [spec["secretName"]]


def test_grants_roll_nothing_and_settings_do() -> None:
    annotations = deployment(case("kulvert-standby"))["template"]["metadata"]["annotations"]
    assert set(annotations) == {"kulvert.dev/settings-checksum"}
    changed = deployment(case("kulvert-everything"))["template"]["metadata"]["annotations"]
    assert changed["kulvert.dev/settings-checksum"] != annotations["kulvert.dev/settings-checksum"]


def test_the_join_token_is_in_its_secret_alone() -> None:
    holders = [found["kind"] for found in case("kulvert-agent-joined").objects if "kvt_" in str(found)]
    assert holders == ["Secret"]

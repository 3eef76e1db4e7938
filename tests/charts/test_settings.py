"""What the charts write into ConfigMaps, the programs take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from agent import config as agent_config
from auth.grants.yaml import parse_grants
from auth.oidc.configyaml import parse_authentication_configuration
from gateway.replicas.podlabel import LABEL
from gateway.spelling import load, settings
from tests.charts.cases import AGENTS, SERVERS, Case, case
from tests.charts.test_manifest import TOKEN


def container(one: Case) -> dict[str, Any]:
    (found,) = one.of_kind("Deployment")["spec"]["template"]["spec"]["containers"]
    return dict(found)


def server_settings(one: Case) -> dict[str, Any]:
    return dict(yaml.safe_load(one.of_kind("ConfigMap", "kulvert")["data"]["server.yaml"]))


@pytest.mark.parametrize("one", SERVERS, ids=lambda one: one.name)
def test_the_server_takes_its_settings(one: Case, tmp_path: Path) -> None:
    path = tmp_path / "server.yaml"
    path.write_text(yaml.safe_dump(server_settings(one)))
    taken = load(path, {}, {})
    mounts = {mount["mountPath"] for mount in container(one)["volumeMounts"]}
    for file in (taken.grants, taken.tls.certificate, taken.tls.key, taken.tls.client_ca, taken.authentication.config):
        assert file is None or str(file.parent) in mounts
    assert {"name": "KULVERT_STATE_DIR", "value": str(taken.state_dir)} in container(one)["env"]
    assert str(taken.state_dir.parent) in mounts, "the server makes a directory of its own in the volume"
    ports = {port["containerPort"] for port in container(one)["ports"]}
    assert {int(address.rpartition(":")[2]) for address in (*taken.listen, *taken.agents_listen)} <= ports
    grace = one.of_kind("Deployment")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    pause = container(one).get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    assert grace > taken.timeouts.drain + pause


def test_further_settings_go_through_beside_the_charts_own(tmp_path: Path) -> None:
    path = tmp_path / "server.yaml"
    path.write_text(yaml.safe_dump(server_settings(case("kulvert-everything"))))
    taken = load(path, {}, {})
    assert (taken.timeouts.recheck, taken.timeouts.drain) == (2.0, 60.0)
    assert taken.auto_join.image == "example.com/kulvert:1"
    assert taken.service_accounts.secret_namespaces == ("tokens",)
    assert taken.metrics_group == "platform-admins"


@pytest.mark.parametrize("one", AGENTS, ids=lambda one: one.name)
def test_the_agent_takes_its_settings(one: Case, tmp_path: Path) -> None:
    document = yaml.safe_load(one.of_kind("ConfigMap")["data"]["agent.yaml"])
    mounts = {mount["mountPath"] for mount in container(one)["volumeMounts"]}
    for key in ("joinTokenFile", "caFile"):
        assert key not in document or str(Path(document[key]).parent) in mounts
    if "joinTokenFile" in document:
        document["joinTokenFile"] = str(tmp_path / "token")
        (tmp_path / "token").write_text(TOKEN)
    path = tmp_path / "agent.yaml"
    path.write_text(yaml.safe_dump(document))
    taken = agent_config.load(path, {}, {})
    assert taken.cluster == "edge-7"
    grace = one.of_kind("Deployment")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert grace > taken.drain
    (kept,) = (role["rules"][0]["resourceNames"] for role in one.objects
               if role["kind"] == "Role" and role["metadata"]["name"].endswith("-state"))  # fmt: skip
    assert kept == [taken.state_secret]
    taken.policy()


def test_modes_are_told_as_the_program_knows_them(tmp_path: Path) -> None:
    for mode, label in (("standby", True), ("sharded", False)):
        path = tmp_path / "server.yaml"
        path.write_text(yaml.safe_dump(server_settings(case(f"kulvert-{mode}"))))
        taken = load(path, {}, {}).replicas
        assert (taken.mode, taken.namespace, taken.label_pod) == (mode, "kulvert", label)
        selector = case(f"kulvert-{mode}").of_kind("Service", "kulvert-agents")["spec"]["selector"]
        assert (selector.get(LABEL) == "true") is label
    assert "replicas" not in server_settings(case("kulvert-single"))


def test_what_goes_by_the_environment_is_known_by_those_names() -> None:
    known = {setting.variable for setting in settings()}
    given = {entry["name"] for one in SERVERS for entry in container(one).get("env", []) if "KULVERT" in entry["name"]}
    assert given == {"KULVERT_STATE_DIR", "KULVERT_REPLICAS_PEER_ADDRESS", "KULVERT_REPLICAS_AGENTS_ADDRESS"}
    assert given <= known


def test_the_issuers_file_is_one() -> None:
    text = case("kulvert-everything").of_kind("ConfigMap", "kulvert-access")["data"]["authentication.yaml"]
    assert parse_authentication_configuration(text) is not None


@pytest.mark.parametrize("one", SERVERS, ids=lambda one: one.name)
def test_the_grants_file_is_one(one: Case) -> None:
    text = one.of_kind("ConfigMap", "kulvert-access")["data"]["grants.yaml"]
    assert len(parse_grants(text).grants) == (0 if one.name == "kulvert-everything" else 1)

"""`kulvert kubeconfig`: who may be named, what is written, and what is left alone."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import jwt
import pytest
import yaml
from cryptography import x509
from cryptography.x509.oid import NameOID

from cli.kubeconfig import default_groups
from tests.cli.command import kulvert


@pytest.fixture
def state(tmp_path: Path) -> Path:
    for name in ("edge", "hub"):
        kulvert("cluster", "add", name, "--state-dir", tmp_path / "s")
    return tmp_path / "s"


def names(config: dict[str, Any], key: str) -> list[str]:
    return [item["name"] for item in config[key]]


def test_it_embeds_everything_and_is_its_owners_alone(state: Path, tmp_path: Path) -> None:
    file = tmp_path / "edge.yaml"
    args = ["--user", "ada", "--group", "dev", "--group", "ops", "--server", "https://gw:1/", "-o", str(file)]
    result = kulvert("kubeconfig", "edge", *args, "--state-dir", state)
    assert result.exit_code == 0
    assert result.stdout == ""
    assert file.stat().st_mode & 0o777 == 0o600
    config = yaml.safe_load(file.read_text())
    assert config["current-context"] == "edge"
    assert config["clusters"][0]["cluster"]["server"] == "https://gw:1/clusters/edge"
    pem = base64.b64decode(config["users"][0]["user"]["client-certificate-data"])
    subject = x509.load_pem_x509_certificate(pem).subject
    assert [one.value for one in subject.get_attributes_for_oid(NameOID.COMMON_NAME)] == ["ada"]
    assert [one.value for one in subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)] == ["dev", "ops"]


def test_without_a_file_it_goes_to_stdout_and_nothing_else_does(state: Path) -> None:
    config = yaml.safe_load(kulvert("kubeconfig", "edge", "--state-dir", state).stdout)
    assert names(config, "contexts") == ["edge"]


def test_a_token_is_a_signed_short_lived_jwt(state: Path) -> None:
    args = ["--user", "ci", "--group", "bots", "--token", "--ttl", "30m"]
    config = yaml.safe_load(kulvert("kubeconfig", "edge", *args, "--state-dir", state).stdout)
    claims = jwt.decode(config["users"][0]["user"]["token"], options={"verify_signature": False})
    assert (claims["sub"], claims["groups"]) == ("ci", ["bots"])
    assert claims["exp"] - claims["iat"] == 1800


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (["nil"], "there is no cluster 'nil'; known are: edge, hub"),
        (["edge", "--group", "system:masters"], "protected"),
        (["edge", "--user", "system:admin"], "protected"),
        (["edge", "--server", "http://x"], "is not https://HOST[:PORT]"),
        (["edge", "--token", "--ttl", "2d"], "a token is good for a day at most"),
    ],
)
def test_what_must_not_be_is_refused_in_one_line(state: Path, args: list[str], line: str) -> None:
    result = kulvert("kubeconfig", *args, "--state-dir", state)
    assert result.exit_code == 1
    assert line in result.stderr
    assert result.stdout == ""


def test_merging_adds_a_context_and_leaves_the_current_one(state: Path, tmp_path: Path) -> None:
    file = tmp_path / "config"
    own: dict[str, Any] = {"apiVersion": "v1", "kind": "Config", "current-context": "mine"}
    own["preferences"] = {"colors": True}
    own |= {"contexts": [{"name": "mine", "context": {"cluster": "c", "user": "u"}}], "clusters": None}
    file.write_text(yaml.safe_dump(own))
    for cluster in ("edge", "hub", "edge"):
        result = kulvert("kubeconfig", cluster, "--merge", "--state-dir", state, env={"KUBECONFIG": str(file)})
        assert result.exit_code == 0
    config = yaml.safe_load(file.read_text())
    assert config["current-context"] == "mine"
    assert config["preferences"] == {"colors": True}
    assert names(config, "contexts") == ["mine", "edge", "hub"]
    assert names(config, "users") == ["kulvert-edge-admin", "kulvert-hub-admin"]
    assert file.stat().st_mode & 0o777 == 0o600


def test_merging_takes_no_context_from_somebody_else(state: Path, tmp_path: Path) -> None:
    file = tmp_path / "config"
    file.write_text(yaml.safe_dump({"contexts": [{"name": "edge", "context": {"cluster": "other", "user": "u"}}]}))
    before = file.read_text()
    result = kulvert("kubeconfig", "edge", "--merge", "-o", file, "--state-dir", state)
    assert result.exit_code == 1
    assert "for another cluster already" in result.stderr
    assert file.read_text() == before


@pytest.mark.parametrize("text", ["{", "- 1", "contexts: 3"])
def test_what_is_no_kubeconfig_is_not_written_to(state: Path, tmp_path: Path, text: str) -> None:
    file = tmp_path / "config"
    file.write_text(text)
    assert kulvert("kubeconfig", "edge", "-o", file, "--state-dir", state).exit_code == 1
    assert file.read_text() == text


def test_a_file_with_other_contexts_is_not_overwritten(state: Path, tmp_path: Path) -> None:
    file = tmp_path / "config"
    kulvert("kubeconfig", "hub", "-o", file, "--state-dir", state)
    result = kulvert("kubeconfig", "edge", "-o", file, "--state-dir", state)
    assert result.exit_code == 1
    assert "add to it with --merge" in result.stderr


def test_a_symbolic_link_stays_one(state: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "target")
    assert kulvert("kubeconfig", "edge", "-o", tmp_path / "link", "--state-dir", state).exit_code == 0
    assert (tmp_path / "link").is_symlink()
    assert names(yaml.safe_load((tmp_path / "target").read_text()), "contexts") == ["edge"]


def test_nobody_is_an_administrator_by_leaving_out_the_group() -> None:
    assert default_groups("ada") == ()
    assert default_groups("admin") == ("kulvert:admins",)


def trusted_in(result_text: str) -> str | None:
    cluster: dict[str, str] = yaml.safe_load(result_text)["clusters"][0]["cluster"]
    return cluster.get("certificate-authority-data")


def test_it_embeds_what_the_server_says_that_its_clients_must_trust(state: Path) -> None:
    args = ("kubeconfig", "edge", "--state-dir", state)
    platform = trusted_in(kulvert(*args).stdout)
    assert platform is not None
    (state / "server-ca.crt").write_bytes(b"the company's root")
    assert trusted_in(kulvert(*args).stdout) == base64.b64encode(b"the company's root").decode()
    (state / "server-ca.crt").write_bytes(b"")
    assert trusted_in(kulvert(*args).stdout) is None


def test_an_agent_is_told_to_trust_the_same(state: Path) -> None:
    args = ("token", "create", "edge", "--state-dir", state)
    assert f"caFile: server-ca.crt # a copy of {state / 'server-ca.crt'}" in kulvert(*args).stdout
    (state / "server-ca.crt").write_bytes(b"")
    told = kulvert(*args).stdout
    assert "  caFile: " not in told
    assert "# no caFile" in told

"""Settings from a file, the environment and flags."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from agent.address import Address
from agent.config import NAMES, camel, load, variable
from agent.settings import HELP, ConfigError, JoinToken
from tunnel.proof import decode

ID = "abcdefghij234567"
SECRET = "S" * 42 + "A"
TOKEN = f"kvt_{ID}.{SECRET}"
BASE: dict[str, Any] = {"servers": ["https://a.test"], "cluster": "edge-1", "joinToken": TOKEN}


def write(path: Path, values: object) -> Path:
    file = path / "agent.yaml"
    file.write_text(yaml.safe_dump(values))
    return file


def test_a_file_is_enough(tmp_path: Path) -> None:
    settings = load(write(tmp_path, {**BASE, "maxLinks": 0, "allowProtected": ["system:masters"]}), {}, {})
    assert settings.servers == (Address("a.test"),)
    assert settings.join_token == JoinToken(ID, decode(SECRET))
    assert settings.max_links == 0
    assert settings.allow_protected == {"system:masters"}


def test_flags_beat_the_environment_which_beats_the_file(tmp_path: Path) -> None:
    file = write(tmp_path, {**BASE, "exchanges": 1, "maxLinks": 1, "agent": "file"})
    env = {"KULVERT_AGENT_EXCHANGES": "2", "KULVERT_AGENT_MAX_LINKS": "2", "KULVERT_OTHER": "x", "PATH": "/"}
    settings = load(file, env, {"exchanges": 3, "agent": None})
    assert (settings.exchanges, settings.max_links, settings.agent) == (3, 2, "file")


def test_everything_can_come_from_the_environment(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(TOKEN + "\n")
    env = {
        "KULVERT_AGENT_SERVERS": "a.test:8443, https://b.test",
        "KULVERT_AGENT_CLUSTER": "c",
        "KULVERT_AGENT_JOIN_TOKEN_FILE": str(tmp_path / "token"),
        "KULVERT_AGENT_ALLOW_PROTECTED": "",
    }
    settings = load(None, env, {})
    assert settings.servers == (Address("a.test", 8443), Address("b.test"))
    assert settings.join_token is not None
    assert settings.join_token.id == ID


def test_a_token_of_a_stronger_source_replaces_a_weaker_ones_file(tmp_path: Path) -> None:
    file = write(tmp_path, {**BASE, "joinToken": None, "joinTokenFile": "/missing"})
    token = load(file, {"KULVERT_AGENT_JOIN_TOKEN": TOKEN}, {}).join_token
    assert token is not None
    assert token.id == ID
    with pytest.raises(ConfigError, match="keep one"):
        load(write(tmp_path, {**BASE, "joinTokenFile": "/missing"}), {}, {})


def test_the_secret_is_in_no_repr_and_no_error(tmp_path: Path) -> None:
    assert str(decode(SECRET)) not in repr(load(write(tmp_path, BASE), {}, {}))
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path, {**BASE, "joinToken": "abcdefgh"}), {}, {})
    assert "abcdefgh" not in str(caught.value)
    (tmp_path / "agent.yaml").write_text("joinToken: a: abcdefgh")
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "agent.yaml", {}, {})
    assert "abcdefgh" not in str(caught.value)


def test_unknown_keys_and_flags_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown settings: insecure; known are servers"):
        load(write(tmp_path, {**BASE, "insecure": True}), {}, {})
    with pytest.raises(ConfigError, match="unknown flags"):
        load(write(tmp_path, BASE), {}, {"nonsense": 1})


def test_variables_of_a_kubernetes_service_named_kulvert_agent_pass(tmp_path: Path) -> None:
    path = write(tmp_path, BASE)
    assert load(path, {"KULVERT_AGENT_SERVICE_HOST": "10.0.0.1"}, {}) == load(path, {}, {})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("servers", []), ("servers", ["http://a"]), ("servers", [1]), ("servers", {"a": 1}), ("servers", "a,,b"),
        ("cluster", "Upper"), ("cluster", "a/b"), ("cluster", 5), ("cluster", ".."), ("cluster", "a" * 254),
        ("exchanges", 0), ("exchanges", True), ("exchanges", "x"), ("exchanges", 1.5), ("maxLinks", -1),
        ("linkNames", ["*"]), ("linkNames", ["a b"]), ("linkNames", ["*.*.a"]), ("agent", "a\nb"), ("caFile", ["x"]),
        ("allowProtected", [1]), ("joinToken", 5), ("joinTokenFile", "/missing"),
        ("readOnly", "yes"), ("readOnly", 1), ("interactive", []), ("allowPassThrough", "True"),
        ("managedServiceAccounts", 0), ("allowPaths", ["api/*"]), ("denyPaths", []), ("allowVerbs", ["GET"]),
        ("denyVerbs", ["get list"]), ("allowNamespaces", ["Team"]), ("denyNamespaces", ["a/b"]),
        ("denyNamespaces", []), ("denyUsers", ["a\nb"]), ("denyGroups", ["x"] * 300), ("denyUsers", ["x" * 2000]),
    ],
)  # fmt: skip
def test_wrong_values_name_their_setting(key: str, value: object, tmp_path: Path) -> None:
    values = {**BASE, key: value}
    if key == "joinTokenFile":
        del values["joinToken"]
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path, values), {}, {})
    assert key in str(caught.value) or "join token" in str(caught.value)


@pytest.mark.parametrize("missing", ["servers", "cluster"])
def test_what_is_missing_is_named(missing: str, tmp_path: Path) -> None:
    values = {key: value for key, value in BASE.items() if key != missing}
    with pytest.raises(ConfigError, match=missing):
        load(write(tmp_path, values), {}, {})


@pytest.mark.parametrize("content", ["[]", "", "a: b: c", "\x00"])
def test_what_is_no_file_of_settings(content: str, tmp_path: Path) -> None:
    file = tmp_path / "x"
    file.write_text(content)
    with pytest.raises(ConfigError):
        load(file, {}, {})
    with pytest.raises(ConfigError, match="cannot read"):
        load(tmp_path / "missing", {}, {})


def test_the_owners_policy_is_what_the_settings_say(tmp_path: Path) -> None:
    values = {**BASE, "allowPassThrough": True, "readOnly": True, "denyNamespaces": ["kube-*"], "denyUsers": ["eve"]}
    policy = load(write(tmp_path, values), {"KULVERT_AGENT_INTERACTIVE": "false"}, {}).policy()
    assert policy.allow_pass_through
    assert policy.rules is not None
    refusals = [
        policy.rules.of_request(b"POST", b"/api/v1/namespaces/a/pods", False),
        policy.rules.of_request(b"GET", b"/api/v1/namespaces/kube-system/pods", False),
        policy.rules.of_identity("eve", ()),
    ]
    assert [refusal.rule for refusal in refusals if refusal] == ["readOnly", "denyNamespaces", "denyUsers"]


def test_by_default_no_rule_is_asked_and_nothing_is_passed_through(tmp_path: Path) -> None:
    settings = load(write(tmp_path, BASE), {}, {})
    assert settings.policy().rules is None
    assert not settings.policy().allow_pass_through
    assert not settings.managed_service_accounts


def test_a_join_token_is_for_the_first_enrolment_alone(tmp_path: Path) -> None:
    values = {key: value for key, value in BASE.items() if key != "joinToken"}
    assert load(write(tmp_path, values), {}, {}).join_token is None


def test_every_setting_is_explained() -> None:
    assert set(HELP) == set(NAMES)
    assert (camel("join_token_file"), variable("ca_file")) == ("joinTokenFile", "KULVERT_AGENT_CA_FILE")


@given(st.dictionaries(st.sampled_from(NAMES), st.one_of(st.text(), st.integers(), st.lists(st.text()), st.none())))
def test_any_flags_give_settings_or_an_error_of_ours(flags: dict[str, object]) -> None:
    try:
        load(None, {}, {name: value for name, value in flags.items() if name != "join_token_file"})
    except ConfigError:
        return

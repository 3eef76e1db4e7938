"""Settings mean the same from a file, the environment and flags, and no typing error passes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.config import ConfigError, ServerConfig
from gateway.spelling import Setting, load, settings

EXAMPLES: dict[Any, str] = {
    str: "text",
    int: "7",
    float: "2.5",
    Path: "/a/b",
    Path | None: "/a/b",
    tuple[str, ...]: "localhost:1",
}
EXAMPLES[bool] = "true"
OWN = {
    "authentication.order": "token",
    "tokens.issuer": "https://gateway.example",
    "login.redirectHost": "127.0.0.1",
    "enrolment.certificateLifetime": "86400",
    "enrolment.requestLifetime": "600",
    "replicas.agentsAddress": "https://replica-1.example:8444",
    "leases.duration": "20",
    "leases.replicaDuration": "5",
    "leases.replicaRetryPeriod": "0.5",
    "leases.tidy": "120",
    "leases.patience": "6",
    "audit.logMode": "drop",
    "audit.webhookMode": "drop",
}
"""Settings that are not any text."""
ALONE = {
    *("tls.certificate", "tls.key", "login.issuer", "login.clientId"),
    *("hub.tokenReview", "hub.grants", "hub.accessReview", "hub.clusters", "serviceAccounts.secretNamespaces"),
    *("autoJoin.enabled", "autoJoin.agentsAddress", "replicas.mode"),
}
"""Settings that need another one beside them."""


def written(directory: Path, text: str) -> Path:
    file = directory / "server.yaml"
    file.write_text(text)
    return file


def test_nothing_has_to_be_said() -> None:
    assert load(None, {}, {}) == ServerConfig()


@pytest.mark.parametrize("setting", [one for one in settings() if one.key not in ALONE], ids=lambda one: one.key)
def test_every_setting_has_three_spellings_that_mean_the_same(setting: Setting, tmp_path: Path) -> None:
    kind, key = setting.kind, setting.key
    example = OWN.get(key, EXAMPLES[kind])
    value = f"[{example}]" if kind == tuple[str, ...] else example
    file = written(tmp_path, ": {".join(key.split(".")) + f": {value}" + "}" * key.count(".") + "\n")
    by_file = load(file, {}, {})
    assert by_file != ServerConfig()
    assert load(None, {setting.variable: example}, {}) == by_file
    assert load(None, {}, {setting.flag: example}) == by_file


def test_flags_beat_the_environment_which_beats_the_file(tmp_path: Path) -> None:
    file = written(tmp_path, "domain: file.example\nserverId: file\nmetricsGroup: ops\n")
    config = load(file, {"KULVERT_DOMAIN": "env.example", "KULVERT_SERVER_ID": "env"}, {"domain": "flag.example"})
    assert (config.domain, config.server_id, config.metrics_group) == ("flag.example", "env", "ops")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("domian: x\n", "did you mean domain"),
        ("limits: {conections: 5}\n", r"did you mean limits\.connections"),
        ("limits: 5\n", "must be a mapping"),
        ("- a\n", "must be a mapping"),
        ("domain: [a]\n", "must be a single value"),
        ("names: localhost\n", "names"),
        ("limits: {connections: 0}\n", "no positive whole number"),
        ("timeouts: {idle: soon}\n", "no number of seconds"),
        ("domain: a\ndomain: b\n", "twice"),
        ('listen: ["8443"]\n', "HOST:PORT"),
        ("listen: []\n", "at least one"),
        ("names: []\n", "names is empty"),
        ("tls: {key: /k}\n", "go together"),
        ("domain: {{\n", "server.yaml"),
    ],
)
def test_a_bad_file_is_refused_with_what_is_wrong(text: str, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=complaint):
        load(written(tmp_path, text), {}, {})


def test_a_flag_that_does_not_exist_is_refused_with_its_neighbour() -> None:
    with pytest.raises(ConfigError, match="did you mean domain"):
        load(None, {}, {"domian": "x"})


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path / "none.yaml", {}, {})
    (tmp_path / "latin.yaml").write_bytes(b"domain: \xe9\n")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load(tmp_path / "latin.yaml", {}, {})


def test_variables_of_a_kubernetes_service_named_kulvert_pass() -> None:
    assert load(None, {"KULVERT_SERVICE_HOST": "10.0.0.1", "KULVERT_PORT_443_TCP": "x"}, {}) == ServerConfig()


def test_what_is_off_by_default_can_be_said_to_be(tmp_path: Path) -> None:
    assert load(written(tmp_path, "audit: {logMaxbackup: 0}\n"), {}, {}) == ServerConfig()

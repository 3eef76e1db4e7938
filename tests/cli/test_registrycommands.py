"""`kulvert cluster` and `kulvert token`, on the registry that a server reads."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest
import yaml

from auth.jointoken import JoinToken
from cli.lock import only_one
from gateway.membership.agentcertificates import IssuedCertificate
from gateway.membership.conditions import Condition
from gateway.membership.enrolments import Enrolment
from gateway.membership.inventory import Inventory
from gateway.membership.registry import SqliteRegistry
from gateway.membership.stores import Stores
from tests.cli.command import kulvert


@pytest.fixture
def state(tmp_path: Path) -> Path:
    assert kulvert("cluster", "add", "edge", "--label", "a=b", "--state-dir", tmp_path / "s").exit_code == 0
    return tmp_path / "s"


def test_a_cluster_is_added_listed_and_removed(state: Path) -> None:
    listed = kulvert("cluster", "list", "--state-dir", state).output.splitlines()
    assert listed[0].split() == ["NAME", "STATUS", "VERSION", "NODES", "ID", "CREATED", "LABELS"]
    assert re.fullmatch(r"edge +New +- +- +- +\d{4}-\d\d-\d\dT\d\d:\d\dZ +a=b", listed[1])
    assert kulvert("cluster", "remove", "edge", "--state-dir", state).exit_code == 0
    assert len(kulvert("cluster", "list", "--state-dir", state).output.splitlines()) == 1


def test_the_state_is_its_owners_alone(state: Path) -> None:
    assert state.stat().st_mode & 0o777 == 0o700
    assert all(file.stat().st_mode & 0o077 == 0 for file in state.iterdir())


def test_a_running_server_notices(state: Path) -> None:
    registry = SqliteRegistry(state / "clusters.db")
    kulvert("cluster", "add", "other", env={"KULVERT_STATE_DIR": str(state)})
    assert registry.poll()
    assert registry.get("other") is not None
    registry.close()


def test_a_token_is_shown_once_and_proves_its_cluster(state: Path) -> None:
    result = kulvert("token", "create", "edge", "--ttl", "1h", "--server", "https://s:1", "--state-dir", state)
    token = JoinToken.parse(result.output.splitlines()[0])
    assert "servers: [https://s:1]" in result.output
    assert "kulvert agent --config" in result.output
    stores = Stores.open(state / "clusters.db")
    stored = stores.tokens.get(token.id)
    stores.close()
    assert stored is not None
    assert (stored.cluster, stored.key, stored.accept, stored.uses) == ("edge", token.key(), False, 0)
    assert "kulvert cluster accept edge" in result.output
    assert 3500 < stored.expires - time.time() <= 3600
    assert result.output.count(token.text()) == 1


def test_a_quiet_token_is_the_token_alone_and_can_be_revoked(state: Path) -> None:
    token = JoinToken.parse(kulvert("token", "create", "edge", "-q", "--state-dir", state).output.strip())
    assert token.id in kulvert("token", "list", "--state-dir", state).output
    assert kulvert("token", "revoke", token.id, "--state-dir", state).exit_code == 0
    assert token.id not in kulvert("token", "list", "--state-dir", state).output


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (["cluster", "add", "edge"], "there is a cluster 'edge' already"),
        (["cluster", "add", "A_B"], "is no cluster name"),
        (["cluster", "remove", "nil"], "there is no cluster 'nil'"),
        (["token", "create", "nil"], "add it with `kulvert cluster add nil`"),
        (["token", "revoke", "nil"], "`kulvert token list` shows"),
        (["cluster", "show", "nil"], "`kulvert cluster list` shows"),
        (["cluster", "accept", "edge"], "nobody asks to serve cluster 'edge' yet"),
        (["cluster", "deny", "edge"], "`kulvert cluster requests` shows"),
        (["cluster", "switch", "nil", "--to", "u"], "there is no cluster 'nil'"),
        (["cluster", "gate", "add", "edge", "a b"], "is no condition type"),
        (["cluster", "gate", "remove", "edge", "Ready"], "`kulvert cluster show edge` shows"),
        (["cluster", "finalizer", "add", "edge", "a b"], "is no finalizer"),
        (["cluster", "condition", "set", "edge", "Ready=yes"], "status is True, False or Unknown"),
        (["cluster", "condition", "set", "edge", "Joined=True"], "what Kulvert finds out by itself"),
        (["cluster", "revoke", "edge", "aa"], "`kulvert cluster certificates edge` shows"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_exit_code_1(state: Path, args: list[str], line: str) -> None:
    result = kulvert(*args, "--state-dir", state)
    assert result.exit_code == 1
    assert line in result.stderr
    assert result.stderr.startswith("kulvert: ")
    assert result.stderr.count("\n") == 1


def test_a_typing_error_in_the_directory_makes_no_new_state(tmp_path: Path) -> None:
    result = kulvert("cluster", "list", "--state-dir", tmp_path / "tpyo")
    assert result.exit_code == 1
    assert "name it by --state-dir or KULVERT_STATE_DIR" in result.stderr
    assert not (tmp_path / "tpyo").exists()


def test_a_label_needs_a_key_and_a_value(tmp_path: Path) -> None:
    result = kulvert("cluster", "add", "edge", "--label", "x", "--state-dir", tmp_path)
    assert result.exit_code == 2
    assert "write KEY=VALUE" in result.stderr


# --- coming in


def stored(state: Path) -> Stores:
    return Stores.open(state / "clusters.db")


def asking(state: Path, cluster_id: str = "u1", name: str = "edge", key: str = "key") -> None:
    stores = stored(state)
    stores.enrolments.told(Enrolment(name, cluster_id, key, "agent-1", "192.0.2.1", "tok", 1.0, 2.0))
    stores.close()


def test_a_cluster_that_asks_is_seen_and_accepted(state: Path) -> None:
    asking(state)
    line = kulvert("cluster", "requests", "--state-dir", state).output.splitlines()[1]
    assert line.split()[:6] == ["edge", "u1", "pending", "-", "agent-1", "192.0.2.1"]
    assert line.split()[-1] == "key"
    assert "--key" in kulvert("cluster", "accept", "edge", "--key", "other", "--state-dir", state).output
    accepted = kulvert("cluster", "accept", "edge", "--key", "ke", "--state-dir", state)
    assert (accepted.exit_code, "id u1" in accepted.output) == (0, True)
    assert "u1" in kulvert("cluster", "list", "--state-dir", state).output


def test_a_second_cluster_waits_and_a_switch_does_not(state: Path) -> None:
    kulvert("cluster", "accept", "edge", "--id", "u1", "--state-dir", state)
    asking(state, "u2")
    assert "waiting" in kulvert("cluster", "accept", "edge", "--state-dir", state).output
    switched = kulvert("cluster", "switch", "edge", "--to", "u2", "--state-dir", state)
    assert switched.output == "cluster edge is u2 now, and u1 no more\n"


def test_a_denied_request_is_denied(state: Path) -> None:
    asking(state)
    assert kulvert("cluster", "deny", "edge", "--state-dir", state).exit_code == 0
    assert "denied" in kulvert("cluster", "requests", "--state-dir", state).output


def test_a_cluster_can_be_accepted_as_it_is_added(tmp_path: Path) -> None:
    assert kulvert("cluster", "add", "hub", "--id", "u9", "--state-dir", tmp_path / "s").exit_code == 0
    shown = json.loads(kulvert("cluster", "show", "hub", "-o", "json", "--state-dir", tmp_path / "s").output)
    assert (shown["kind"], shown["status"]["clusterId"]) == ("Cluster", "u9")


def test_a_token_for_any_cluster_needs_labels_and_brings_them(state: Path) -> None:
    for args in (["--any"], ["edge", "--any", "--label", "a=b"], ["edge", "--label", "a=b"], []):
        assert kulvert("token", "create", *args, "--state-dir", state).exit_code == 2
    made = kulvert("token", "create", "--any", "--label", "a=b", "--uses", "3", "-q", "--state-dir", state)
    stores = stored(state)
    token = stores.tokens.get(JoinToken.parse(made.output.strip()).id)
    stores.close()
    assert token is not None
    assert (token.cluster, token.labels, token.uses) == ("", (("a", "b"),), 3)
    listed = kulvert("token", "list", "--state-dir", state).output
    assert "any: a=b" in listed
    assert "0/3" in listed


def test_gates_conditions_and_finalizers_are_shown(state: Path) -> None:
    for args in (
        ["gate", "add", "edge", "example.com/Scanned"],
        ["condition", "set", "edge", "example.com/Scanned=False", "--reason", "Dirty", "--message", "two findings"],
        ["finalizer", "add", "edge", "example.com/dns"],
    ):
        assert kulvert("cluster", *args, "--state-dir", state).exit_code == 0
    shown = kulvert("cluster", "show", "edge", "--state-dir", state).output
    assert "two findings" in shown
    assert "example.com/dns" in shown
    found = yaml.safe_load(kulvert("cluster", "list", "-o", "yaml", "--state-dir", state).output)
    assert found["items"][0]["spec"] == {"gates": ["example.com/Scanned"]}
    assert found["items"][0]["status"]["registered"] is False
    assert kulvert("cluster", "gate", "remove", "edge", "example.com/Scanned", "--state-dir", state).exit_code == 0
    assert kulvert("cluster", "finalizer", "remove", "edge", "example.com/dns", "--state-dir", state).exit_code == 0


def test_where_no_server_runs_nobody_is_said_to_be_available(state: Path) -> None:
    stores = stored(state)
    stores.registry.set_condition("edge", Condition("Available", "True", "AgentsReady", "", 1.0))
    stores.close()
    assert "NoServer" in kulvert("cluster", "show", "edge", "--state-dir", state).output
    with only_one(state):
        assert "AgentsReady" in kulvert("cluster", "show", "edge", "--state-dir", state).output


def test_a_certificate_is_revoked_with_the_tokens_that_would_bring_the_next(state: Path) -> None:
    kulvert("token", "create", "edge", "--state-dir", state)
    kulvert("token", "create", "--any", "--label", "a=b", "--state-dir", state)
    stores = stored(state)
    stores.certificates.add(IssuedCertificate("aa", "edge", "u1", "agent-1", "k", 1.0, time.time() + 60), 1.0)
    stores.close()
    assert "good" in kulvert("cluster", "certificates", "edge", "--state-dir", state).output
    revoked = kulvert("cluster", "revoke", "edge", "AA", "--state-dir", state)
    assert "and 1 join tokens of edge" in revoked.output
    assert "tokens for any cluster remain" in revoked.output
    assert "revoked" in kulvert("cluster", "certificates", "edge", "--state-dir", state).output


# --- leaving


def test_a_cluster_that_has_joined_is_not_forgotten_without_a_server(state: Path) -> None:
    kulvert("cluster", "accept", "edge", "--id", "u1", "--state-dir", state)
    waits = kulvert("cluster", "remove", "edge", "--state-dir", state)
    assert waits.exit_code == 1
    assert "no server runs" in waits.stderr
    assert "Terminating" in kulvert("cluster", "list", "--state-dir", state).output
    assert "being removed" in kulvert("cluster", "add", "edge", "--state-dir", state).stderr
    forced = kulvert("cluster", "remove", "edge", "--force", "--state-dir", state)
    assert forced.exit_code == 0
    assert "  ClusterRole kulvert-agent\n" in forced.output
    assert kulvert("cluster", "add", "edge", "--state-dir", state).exit_code == 0


def test_with_a_server_the_command_watches_and_says_for_what_it_waits(state: Path) -> None:
    with only_one(state):
        result = kulvert("cluster", "remove", "edge", "--timeout", "1s", "--state-dir", state)
    assert result.exit_code == 1
    assert "not done within 1s" in result.stderr
    assert "`kulvert cluster show edge`" in result.stderr


def test_what_is_in_a_cluster_is_shown(state: Path) -> None:
    registry = SqliteRegistry(state / "clusters.db")
    registry.set_conditions({}, {"edge": Inventory("v1.36.0", "aws", 3, 2)})
    registry.close()
    listed = kulvert("cluster", "list", "--state-dir", state).output.splitlines()
    assert re.match(r"edge +New +v1\.36\.0 +2/3 +- ", listed[1])
    shown = kulvert("cluster", "show", "edge", "--state-dir", state).output
    assert re.search(r"^version: +v1\.36\.0 aws$", shown, re.MULTILINE)
    assert re.search(r"^nodes: +2/3$", shown, re.MULTILINE)
    assert '"kubernetes": "v1.36.0"' in kulvert("cluster", "show", "edge", "-o", "json", "--state-dir", state).output

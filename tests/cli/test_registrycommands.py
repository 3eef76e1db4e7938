"""`kulvert cluster` and `kulvert token`, on the registry that a server reads."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from auth.jointoken import JoinToken
from gateway.registry import SqliteRegistry
from tests.cli.command import kulvert


@pytest.fixture
def state(tmp_path: Path) -> Path:
    assert kulvert("cluster", "add", "edge", "--label", "a=b", "--state-dir", tmp_path / "s").exit_code == 0
    return tmp_path / "s"


def test_a_cluster_is_added_listed_and_removed(state: Path) -> None:
    listed = kulvert("cluster", "list", "--state-dir", state).output.splitlines()
    assert listed[0].split() == ["NAME", "ID", "CREATED", "LABELS"]
    assert re.fullmatch(r"edge +- +\d{4}-\d\d-\d\dT\d\d:\d\dZ +a=b", listed[1])
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
    registry = SqliteRegistry(state / "clusters.db")
    stored = registry.join_token(token.id)
    registry.close()
    assert stored is not None
    assert (stored.cluster, stored.key) == ("edge", token.key())
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

"""`kulvert signing-key`: rotation by hand, beside a running server."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cli.lazy import Entry, LazyGroup
from gateway.issuing.settings import TokensConfig
from gateway.issuing.tokenkeys import TokenKeys
from gateway.membership.registry import SqliteRegistry
from gateway.state import State

ROOT = LazyGroup(name="kulvert", entries=(Entry("signing-key", "cli.signingkey:signing_key", "."),))


def run(*args: str | Path) -> Result:
    return CliRunner().invoke(ROOT, ["signing-key", *map(str, args)], prog_name="kulvert")


@pytest.fixture
def state(tmp_path: Path) -> Path:
    SqliteRegistry(tmp_path / "s" / "clusters.db").close()
    return tmp_path / "s"


def phases(state: Path) -> list[str]:
    lines = run("list", "--state-dir", state).output.splitlines()
    assert lines[0].split()[:2] == ["ID", "PHASE"]
    return [line.split()[1] for line in lines[1:]]


def test_a_key_is_published_first_and_a_running_server_follows(state: Path) -> None:
    keys = TokenKeys(TokensConfig(), State(state), time.time())
    assert phases(state) == ["active"]
    result = run("rotate", "--state-dir", state)
    assert "is published, and signs in 1h" in result.output
    assert phases(state) == ["active", "published"]
    assert keys.poll(time.time())
    assert len(keys.ring.keys) == 2
    again = run("rotate", "--state-dir", state)
    assert (again.exit_code, "waits for its turn already" in again.stderr) == (1, True)


def test_a_compromised_key_is_gone_at_once(state: Path) -> None:
    before = State(state).signer(time.time()).verification_key.kid
    run("rotate", "--state-dir", state)
    result = run("rotate", "--compromised", "--state-dir", state)
    assert "all tokens of other keys have ended" in result.output
    assert phases(state) == ["active"]
    assert State(state).signer(time.time()).verification_key.kid != before
    assert "PRIVATE" not in result.output + run("list", "--state-dir", state).output


def test_a_typing_error_in_the_directory_makes_no_keys(tmp_path: Path) -> None:
    for command in ("list", "rotate"):
        result = run(command, "--state-dir", tmp_path / "tpyo")
        assert (result.exit_code, "name it by --state-dir" in result.stderr) == (1, True)
    assert not (tmp_path / "tpyo").exists()

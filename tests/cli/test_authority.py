"""`kulvert authority`: an authority is replaced beside a running server."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from gateway.state import State
from tests.cli.command import kulvert


@pytest.fixture
def state(tmp_path: Path) -> Path:
    kept = State(tmp_path / "state")
    kept.authority(time.time())
    kept.agents_authority(time.time())
    return kept.directory


def listed(state: Path) -> list[tuple[str, ...]]:
    lines = kulvert("authority", "list", "--state-dir", state).output.splitlines()
    return [tuple(line.split()[:3]) for line in lines[1:]]


def test_add_use_remove(state: Path) -> None:
    ((_, old, _), (_, agents, _)) = listed(state)
    assert "counts now" in kulvert("authority", "add", "users", "--state-dir", state).output
    new = listed(state)[1][1]
    assert listed(state) == [("users", old, "signs"), ("users", new, "counts"), ("agents", agents, "signs")]
    assert "signs from now on" in kulvert("authority", "use", "users", new, "--state-dir", state).output
    refused = kulvert("authority", "remove", "users", new, "--state-dir", state)
    assert (refused.exit_code, "use another one first" in refused.stderr) == (1, True)
    kulvert("authority", "remove", "users", old, "--state-dir", state)
    assert listed(state) == [("users", new, "signs"), ("agents", agents, "signs")]


def test_several_replicas_keys_are_changed_in_the_hub(state: Path) -> None:
    (state / "keys-in-hub.json").write_text("{}")
    refused = kulvert("authority", "add", "agents", "--state-dir", state)
    assert (refused.exit_code, "Secret of the hub" in refused.stderr) == (1, True)
    assert len(listed(state)) == 2


def test_a_typing_error_in_the_directory_makes_no_authority(tmp_path: Path) -> None:
    refused = kulvert("authority", "add", "users", "--state-dir", tmp_path / "tpyo")
    assert (refused.exit_code, "name the state directory" in refused.stderr) == (1, True)
    assert not (tmp_path / "tpyo").exists()

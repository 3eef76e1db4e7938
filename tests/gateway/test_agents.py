"""Which agents may attach, and which are sent away."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from auth.jointoken import StoredJoinToken
from gateway.agents import Attendance, RegistryAuthority
from gateway.registry import Change, Cluster, RegistryError, SqliteRegistry
from stub.sessions import Sessions
from tunnel.handshake import Refused


class Attached:
    """One agent of a cluster."""

    def __init__(self, uid: str) -> None:
        self.info = SimpleNamespace(cluster_id=uid)
        self.mux = self
        self.closed = ""

    def close(self, reason: str) -> None:
        self.closed = reason


class Clusters:
    """Stands for stub.sessions.Sessions."""

    def __init__(self, **sessions: list[Attached]) -> None:
        self.sessions = sessions

    def of(self, cluster: str) -> list[Attached]:
        return self.sessions.get(cluster, [])


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[SqliteRegistry]:
    made = SqliteRegistry(tmp_path / "clusters.db", patience=0.01)
    yield made
    made.close()


@pytest.mark.parametrize(
    ("change", "uid", "closed"),
    [
        (Change.REMOVED, "u1", (True, True)),
        (Change.UPDATED, "u1", (False, True)),
        (Change.ADDED, "u1", (False, True)),
        (Change.UPDATED, None, (False, False)),
    ],
)
def test_who_is_not_of_the_pinned_cluster_is_sent_away(
    change: Change, uid: str | None, closed: tuple[bool, bool]
) -> None:
    sessions = [Attached("u1"), Attached("u2")]
    other = Attached("u3")
    Attendance(cast(Sessions, Clusters(edge=sessions, hub=[other]))).changed(change, Cluster("edge", uid))
    assert tuple(bool(session.closed) for session in sessions) == closed
    assert not other.closed


def test_removing_and_adding_within_one_poll_sends_the_old_agents_away(
    registry: SqliteRegistry, tmp_path: Path
) -> None:
    session = Attached("u1")
    registry.subscribe(Attendance(cast(Sessions, Clusters(edge=[session]))).changed)
    registry.add(Cluster("edge", "u1", 1.0))
    command = SqliteRegistry(tmp_path / "clusters.db")
    command.remove("edge")
    command.add(Cluster("edge", None, 2.0))
    command.close()
    registry.poll()
    assert session.closed == "the cluster was removed"


def test_a_join_token_counts_as_soon_as_it_is_made(registry: SqliteRegistry, tmp_path: Path) -> None:
    command = SqliteRegistry(tmp_path / "clusters.db")
    command.add_join_token(StoredJoinToken("id", b"k", "edge", 9e9))
    command.close()
    key = RegistryAuthority(registry).join_key("id")
    assert key is not None
    assert key.cluster == "edge"
    assert RegistryAuthority(registry).join_key("other") is None


def test_where_the_registry_cannot_be_asked_the_agent_is_told_to_try_again(
    registry: SqliteRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.add(Cluster("edge"))

    def broken(*_: Any) -> Any:
        raise RegistryError("the registry's file cannot be used just now: try again")

    monkeypatch.setattr(registry, "poll", broken)
    monkeypatch.setattr(registry, "pin", broken)
    with pytest.raises(Refused, match="try again"):
        RegistryAuthority(registry).join_key("id")
    assert "try again" in RegistryAuthority(registry).admit("edge", "u1")

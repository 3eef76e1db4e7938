"""Which agents may attach, and which are sent away."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from gateway.membership.agents import Attendance, SessionPresence
from gateway.membership.registry import Change, Cluster, SqliteRegistry
from stub.sessions import Sessions


class Attached:
    """One agent of a cluster."""

    def __init__(self, uid: str) -> None:
        self.info = SimpleNamespace(cluster="edge", cluster_id=uid)
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

    def all(self) -> list[Attached]:
        return [one for found in self.sessions.values() for one in found]


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


class Clock:
    """Two clocks; people may set one of them."""

    def __init__(self) -> None:
        self.measured = 50.0
        self.told = 1000.0

    def pass_(self, seconds: float) -> None:
        self.measured += seconds
        self.told += seconds


def test_who_is_attached_is_there_now_and_who_was_is_gone_since() -> None:
    clock, sessions = Clock(), Clusters(edge=[Attached("u1")])
    presence = SessionPresence(cast(Sessions, sessions), lambda: clock.measured, lambda: clock.told)
    presence.look()
    clock.pass_(500)
    assert presence.last_connected("edge", "u1") == 1500.0
    presence.look()
    sessions.sessions.clear()
    for _ in range(20):
        clock.pass_(1)
        presence.look()
    assert presence.last_connected("edge", "u1") == 1500.0
    clock.told -= 400  # somebody sets the clock back: nobody has been gone for any longer
    assert clock.told - presence.last_connected("edge", "u1") == 20.0


def test_before_its_start_a_server_knows_of_nobody_and_takes_all_for_connected() -> None:
    clock = Clock()
    presence = SessionPresence(cast(Sessions, Clusters()), lambda: clock.measured, lambda: clock.told)
    clock.pass_(3)
    assert presence.last_connected("edge", "u1") == 1000.0


@pytest.mark.parametrize("looked", [False, True])
def test_a_server_that_stood_still_takes_nobody_for_gone(looked: bool) -> None:
    """SIGSTOP, a frozen container, a paused machine: then all links' ends are read at once, before anybody is back."""
    clock, sessions = Clock(), Clusters(edge=[Attached("u1")])
    presence = SessionPresence(cast(Sessions, sessions), lambda: clock.measured, lambda: clock.told)
    presence.look()
    clock.pass_(90)
    sessions.sessions.clear()
    if looked:
        presence.look()
    assert presence.last_connected("edge", "u1") == clock.told

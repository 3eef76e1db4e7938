"""The composed lifecycle: what a server's looks do, one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from auth.agentpki import AUTHORITY
from auth.jointoken import StoredJoinToken
from auth.pki import CertificateAuthority
from gateway.membership import changes as membership
from gateway.membership.cluster import Cluster
from gateway.membership.enrolments import EnrolmentSettings
from gateway.membership.lifecycle import TIDY, Lifecycle, Shared, Times
from gateway.membership.others import NoOthers
from gateway.membership.stores import Stores
from stub.sessions import Sessions

NOW = 1_800_000_000.0


class Clock:
    """Both clocks."""

    def __init__(self) -> None:
        self.passed = 0.0

    def clock(self) -> float:
        return 5.0 + self.passed

    def wall(self) -> float:
        return NOW + self.passed


class Attached:
    """Stands for stub.sessions.Sessions, with the agents of edge."""

    def __init__(self) -> None:
        self.sessions: list[Any] = []

    def of(self, _cluster: str) -> list[Any]:
        return self.sessions

    def all(self) -> list[Any]:
        return self.sessions

    def state(self, _cluster: str) -> Any:
        return SimpleNamespace(agents=len(self.sessions), ready=len(self.sessions), message="")


def session(uid: str, *, ready: bool = True, available: bool = True) -> Any:
    info = SimpleNamespace(cluster="edge", cluster_id=uid)
    return SimpleNamespace(info=info, health=SimpleNamespace(ready=ready), available=available)


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Stores]:
    made = Stores.open(tmp_path / "clusters.db")
    yield made
    made.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def attached() -> Attached:
    return Attached()


@pytest.fixture
def lifecycle(stores: Stores, clock: Clock, attached: Attached) -> Lifecycle:
    authority = CertificateAuthority.create(AUTHORITY, NOW)
    times = Times(clock.clock, clock.wall)
    return Lifecycle(stores, lambda: authority, EnrolmentSettings(), cast(Sessions, attached), lambda: "", times)


async def look(lifecycle: Lifecycle) -> None:
    for one in lifecycle.looks().values():
        await one()


async def test_what_has_expired_is_forgotten_once_in_a_while(
    lifecycle: Lifecycle, stores: Stores, clock: Clock
) -> None:
    stores.tokens.add(StoredJoinToken("t", b"k", "edge", NOW + 1))
    clock.passed = TIDY - 1
    await look(lifecycle)
    assert stores.tokens.list()
    clock.passed = TIDY
    await look(lifecycle)
    assert stores.tokens.list() == ()


async def test_a_look_writes_conditions_sees_who_is_there_and_goes_on_with_removals(
    lifecycle: Lifecycle, stores: Stores, clock: Clock, attached: Attached
) -> None:
    stores.registry.add(Cluster("edge", "u1", NOW))
    attached.sessions = [session("u1")]
    await look(lifecycle)
    (cluster,) = stores.registry.list()
    assert {one.type: one.status for one in cluster.conditions}["Available"] == "True"
    attached.sessions = []
    clock.passed = 3.0
    assert lifecycle.presence.last_connected("edge", "u1") == NOW
    membership.remove(stores, "edge", "ada", True, NOW)
    await look(lifecycle)
    await lifecycle.close()


def test_a_removal_asks_agents_of_the_very_cluster_the_ready_ones_first(
    lifecycle: Lifecycle, stores: Stores, attached: Attached
) -> None:
    stores.registry.add(Cluster("edge", "u1", NOW))
    slow, ready = session("u1", ready=False), session("u1")
    attached.sessions = [session("u2"), slow, session("u1", available=False), ready]
    assert lifecycle.agents("edge") == [ready, slow]
    assert lifecycle.agents("nil") == []


FAR: Any = object()


class Elsewhere(NoOthers):
    """An agent of u1 is attached to another replica."""

    def agents(self, cluster: str, uid: str) -> list[Any]:
        return [FAR] if (cluster, uid) == ("edge", "u1") else []


def _one_of_several(stores: Stores, clock: Clock, attached: Attached, shared: Shared) -> Lifecycle:
    authority, times = CertificateAuthority.create(AUTHORITY, NOW), Times(clock.clock, clock.wall)
    return Lifecycle(
        stores, lambda: authority, EnrolmentSettings(), cast(Sessions, attached), lambda: "", times, shared=shared
    )


def test_an_agent_of_another_replica_is_asked_where_none_is_here(
    stores: Stores, clock: Clock, attached: Attached
) -> None:
    lifecycle = _one_of_several(stores, clock, attached, Shared(others=Elsewhere()))
    stores.registry.add(Cluster("edge", "u1", NOW))
    stores.registry.add(Cluster("new", None, NOW))
    assert lifecycle.agents("edge") == [FAR]
    assert lifecycle.agents("new") == []
    here = session("u1")
    attached.sessions = [here]
    assert lifecycle.agents("edge")[0] is here


def test_whose_a_name_is_depends_on_who_is_attached_to_any_replica(
    stores: Stores, clock: Clock, attached: Attached
) -> None:
    asked: list[tuple[str, str]] = []

    class Anywhere:
        def last_connected(self, cluster: str, uid: str) -> float:
            asked.append((cluster, uid))
            return NOW

    lifecycle = _one_of_several(stores, clock, attached, Shared(presence=lambda _own: Anywhere()))
    stores.registry.add(Cluster("edge", "u1", NOW))
    assert lifecycle.authority._presence.last_connected("edge", "u1") == NOW
    assert asked == [("edge", "u1")]

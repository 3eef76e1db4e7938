"""What Kulvert finds out of a cluster is written once, when it changes, for other processes to read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.management import Attached
from gateway.membership.conditionkeeper import INVENTORY, SETTLED, ConditionKeeper, Sources
from gateway.membership.conditions import AVAILABLE
from gateway.membership.heartbeats import Pulse, Renewal
from gateway.membership.inventory import Inventory
from gateway.membership.registry import Cluster
from gateway.membership.stores import Stores

NOW = 1000.0


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Stores]:
    made = Stores.open(tmp_path / "clusters.db")
    made.registry.add(Cluster("edge", "u1", 1.0))
    yield made
    made.close()


def keeper_of(stores: Stores, attached: Callable[[str], Attached]) -> ConditionKeeper:
    return ConditionKeeper(stores, Sources(attached), lambda: NOW)


def available(stores: Stores) -> str:
    cluster = stores.registry.get("edge")
    assert cluster is not None
    return {one.type: one.status for one in cluster.conditions}.get(AVAILABLE, "")


def test_other_processes_see_what_changed_and_nothing_is_written_otherwise(stores: Stores, tmp_path: Path) -> None:
    other, attached = Stores.open(tmp_path / "clusters.db"), {"edge": Attached(1, 1)}
    keeper = keeper_of(stores, lambda name: attached.get(name, Attached()))
    keeper.look(NOW)
    assert other.registry.poll()
    assert available(other) == "True"
    keeper.look(NOW + 1)
    keeper.look(NOW + 2)
    assert not other.registry.poll()
    attached.clear()
    keeper.look(NOW + SETTLED + 1)
    assert other.registry.poll()
    assert available(other) == "False"
    other.close()


def test_a_server_that_starts_takes_nobody_for_gone_before_they_could_come_again(stores: Stores) -> None:
    keeper_of(stores, lambda _: Attached(1, 1)).look(NOW)
    keeper = keeper_of(stores, lambda _: Attached())
    keeper.look(NOW + 101)
    assert available(stores) == "True"
    keeper.look(NOW + 101 + SETTLED)
    assert available(stores) == "False"


def test_very_many_clusters_are_looked_at_in_turn(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.membership.conditionkeeper.PART", 2)
    for number in range(4):
        stores.registry.add(Cluster(f"c{number}"))
    asked: list[str] = []

    def attached(name: str) -> Attached:
        asked.append(name)
        return Attached()

    keeper = keeper_of(stores, attached)
    for _ in range(3):
        keeper.look(NOW)
    assert asked == ["c0", "c1", "c2", "c3", "edge"]
    assert all(cluster.conditions for cluster in stores.registry.list())


def pulse(agents: int, ready: int, inventory: Inventory | None = None) -> Pulse:
    return Pulse(agents, ready, "", inventory or Inventory(), 0.0)


def test_of_replicas_one_writes_and_settles_again_when_it_begins_to_lead(stores: Stores) -> None:
    leading = [True]
    attached = [Attached(1, 1)]
    sources = Sources(lambda _: attached[0], leading=lambda: leading[0])
    keeper = ConditionKeeper(stores, sources, lambda: NOW)
    keeper.look(NOW)
    leading[0], attached[0] = False, Attached()
    keeper.look(NOW + SETTLED + 1)
    assert available(stores) == "True", "another one writes"
    leading[0] = True
    keeper.look(NOW + SETTLED + 2)
    assert available(stores) == "True", "its agents may still come"
    keeper.look(NOW + 2 * SETTLED + 2)
    assert available(stores) == "False"


def test_of_a_cluster_elsewhere_its_lease_decides_and_not_the_own_sessions(stores: Stores) -> None:
    renewal = Renewal(pulse(2, 2), 60.0, NOW)
    keeper = ConditionKeeper(stores, Sources(lambda _: Attached(), elsewhere=lambda _: renewal), lambda: NOW)
    keeper.look(NOW)
    assert available(stores) == "True"
    keeper.look(NOW + 300)
    assert available(stores) == "True"
    keeper.look(NOW + 301)
    assert available(stores) == "Unknown"


def test_what_is_in_a_cluster_is_written_when_it_changes_and_once_a_minute_at_most(stores: Stores) -> None:
    found = [Inventory("v1.36.0", "kind", 3, 3)]
    sources = Sources(lambda _: Attached(1, 1), lambda _: pulse(1, 1, found[0]))
    keeper = ConditionKeeper(stores, sources, lambda: NOW)

    def nodes() -> int | None:
        cluster = stores.registry.get("edge")
        assert cluster is not None
        return cluster.inventory.nodes

    keeper.look(NOW)
    assert nodes() == 3
    found[0] = Inventory("v1.36.0", "kind", 4, 4)
    keeper.look(NOW + INVENTORY - 1)
    assert nodes() == 3
    keeper.look(NOW + INVENTORY)
    assert nodes() == 4
    found[0] = Inventory()
    keeper.look(NOW + 2 * INVENTORY)
    assert nodes() == 4, "an agent that has not looked yet takes nothing away"

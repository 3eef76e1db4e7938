"""What Kulvert finds out of a cluster is written once, when it changes, for other processes to read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.management import Attached
from gateway.membership.conditionkeeper import SETTLED, ConditionKeeper
from gateway.membership.conditions import AVAILABLE
from gateway.membership.registry import Cluster
from gateway.membership.stores import Stores

NOW = 1000.0


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Stores]:
    made = Stores.open(tmp_path / "clusters.db")
    made.registry.add(Cluster("edge", "u1", 1.0))
    yield made
    made.close()


def available(stores: Stores) -> str:
    cluster = stores.registry.get("edge")
    assert cluster is not None
    return {one.type: one.status for one in cluster.conditions}.get(AVAILABLE, "")


def test_other_processes_see_what_changed_and_nothing_is_written_otherwise(stores: Stores, tmp_path: Path) -> None:
    other, attached = Stores.open(tmp_path / "clusters.db"), {"edge": Attached(1, 1)}
    keeper = ConditionKeeper(stores, lambda name: attached.get(name, Attached()), NOW)
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
    ConditionKeeper(stores, lambda _: Attached(1, 1), NOW).look(NOW)
    keeper = ConditionKeeper(stores, lambda _: Attached(), NOW + 100)
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

    keeper = ConditionKeeper(stores, attached, NOW)
    for _ in range(3):
        keeper.look(NOW)
    assert asked == ["c0", "c1", "c2", "c3", "edge"]
    assert all(cluster.conditions for cluster in stores.registry.list())

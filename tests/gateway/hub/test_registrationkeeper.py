"""Registration, done: a hub and a registry, each changed by its people, come to say the same."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.hub.clusters import ACCEPTED, CLUSTER_ID, FINALIZER, FORCE, Declared
from gateway.hub.informer import Informer
from gateway.hub.managedclusters import Clocks, ManagedClusters
from gateway.hub.objects import HubUnavailable
from gateway.hub.registrationkeeper import ECHO
from gateway.management import Attached
from gateway.membership import changes
from gateway.membership.conditionkeeper import ConditionKeeper, Sources
from gateway.membership.enrolments import Enrolment, State
from gateway.membership.registry import Change, Cluster
from gateway.membership.removal import remove_offline
from gateway.membership.stores import Stores
from tests.gateway.hub.fakehub import FakeHub

UID, OTHER = "11111111-2222", "66666666-7777"


class World:
    def __init__(self, directory: Path) -> None:
        self.stores = Stores.open(directory / "kulvert.db")
        self.hub = FakeHub()
        self.now = 1_800_000_000.0
        self.leading = True
        wall = lambda: self.now  # noqa: E731 -- an attribute would be bound too early
        informer: Informer[Declared] = Informer.__new__(Informer)
        informer.items = self.hub.items

        class Synced:
            is_set = staticmethod(lambda: self.synced)

        self.synced = True
        informer.synced = Synced()  # type: ignore[assignment]
        clocks = Clocks(wall, wall)
        self.managed = ManagedClusters(self.hub, informer, self.stores, clocks, lambda: self.leading, True)
        keepers = self.managed._registration, self.managed._statuses
        assert keepers[0] is not None
        self.registration, self.statuses = keepers[0], keepers[1]
        for one in (self.registration, self.statuses):
            self.hub.tell.append(one.hear)
            self.stores.registry.subscribe(one.changed)
        self.conditions = ConditionKeeper(self.stores, Sources(lambda _: Attached()), wall)

    async def settle(self, later: float = 0.0) -> None:
        """Looks and works until nothing more comes of it."""
        self.now += later
        for _ in range(10):
            self.now += 0.06
            self.registration.look()
            await self.registration.paced.work_off()
            self.conditions.look(self.now)
            await self.statuses.paced.work_off()

    def asks(self, uid: str, key: str = "k") -> None:
        who = ("edge", uid, key * 64, "agent", "1.2.3.4:5", "t")
        self.stores.enrolments.told(Enrolment(*who, self.now, self.now, State.PENDING))

    @property
    def cluster(self) -> Cluster | None:
        return self.stores.registry.get("edge")

    @property
    def object(self) -> dict[str, Any]:
        return self.hub.objects["edge"]

    def condition(self, kind: str) -> tuple[str, str, str]:
        found = {one["type"]: one for one in self.object["status"]["conditions"]}
        return found[kind]["status"], found[kind]["reason"], found[kind]["message"]

    def remove(self) -> None:
        """`kulvert cluster remove`, and the server does it."""
        changes.remove(self.stores, "edge", "me", True, self.now)
        remove_offline(self.stores, "edge", self.now)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.stores.close()


async def test_an_object_registers_its_name_with_its_labels_and_is_held(world: World) -> None:
    world.hub.apply("edge", labels={"env": "prod"})
    await world.settle()
    assert world.cluster is not None
    assert (world.cluster.uid, dict(world.cluster.labels)) == (None, {"env": "prod"})
    assert world.object["metadata"]["finalizers"] == [FINALIZER]
    world.hub.apply("edge", labels={"env": "test"})
    await world.settle()
    assert dict(world.cluster.labels) == {"env": "test"}


async def test_the_hub_accepts_the_one_that_asks_and_takes_it_back(world: World) -> None:
    world.hub.apply("edge")
    await world.settle()
    world.asks(UID)
    await world.settle(10)
    assert world.cluster is not None
    assert world.cluster.uid is None
    world.hub.apply("edge", accepts=True)
    await world.settle()
    assert world.cluster.uid == UID
    assert world.object["metadata"]["annotations"][ACCEPTED] == UID
    world.hub.apply("edge", accepts=False)
    await world.settle(10)
    assert world.cluster.denied
    assert world.condition("HubAcceptedManagedCluster")[:2] == ("False", "NotAccepted")
    world.hub.apply("edge", accepts=True)
    await world.settle(10)
    assert not world.cluster.denied
    assert world.condition("HubAcceptedManagedCluster")[0] == "True"


async def test_a_hub_that_has_taken_it_back_is_not_overruled_where_the_annotation_is_gone(world: World) -> None:
    """kubectl replace, or a klusterlet that edits its own ManagedCluster; nor by a server that was started since."""
    world.stores.registry.add(Cluster("edge", UID, 1.0))
    await world.settle(10)
    assert world.object["spec"]["hubAcceptsClient"] is True
    assert world.cluster is not None
    assert world.cluster.hub_accepted == UID
    world.stores.registry.take(world.stores.registry.read(world.stores.registry.database._connection))
    made = {**world.object, "spec": {"hubAcceptsClient": False}}
    made["metadata"] = {key: value for key, value in made["metadata"].items() if key != "annotations"}
    world.hub._put("edge", made)
    await world.settle(10)
    await world.settle(600)
    assert world.cluster.denied
    assert world.object["spec"]["hubAcceptsClient"] is False


async def test_of_several_that_ask_the_annotation_chooses(world: World) -> None:
    world.hub.apply("edge", accepts=True)
    await world.settle()
    world.asks(UID)
    world.asks(OTHER, "o")
    await world.settle(10)
    assert world.cluster is not None
    assert world.cluster.uid is None
    assert CLUSTER_ID in world.condition("HubAcceptedManagedCluster")[2]
    world.hub.apply("edge", accepts=True, annotations={CLUSTER_ID: OTHER})
    await world.settle(10)
    assert world.cluster.uid == OTHER
    assert world.condition("HubAcceptedManagedCluster")[0] == "True"


async def test_what_the_command_does_is_done_at_the_hub(world: World) -> None:
    world.stores.registry.add(Cluster("edge", None, 1.0, (("zone", "eu"),)))
    await world.settle()
    assert world.object["metadata"]["labels"] == {"zone": "eu"}
    assert world.object["spec"]["hubAcceptsClient"] is False
    changes.accept(world.stores, "edge", UID, world.now)
    await world.settle(10)
    assert world.object["spec"]["hubAcceptsClient"] is True
    changes.switch(world.stores, "edge", OTHER, world.now)
    await world.settle(10)
    assert world.object["metadata"]["annotations"][ACCEPTED] == OTHER
    world.remove()
    await world.settle(10)
    assert "edge" not in world.hub.objects
    assert world.cluster is None


async def test_on_the_first_sight_labels_of_both_are_merged_and_the_objects_win(world: World) -> None:
    world.synced = False
    world.stores.registry.add(Cluster("edge", None, 1.0, (("zone", "eu"), ("env", "test"))))
    world.hub.apply("edge", labels={"env": "prod"})
    world.synced = True
    await world.settle()
    assert world.cluster is not None
    assert dict(world.cluster.labels) == world.object["metadata"]["labels"] == {"zone": "eu", "env": "prod"}


async def test_a_deletion_removes_in_order_and_the_object_stays_so_long(world: World) -> None:
    world.hub.apply("edge", accepts=True)
    await world.settle()
    world.asks(UID)
    await world.settle()
    world.hub.delete_object("edge")
    await world.settle(10)
    assert world.cluster is not None
    assert world.cluster.phase == "Terminating"
    removal = world.stores.removals.get("edge")
    assert removal is not None
    assert not removal.force
    assert world.condition("kulvert.dev/Removing")[0] == "True"
    world.hub.apply("edge", accepts=True, annotations={FORCE: "true"})
    await world.settle(10)
    removal = world.stores.removals.get("edge")
    assert removal is not None
    assert removal.force
    remove_offline(world.stores, "edge", world.now)
    await world.settle(10)
    assert "edge" not in world.hub.objects
    assert world.cluster is None


async def test_a_removal_the_hub_has_not_heard_of_is_not_undone_and_a_new_object_of_the_name_is_new(
    world: World,
) -> None:
    world.stores.registry.add(Cluster("edge", UID, 1.0))
    await world.settle()
    world.hub.fails = HubUnavailable("the hub does not answer")
    world.remove()
    await world.settle(10)
    world.stores.tidy(world.now + 10**6, 1.0, world.managed.keeps)
    world.hub.fails = None
    await world.settle(400)
    assert "edge" not in world.hub.objects
    assert world.cluster is None
    world.hub.apply("edge")
    await world.settle(10)
    assert world.cluster is not None
    assert "edge" in world.hub.objects
    assert not world.managed.keeps("other")


async def test_objects_that_vanish_without_us_take_no_cluster_with_them(world: World) -> None:
    world.stores.registry.add(Cluster("edge", UID, 1.0))
    await world.settle()
    world.hub._gone("edge")
    await world.settle(10)
    assert world.cluster is not None
    assert not world.cluster.phase
    assert world.object["spec"]["hubAcceptsClient"] is True


@pytest.mark.parametrize("crd", [None, {"metadata": {"deletionTimestamp": "now"}}])
async def test_a_crd_that_is_deleted_takes_no_cluster_with_it(world: World, crd: dict[str, Any] | None) -> None:
    world.stores.registry.add(Cluster("edge", UID, 1.0))
    await world.settle()
    world.hub.crd = crd
    world.hub.delete_object("edge")
    await world.registration.paced.work_off()
    assert world.cluster is not None
    assert not world.cluster.phase
    assert world.stores.removals.get("edge") is None


async def test_where_it_cannot_be_known_whether_the_crd_goes_nothing_is_removed(world: World) -> None:
    world.stores.registry.add(Cluster("edge", UID, 1.0))
    await world.settle()
    world.hub.status = 403
    world.hub.delete_object("edge")
    await world.settle(10)
    assert world.cluster is not None
    assert not world.cluster.phase
    world.hub.status = 0
    await world.settle(400)
    assert world.cluster.phase


async def test_nothing_is_done_before_the_hub_was_read_or_by_one_who_does_not_lead(world: World) -> None:
    world.synced = False
    world.stores.registry.add(Cluster("edge", UID, 1.0))
    await world.settle(10)
    world.synced, world.leading = True, False
    await world.settle(10)
    assert not world.hub.asked
    world.leading = True
    await world.settle(10)
    assert "edge" in world.hub.objects


async def test_what_was_written_is_not_decided_on_by_what_was_there_before(world: World) -> None:
    world.hub.apply("edge")
    world.hub.late = True
    await world.settle()
    world.registration.changed(Change.UPDATED, Cluster("edge"))
    await world.settle(ECHO - 2)
    assert len([one for one in world.hub.asked if one.startswith("PATCH")]) == 1
    world.hub.late = False
    world.hub.hear_all()
    await world.settle()
    assert world.cluster is not None


async def test_somebody_elses_change_in_between_is_seen_first(world: World) -> None:
    world.hub.apply("edge")
    world.hub.late = True
    world.hub.apply("edge", labels={"env": "prod"})
    await world.settle()
    assert "finalizers" not in world.object["metadata"]
    world.hub.late = False
    world.hub.hear_all()
    await world.settle()
    assert world.cluster is not None
    assert dict(world.cluster.labels) == {"env": "prod"}


async def test_when_both_agree_nothing_more_is_asked_of_the_hub(world: World) -> None:
    world.hub.apply("edge", accepts=True, labels={"env": "prod"})
    await world.settle()
    world.asks(UID)
    await world.settle(10)
    await world.settle(600)
    count = len(world.hub.asked)
    for _ in range(5):
        await world.settle(600)
    assert len(world.hub.asked) == count


async def test_a_hub_that_is_away_is_asked_with_pauses_that_grow(world: World) -> None:
    world.hub.apply("edge")
    world.hub.fails = HubUnavailable("the hub does not answer")
    for _ in range(600):
        await world.registration.paced.work_off()
        world.now += 1
    assert 4 <= len(world.hub.asked) <= 9
    world.hub.fails = None
    await world.settle(400)
    assert world.cluster is not None


async def test_a_name_that_is_no_cluster_name_is_told_and_stops_nobody(world: World) -> None:
    world.hub.apply("edge.example")
    world.hub.apply("edge")
    await world.settle(10)
    found = world.hub.objects["edge.example"]["status"]["conditions"]
    assert "no cluster name" in found[0]["message"]
    assert world.cluster is not None


async def test_who_was_denied_comes_in_again_by_the_command_and_the_hub_is_told(world: World) -> None:
    world.stores.registry.add(Cluster("edge", UID, 1.0))
    await world.settle()
    world.hub.apply("edge", accepts=False)
    await world.settle(10)
    assert world.cluster is not None
    assert world.cluster.denied
    changes.accept(world.stores, "edge", None, world.now)
    await world.settle(10)
    assert world.object["spec"]["hubAcceptsClient"] is True
    assert not world.cluster.denied


async def test_its_end_ends_what_is_under_way(world: World) -> None:
    ended = asyncio.Event()

    async def never(*_args: object) -> Any:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    world.hub.ask = never  # type: ignore[method-assign, assignment]  # a hub that hangs
    world.hub.apply("edge")
    running = asyncio.gather(*(asyncio.ensure_future(run()) for run in (world.registration.run, world.statuses.run)))
    await asyncio.sleep(0.15)
    assert not ended.is_set()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await asyncio.wait_for(ended.wait(), 1)


def test_a_view_is_small_and_what_is_odd_counts_as_not_there() -> None:
    from gateway.hub.clusters import declared

    odd = {"metadata": {"name": "edge", "labels": ["x"], "annotations": {CLUSTER_ID: 3}, "finalizers": "x"}, "spec": []}
    assert replace(declared(odd), name="edge") == Declared("edge")

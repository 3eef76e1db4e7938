"""Who has which cluster, among the workers of one machine."""

from __future__ import annotations

from collections import Counter

import pytest

from stub.assigned import Assigned
from stub.ownership import Replica

NAMES = ("worker-0", "worker-1", "worker-2")
CLUSTERS = [f"cluster-{number}" for number in range(3_000)]


def assigned(me: str, names: tuple[str, ...] = NAMES, epoch: int = 7) -> Assigned:
    return Assigned(tuple(Replica(name, f"unix:/w/{name}") for name in names), me, epoch)


def test_all_workers_agree_who_has_a_cluster_and_each_has_its_share() -> None:
    workers = [assigned(name) for name in NAMES]
    owners = [[worker.owner(cluster) for cluster in CLUSTERS] for worker in workers]
    assert owners[0] == owners[1] == owners[2]
    assert all(850 < count < 1_150 for count in Counter(owners[0]).values())


def test_one_worker_more_takes_only_what_it_is_best_for() -> None:
    before, after = assigned("worker-0", NAMES[:2]), assigned("worker-0")
    moved = {after.owner(cluster) for cluster in CLUSTERS if after.owner(cluster) != before.owner(cluster)}
    assert moved == {"worker-2"}


def test_what_is_mine_is_so_whoever_else_is_alive_and_has_my_epoch() -> None:
    worker = assigned("worker-1")
    mine = next(cluster for cluster in CLUSTERS if worker.owner(cluster) == "worker-1")
    assert worker.place(mine).mine
    assert worker.place(mine).epoch == 7
    worker.tell([])
    assert worker.place(mine).mine


def test_a_dead_workers_clusters_are_nobodys_until_it_is_back() -> None:
    worker = assigned("worker-1")
    worker.tell(NAMES)
    other = next(cluster for cluster in CLUSTERS if worker.owner(cluster) == "worker-2")
    assert (worker.place(other).replica, worker.place(other).mine) == ("worker-2", False)
    worker.tell(["worker-0", "worker-1"])
    assert worker.place(other).replica == ""
    worker.tell(NAMES)
    assert worker.place(other).replica == "worker-2"


@pytest.mark.parametrize("me", NAMES)
def test_the_first_leads_and_is_known_to_while_it_is_alive(me: str) -> None:
    worker = assigned(me)
    assert worker.leading is (me == "worker-0")
    worker.tell(NAMES)
    assert worker.leader() == "worker-0"
    worker.tell(["worker-1", "worker-2"])
    assert worker.leader() == ("worker-0" if me == "worker-0" else "")


def test_those_that_are_alive_are_told_when_that_changes_and_only_then() -> None:
    worker = assigned("worker-1")
    told: list[list[str]] = []
    end = worker.subscribe(lambda: told.append([one.identity for one in worker.replicas()]))
    worker.tell(["worker-0"])
    worker.tell(["worker-0", "worker-1"])
    assert told == [["worker-0", "worker-1"]]
    assert list(worker.others()) == ["worker-0"]
    end()
    worker.tell([])
    assert len(told) == 1

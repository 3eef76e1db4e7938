"""Any interleaving of what can happen to several replicas: never two owners at once, and order again afterwards.

What is true in each tick is checked by the world itself (`World.check`): at most one says that a cluster is his,
and each further holding has a higher epoch.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stub.leases.elected import Elected
from stub.leases.rendezvous import best
from stub.leases.settings import LeaseSettings
from stub.leases.sharded import Sharded
from tests.stub.leases.world import SHARDED, STANDBY, World, world

NAMES = ("a", "b", "c")
DRIFT = 0.05
"""Of each clock; what 4 s and 3 s bear is 0.14."""
WHO = st.sampled_from(NAMES)
SECONDS = st.one_of(st.floats(0.05, 3.0), st.floats(3.0, 9.0))
EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("rest"), SECONDS),
        st.tuples(st.sampled_from(("pause", "wake", "crash", "start", "resign", "cut", "heal", "lose")), WHO),
        st.tuples(st.just("slow"), WHO, st.floats(0.01, 3.0), st.floats(0.01, 3.0)),
        st.tuples(st.just("nap"), WHO, st.floats(2.5, 5.5)),
        st.tuples(st.just("late"), WHO, st.sampled_from(("-shard-", "-replica-", "kulvert")), st.floats(0.5, 2.5)),
        st.tuples(st.just("wall"), WHO, st.sampled_from((-86_400.0, -3.0, 3.0, 86_400.0))),
        st.tuples(st.just("cut all"), SECONDS),
        st.tuples(st.just("delete"), st.integers(0, 9)),
    ).flatmap(lambda event: st.tuples(st.just(event), SECONDS)),
    min_size=8,
    max_size=30,
)
FAST = settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


class Story:
    """Does one event after the other."""

    def __init__(self, within: World[Any]) -> None:
        self.world = within
        self.rates = {"a": 1 - DRIFT, "b": 1.0, "c": 1 + DRIFT}

    def start(self, name: str) -> None:
        if name not in self.world.processes:
            self.world.start(name, offset=1000.0 * ord(name), rate=self.rates[name])

    def do(self, what: str, *how: Any) -> None:
        process = self.world.processes.get(how[0]) if isinstance(how[0], str) else None
        if what == "start":
            self.start(how[0])
        elif what == "cut all":
            self.cut_all(how[0])
        elif what == "delete":
            self.delete(how[0])
        elif process is not None:
            self.to(process, what, *how)

    def to(self, process: Any, what: str, name: str, *how: Any) -> None:
        if what in ("pause", "wake"):
            process.paused = what == "pause"
        elif what == "crash":
            self.world.crash(name)
        elif what == "resign" and not process.paused and process.other is None:
            process.resign()
        elif what in ("cut", "heal"):
            process.store.down, process.store.losing = what == "cut", False
            process.store.before = process.store.after = 0.01
            process.store.late = ("", 0.0)
        elif what == "lose":
            process.store.losing = True
        elif what == "nap":
            process.paused = True
            self.world.run(*how)
            process.paused = False
        elif what == "late":
            process.store.late = (str(how[0]), how[1])
        elif what == "slow":
            process.store.before, process.store.after = how
        elif what == "wall":
            process.skew += how[0]

    def cut_all(self, seconds: float) -> None:
        for one in self.world.processes.values():
            one.store.down = True
        self.world.run(seconds)
        for one in self.world.processes.values():
            one.store.down = False

    def delete(self, which: int) -> None:
        """By hand: one of them."""
        names = sorted(self.world.records.leases)
        if names:
            del self.world.records.leases[names[which % len(names)]]

    def heal(self) -> None:
        """All faults end, and all replicas are there; those that resigned are started again."""
        for name, one in list(self.world.processes.items()):
            self.to(one, "wake", name)
            self.to(one, "heal", name)
            if one.other is not None:
                self.world.crash(name)
        for name in NAMES:
            self.start(name)


def play(kind: type[Any], setting: LeaseSettings, events: Any, seed: int, check: Any) -> None:
    with world(kind, setting, seed) as within:
        story = Story(within)
        for name in NAMES:
            story.start(name)
        for event, pause in events:
            story.do(*event)
            within.run(pause)
        story.heal()
        within.run(40)
        check(within)


def in_order(within: World[Any]) -> None:
    for n, cluster in enumerate(within.clusters):
        assert within.owner(cluster) == best(n, NAMES), n
    assert sum(one.owner.leading for one in within.processes.values()) == 1
    assert [one.owner.problem for one in within.processes.values()] == [None] * 3


def one_leads(within: World[Any]) -> None:
    (leader,) = {one.owner.leader() for one in within.processes.values()}
    assert within.owner(within.clusters[0]) == leader
    assert {one.owner.place("x").replica for one in within.processes.values()} == {leader}


@FAST
@given(EVENTS, st.integers(0, 1000))
def test_a_cluster_never_has_two_owners_and_gets_its_best_one(events: Any, seed: int) -> None:
    play(Sharded, SHARDED, events, seed, in_order)


@FAST
@given(EVENTS, st.integers(0, 1000))
def test_two_never_lead_at_once_and_one_does_afterwards(events: Any, seed: int) -> None:
    play(Elected, STANDBY, events, seed, one_leads)


@pytest.mark.soak
@pytest.mark.timeout(600)
@settings(FAST, max_examples=400, derandomize=False, print_blob=True)
@given(EVENTS, st.integers(0, 1000))
def test_a_cluster_never_has_two_owners_in_many_more_stories(events: Any, seed: int) -> None:
    play(Sharded, SHARDED, events, seed, in_order)


def test_a_lease_that_is_deleted_before_another_has_seen_it_gives_its_shard_to_nobody_too_soon() -> None:
    """c has written it; a, whose look comes next, has never seen it, and c does not know yet that it is gone."""
    play(Sharded, SHARDED, [(("rest", 3.0), 1.3211084708387673), (("delete", 5), 1.7613032639018407)], 97, in_order)

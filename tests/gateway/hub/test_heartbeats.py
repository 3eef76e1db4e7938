"""Heartbeats as Leases: few writes, only after a heartbeat, and what an observer makes of them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.hub.heartbeatlease import (
    HeartbeatLease,
    HeartbeatObserver,
    document,
    heartbeat_lease,
    own_place,
    source,
)
from gateway.hub.heartbeats import HeartbeatLeases, HeartbeatSettings
from gateway.hub.memory import Delta
from gateway.hub.objects import Answer, HubUnavailable
from gateway.membership.conditions import AVAILABLE, FALSE, GRACE, TRUE, UNKNOWN, Condition, availability
from gateway.membership.heartbeats import Beat, Heartbeats, Pulse, Renewal
from gateway.membership.inventory import Inventory
from gateway.membership.registry import Change, Cluster
from stub.session import AgentInfo
from tests.gateway.hub.fakehub import FakeHub

OWN = "/apis/coordination.k8s.io/v1/namespaces/kulvert/leases/kulvert-cluster-edge"
THEIRS = "/apis/coordination.k8s.io/v1/namespaces/edge/leases/managed-cluster-lease"
INVENTORY = Inventory("v1.36.0", "kind", 3, 2, (("cpu", "8"),), (("cpu", "7800m"),))


def agent(instance: str = "i1", cluster: str = "edge") -> AgentInfo:
    return AgentInfo(cluster, "u1", "agent", instance, "kulvert/1", "1.2.3.4:5")


def beat(ready: bool = True) -> Beat:
    return Beat(ready, "" if ready else "it is down", 3, "agent", "kulvert/1", "websocket", INVENTORY)


class World:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0
        self.hub = FakeHub()
        self.mine = self.registered = self.leading = True
        wall = lambda: self.now  # noqa: E731 -- an attribute would be bound too early
        self.heartbeats = Heartbeats(wall)
        self.leases = HeartbeatLeases(
            self.hub,
            self.heartbeats,
            HeartbeatSettings("kulvert", "prod", "replica-1"),
            lambda _: self.mine,
            lambda _: self.registered,
            lambda _: 45,
            lambda: self.leading,
            wall,
            lambda: 0.5,
        )
        self.heartbeats.subscribe(self.leases.heard)

    async def pass_by(self, seconds: float, each: float = 0.0, **instances: bool) -> None:
        """Time goes by, with heartbeats every so often."""
        until, due = self.now + seconds, self.now
        while self.now < until:
            if each and self.now >= due:
                due += each
                for instance, ready in instances.items():
                    self.heartbeats.heard(agent(instance), beat(ready))
            await self.leases.paced.work_off()
            self.now += 1

    @property
    def writes(self) -> int:
        return len([one for one in self.hub.asked if one.startswith("PATCH")])

    def said(self, name: str) -> str:
        """An annotation of the Lease's."""
        return str(self.lease["metadata"]["annotations"][f"kulvert.dev/{name}"])

    @property
    def lease(self) -> dict[str, Any]:
        return self.hub.leases[OWN]


async def test_however_many_agents_say_it_each_30_seconds_have_one_write() -> None:
    world = World()
    await world.pass_by(600, 5, i1=True, i2=True, i3=True)
    assert 17 <= world.writes <= 20
    assert world.lease["spec"]["leaseDurationSeconds"] == 45
    assert world.lease["spec"]["holderIdentity"] == "replica-1"
    assert world.lease["metadata"]["labels"]["kulvert.dev/heartbeats"] == "prod"
    assert "kulvert.dev/installation" not in world.lease["metadata"]["labels"], "it is none of the replicas' Leases"


async def test_without_a_heartbeat_nothing_is_renewed() -> None:
    world = World()
    await world.pass_by(1, 1, i1=True)
    before = world.lease["spec"]["renewTime"]
    await world.pass_by(600)
    assert world.writes == 1
    assert world.lease["spec"]["renewTime"] == before


async def test_that_all_agents_are_gone_is_told_once_and_is_no_renewal() -> None:
    world = World()
    await world.pass_by(1, 1, i1=True)
    before = world.lease["spec"]["renewTime"]
    world.heartbeats.attached("edge", [])
    await world.pass_by(200)
    world.leases.heard("edge")
    await world.pass_by(60)
    assert world.writes == 2
    assert world.lease["metadata"]["annotations"]["kulvert.dev/agents"] == "0"
    assert world.lease["spec"]["renewTime"] == before


async def test_that_the_last_agent_is_gone_and_that_one_is_back_is_written_at_once() -> None:
    world = World()
    await world.pass_by(60, 5, i1=True, i2=True)
    before = world.writes
    world.heartbeats.attached("edge", ["i2"])
    await world.pass_by(1)
    assert world.writes == before, "one is left"
    world.heartbeats.attached("edge", [])
    await world.pass_by(1)
    assert (world.writes, world.said("agents")) == (before + 1, "0")
    await world.pass_by(60)
    assert world.writes == before + 1, "once"
    await world.pass_by(1, 1, i1=True)
    assert (world.writes, world.said("agents")) == (before + 2, "1")


async def test_that_the_api_server_is_lost_and_found_is_written_at_once() -> None:
    world = World()
    await world.pass_by(120, 5, i1=True)
    before = world.writes
    await world.pass_by(1, 1, i1=False)
    assert (world.writes, world.said("ready-agents")) == (before + 1, "0")
    await world.pass_by(60, 5, i1=False)
    before = world.writes
    await world.pass_by(1, 1, i1=True)
    assert (world.writes, world.said("ready-agents")) == (before + 1, "1")


@pytest.mark.parametrize("period", [1, 2, 7, 29, 31, 45])
async def test_an_agent_that_comes_and_goes_has_three_writes_at_once_and_one_in_30_seconds(period: int) -> None:
    world = World()
    await world.pass_by(3600, 5, i1=True)
    begun: list[float] = []
    for turn in range(600):
        before = world.writes
        if turn % (2 * period) < period:
            world.heartbeats.heard(agent("i1"), beat())
        else:
            world.heartbeats.attached("edge", [])
        await world.pass_by(1)
        begun += [world.now] * (world.writes - before)
    assert all(later - earlier >= 30 * (n - 2) for earlier, later, n in spans(begun)), begun
    assert len(begun) >= 13


async def test_news_go_before_what_is_merely_due() -> None:
    world = World()
    for turn in range(2):
        for number in range(9):
            world.heartbeats.heard(agent(cluster=f"edge-{number}"), beat())
        if not turn:
            await world.leases.paced.work_off()
        world.now += 40
    world.hub.asked.clear()
    world.heartbeats.attached("edge-7", [])
    await world.leases.paced.work_off()
    assert world.hub.asked[0].split("?")[0].endswith("kulvert-cluster-edge-7")
    assert len(world.hub.asked) == 9


def spans(times: list[float]) -> list[tuple[float, float, int]]:
    """Each first and last of some that follow each other, and how many more than the first those are."""
    return [(times[i], times[j], j - i) for i in range(len(times)) for j in range(i + 1, len(times))]


@pytest.mark.parametrize(("each", "longest", "often"), [(700, 3, 5), (20, 36, 1)], ids=["now and then", "all the time"])
async def test_one_that_restarts_is_missed_for_as_long_as_it_is_away(each: int, longest: int, often: int) -> None:
    """It is away for two seconds. One that does so all the time may be met so by a regular write."""
    world = World()
    missed, most, times = 0, 0, 0
    for turn in range(3600):
        if turn % each == each - 3:
            world.heartbeats.attached("edge", [])
        elif turn % each != each - 2:
            world.heartbeats.heard(agent("i1"), beat())
        await world.pass_by(1)
        times += world.said("agents") == "0" and not missed
        missed = missed + 1 if world.said("agents") == "0" else 0
        most = max(most, missed)
    assert 1 <= most <= longest
    assert times >= often


async def test_what_there_is_no_allowance_for_is_written_when_the_next_one_is_due() -> None:
    world = World()
    await world.pass_by(1, 1, i1=True)
    for instances in ({}, {"i1": True}):
        world.heartbeats.attached("edge", instances)
        await world.pass_by(1, 1, **instances)
    assert world.writes == 3
    world.heartbeats.attached("edge", [])
    await world.pass_by(28)
    assert world.writes == 3
    await world.pass_by(8)
    assert (world.writes, world.said("agents")) == (4, "0")


async def test_another_replicas_cluster_is_not_written_and_a_removed_ones_lease_goes() -> None:
    world = World()
    world.mine = False
    await world.pass_by(60, 5, i1=True)
    assert not world.hub.asked
    world.mine = True
    await world.pass_by(60, 5, i1=True)
    world.registered = world.leading = False
    world.leases.changed(Change.REMOVED, Cluster("edge"))
    await world.pass_by(2)
    assert OWN in world.hub.leases, "the one who leads does it"
    world.leading = True
    world.leases.changed(Change.REMOVED, Cluster("edge"))
    await world.pass_by(60, 5, i1=True)
    assert not world.hub.leases


@pytest.mark.parametrize("status", [0, 403, 500])
async def test_while_the_hub_fails_it_is_asked_no_more_often_and_has_the_newest_after(status: int) -> None:
    world = World()
    world.hub.status = status
    world.hub.fails = None if status else HubUnavailable("the hub does not answer")
    await world.pass_by(300, 5, i1=True)
    assert 1 <= len(world.hub.asked) <= 20
    assert len(world.leases.paced._waiting) <= 1
    world.hub.status, world.hub.fails = 0, None
    await world.pass_by(40, 5, i1=False)
    assert world.lease["metadata"]["annotations"]["kulvert.dev/message"] == "it is down"


UNAVAILABLE = HubUnavailable("the hub does not answer")


@pytest.mark.parametrize(("before", "after"), [(True, None), (True, False), (False, True)], ids=["gone", "bad", "good"])
async def test_news_that_could_not_be_written_are_tried_again_soon(before: bool, after: bool | None) -> None:
    """Nothing more is heard of an agent that is gone."""
    world = World()
    await world.pass_by(120, 5, i1=before)
    world.hub.fails = UNAVAILABLE
    if after is None:
        world.heartbeats.attached("edge", [])
    else:
        world.heartbeats.heard(agent("i1"), beat(after))
    tried = world.writes
    await world.pass_by(1)
    assert world.writes == tried + 1
    world.hub.fails = None
    await world.pass_by(3)
    assert world.said("ready-agents") == ("1" if after else "0")
    assert world.writes == tried + 2


async def test_the_first_heartbeat_that_could_not_be_written_is_tried_again_soon() -> None:
    world = World()
    world.hub.fails = UNAVAILABLE
    await world.pass_by(1, 1, i1=True)
    world.hub.fails = None
    await world.pass_by(3)
    assert world.said("agents") == "1"


async def test_what_could_not_be_written_and_is_no_news_waits_for_the_next_one() -> None:
    world = World()
    await world.pass_by(1, 1, i1=True)
    await world.pass_by(31)
    world.heartbeats.heard(agent("i1"), beat())
    world.hub.fails = UNAVAILABLE
    await world.pass_by(4)
    world.hub.fails = None
    await world.pass_by(25, 5, i1=True)
    assert world.writes == 2
    await world.pass_by(10, 5, i1=True)
    assert world.writes == 3


async def test_that_the_agents_are_gone_is_told_after_a_failure_though_it_is_no_news() -> None:
    """Its API server was down before: that the cluster is not available is written already."""
    world = World()
    await world.pass_by(120, 5, i1=False)
    world.heartbeats.attached("edge", [])
    world.hub.fails = UNAVAILABLE
    tried = world.writes
    await world.pass_by(36)
    assert world.writes > tried
    assert world.said("agents") == "1"
    world.hub.fails = None
    await world.pass_by(36)
    assert world.said("agents") == "0"


async def test_what_the_hub_may_have_taken_counts_as_either(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer is lost, and all is as it was before: that is news then."""
    world, ask = World(), FakeHub.ask
    await world.pass_by(1, 1, i1=True)
    await world.pass_by(30)
    await world.pass_by(1, 1, i1=False)
    assert world.writes == 2

    async def lost(hub: FakeHub, method: str, path: str, *rest: Any) -> Answer:
        await ask(hub, method, path, *rest)
        world.heartbeats.heard(agent("i1"), beat(ready=False))
        raise UNAVAILABLE

    monkeypatch.setattr(FakeHub, "ask", lost)
    await world.pass_by(1, 1, i1=True)
    assert world.said("ready-agents") == "1"
    monkeypatch.undo()
    await world.pass_by(3)
    assert world.said("ready-agents") == "0"


@pytest.mark.parametrize("period", [2, 7, 45])
async def test_news_that_cannot_be_written_are_tried_no_more_often_than_written(period: int) -> None:
    world = World()
    await world.pass_by(3600, 5, i1=True)
    world.hub.fails = UNAVAILABLE
    begun: list[float] = []
    for turn in range(600):
        before = world.writes
        if turn % (2 * period) < period:
            world.heartbeats.heard(agent("i1"), beat())
        else:
            world.heartbeats.attached("edge", [])
        await world.pass_by(1)
        begun += [world.now] * (world.writes - before)
    assert all(later - earlier >= 30 * (n - 2) for earlier, later, n in spans(begun)), begun
    assert len(begun) >= 13


async def test_where_ocm_has_a_lease_for_the_cluster_that_one_is_renewed() -> None:
    world = World()
    world.hub.ocm = True
    world.hub.leases[THEIRS] = {}
    await world.pass_by(300, 5, i1=True)
    assert OWN not in world.hub.leases
    assert world.hub.leases[THEIRS]["spec"]["renewTime"]
    assert world.hub.asked.count(f"GET {THEIRS}") == 1
    del world.hub.leases[THEIRS]
    world.hub.leases["x"] = {}
    await world.pass_by(700, 5, i1=True)
    assert world.hub.asked.count(f"GET {THEIRS}") in (2, 3)


# --- the observer


def lease(renewed: str, agents: int = 1, ready: int = 1, cluster: str = "edge") -> HeartbeatLease:
    return HeartbeatLease(cluster, renewed, 60.0, Pulse(agents, ready, "", Inventory(), 0.0))


def test_what_is_written_is_what_is_read() -> None:
    pulse = Pulse(2, 1, "one is down", INVENTORY, 1_800_000_000.25)
    place = own_place("kulvert", "edge")
    made = document(place, "edge", "prod", "r", pulse, 45)
    assert made["spec"]["renewTime"] == "2027-01-15T08:00:00.250000Z"
    found = heartbeat_lease(made)
    assert found is not None
    assert (found.cluster, found.duration) == ("edge", 45.0)
    assert (found.pulse.agents, found.pulse.ready, found.pulse.inventory) == (2, 1, INVENTORY)
    assert source("prod", "kulvert").query == {"labelSelector": "kulvert.dev/heartbeats=prod"}
    stolen = {**made, "metadata": {**made["metadata"], "name": "kulvert-cluster-other"}}
    assert heartbeat_lease(stolen) is None
    odd = {"metadata": {**made["metadata"], "annotations": {"kulvert.dev/agents": "-1"}}, "spec": {}}
    assert heartbeat_lease(odd) == HeartbeatLease("edge", "", 60.0, Pulse(0, 0, "", Inventory(), 0.0))


def test_an_observer_counts_by_his_own_clock_from_when_he_sees_it_change() -> None:
    now = [1000.0]
    observer = HeartbeatObserver(lambda: now[0])
    assert availability(observer.renewal("edge"), None, 1000.0).status == UNKNOWN
    first, second = lease("1970"), lease("1971")
    observer.hear([Delta("kulvert/kulvert-cluster-edge", None, first)])
    assert not observer.renewal("edge").fresh
    now[0] = 1100.0
    observer.hear([Delta("kulvert/kulvert-cluster-edge", first, second)])
    assert (observer.renewal("edge").fresh, observer.renewal("edge").seen) == (True, 1100.0)
    now[0] = 1200.0
    observer.hear([Delta("kulvert/kulvert-cluster-edge", second, lease("1971", ready=0))])
    assert observer.renewal("edge").seen == 1100.0, "a change of something else is no heartbeat"
    observer.hear([Delta("kulvert/kulvert-cluster-edge", second, None)])
    assert availability(observer.renewal("edge"), None, 1200.0).reason == "NoAgent"


BEFORE = Condition(AVAILABLE, TRUE, "AgentsReady", "1 of 1")


@given(
    agents=st.integers(0, 3),
    ready=st.integers(0, 3),
    age=st.floats(0, 1000),
    duration=st.integers(1, 120),
    fresh=st.booleans(),
    before=st.sampled_from([None, BEFORE]),
)
def test_available_means_what_it_says(
    agents: int, ready: int, age: float, duration: int, fresh: bool, before: Condition | None
) -> None:
    renewal = Renewal(Pulse(agents, min(agents, ready), "m", Inventory(), 0.0), duration, 1000.0, fresh)
    found = availability(renewal, before, 1000.0 + age)
    stale = (1000.0 + age) - 1000.0 > GRACE * duration
    if found.status == TRUE:
        assert not stale
        assert agents
        assert (fresh and ready) or before is BEFORE
    if stale:
        assert (found.status, found.reason) == (UNKNOWN, "NoHeartbeat")
    elif not agents:
        assert found.status == FALSE
    elif fresh:
        assert found.status == (TRUE if min(agents, ready) else FALSE)
    else:
        assert found == before or found.status == UNKNOWN

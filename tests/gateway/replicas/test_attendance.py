"""Who is attached to other replicas: asked for when somebody wants to know, at most once a second, and else unknown."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gateway.membership.heartbeats import Beat, Heartbeats
from gateway.membership.inventory import Inventory
from gateway.replicas import attendance
from gateway.replicas.attendance import ATTENDANCE, FRESH, PAGE, OthersAttendance, OwnAttendance
from stub.session import AgentInfo
from stub.sessions import ClusterState, Sessions
from tests.support.attached import eventually
from tests.support.owners import Owners
from tunnel.calls import CallFailed, Params

INVENTORY = Inventory("v1.36.0", "kind", 3, 2)


class Attached:
    """Stands for stub.sessions.Sessions."""

    def __init__(self, **agents: list[Any]) -> None:
        self.agents = agents

    def of(self, cluster: str) -> list[Any]:
        return self.agents.get(cluster, [])

    def state(self, cluster: str) -> ClusterState:
        return ClusterState(len(self.of(cluster)), 1, 0, 0, "one is slow" * 1000)


def session(uid: str = "u1", *, available: bool = True) -> Any:
    return SimpleNamespace(info=SimpleNamespace(cluster_id=uid), available=available)


class World:
    """Replica `one` asks; whatever it asks is answered by `two`, which has all clusters."""

    def __init__(self) -> None:
        self.now = 100.0
        self.owners, self.theirs = Owners("one"), Owners("two")
        self.owners.hold("two")
        self.theirs.hold("two")
        self.attached = Attached(edge=[session(), session("u1", available=False), session("u2")])
        self.heartbeats = Heartbeats(lambda: 1000.0)
        beat = Beat(True, "", 3, "agent-1", "kulvert/1", "websocket", INVENTORY)
        self.heartbeats.heard(AgentInfo("edge", "u1", "agent-1", "i1", "kulvert/1", ""), beat)
        self.own = OwnAttendance(self.theirs, cast(Sessions, self.attached), self.heartbeats)
        self.asked: list[tuple[str, list[str]]] = []
        self.answer: Params | CallFailed | None = None
        self.others = OthersAttendance(self.owners, self._ask, lambda: self.now)

    async def _ask(self, replica: str, name: str, params: Params, _timeout: float) -> Params:
        assert name == ATTENDANCE
        self.asked.append((replica, params["clusters"]))
        await asyncio.sleep(0)
        if isinstance(self.answer, CallFailed):
            raise self.answer
        return self.answer if self.answer is not None else await self.own.answer(params)


@pytest.fixture
def world() -> World:
    return World()


async def test_what_the_holder_says_is_what_is_seen(world: World) -> None:
    assert world.others.seen("edge") is None
    await world.others.refresh(["edge", "empty"])
    seen = world.others.seen("edge")
    assert seen is not None
    assert (seen.attached.agents, seen.attached.ready) == (3, 1)
    assert len(seen.attached.message) == 1024
    assert seen.callable == {"u1": 1, "u2": 1}
    assert [one["name"] for one in seen.reports] == ["agent-1"]
    assert seen.inventory == INVENTORY
    empty = world.others.seen("empty")
    assert empty is not None
    assert empty.attached.agents == 0
    assert world.asked == [("two", ["edge", "empty"])]


async def test_nobody_is_asked_more_than_once_a_second_about_a_cluster(world: World) -> None:
    await asyncio.gather(*(world.others.refresh(["edge"]) for _ in range(20)))
    assert len(world.asked) == 1
    world.answer = CallFailed("closed", "gone")
    world.now += 1.0
    await asyncio.gather(*(world.others.refresh(["edge"]) for _ in range(20)))
    assert len(world.asked) == 2, "who does not answer is not asked by each who waits"


async def test_what_is_old_or_was_not_answered_is_not_known(world: World) -> None:
    await world.others.refresh(["edge"])
    world.now += FRESH - 0.1
    assert world.others.seen("edge") is not None
    world.now += 0.2
    assert world.others.seen("edge") is None
    await world.others.refresh(["edge"])
    world.answer = CallFailed("timeout", "slow")
    world.now += 1.0
    await world.others.refresh(["edge"])
    assert world.others.seen("edge") is None


@pytest.mark.parametrize("said", [{}, {"clusters": None}, {"clusters": {"edge": {}}}, {"clusters": {"edge": 1}},
                                  {"clusters": {"edge": {"agents": "x", "ready": 0}}}], ids=repr)  # fmt: skip
async def test_an_answer_that_no_replica_gives_is_not_known(world: World, said: Params) -> None:
    world.answer = said
    await world.others.refresh(["edge"])
    assert world.others.seen("edge") is None


async def test_ones_own_clusters_and_those_of_nobody_are_not_asked_about(world: World) -> None:
    for holder in ("one", ""):
        world.owners.hold(holder)
        await world.others.refresh(["edge"])
    assert not world.asked


async def test_a_replica_that_does_not_have_the_cluster_any_more_knows_nothing(world: World) -> None:
    world.theirs.hold("three")
    await world.others.refresh(["edge", "empty"])
    assert world.others.seen("empty") is None
    assert world.others.seen("edge") is not None, "its agents are there still"


async def test_thousands_of_clusters_are_asked_about_in_pages_and_not_kept(world: World) -> None:
    names = [f"c{number}" for number in range(10 * PAGE + 1)]
    await world.others.refresh(names)
    assert [len(page) for _, page in world.asked] == [PAGE] * 10 + [1]
    assert all(world.others.seen(name) is not None for name in names)
    world.now += 60.0
    await world.others.refresh(["edge"])
    assert len(world.others._seen) == len(world.others._asked) == 1


@pytest.mark.parametrize("names", [None, "edge", [1], ["x"] * (PAGE + 1)], ids=["none", "text", "number", "long"])
async def test_a_question_that_no_replica_asks_is_refused(world: World, names: object) -> None:
    with pytest.raises(CallFailed):
        await world.own.answer({"clusters": names})


@contextmanager
def running(others: OthersAttendance) -> Iterator[None]:
    task = asyncio.create_task(others.run())
    yield
    task.cancel()


async def test_who_cannot_wait_is_kept_up_to_date_while_he_asks(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attendance, "AGE", 0.01)
    loop = asyncio.get_running_loop()
    world.others = OthersAttendance(world.owners, world._ask, lambda: loop.time() * 20)
    with running(world.others):
        await asyncio.sleep(0.05)
        assert not world.asked, "it costs nothing while nobody wants to know"
        assert world.others.follow("edge") is None
        await eventually(lambda: world.others.seen("edge") is not None)
        await eventually(lambda: len(world.asked) > 3)
        await asyncio.sleep(0.3)
        count = len(world.asked)
        await asyncio.sleep(0.1)
        assert len(world.asked) == count, "nobody has asked for five seconds of this clock"


async def test_without_leases_it_is_the_heartbeat_and_what_is_not_known_is_none(world: World) -> None:
    unknown = world.others.renewal("edge")
    assert (unknown.fresh, unknown.pulse.agents) == (False, 1)
    await world.others.refresh(["edge", "empty"])
    known, empty = world.others.renewal("edge"), world.others.renewal("empty")
    assert (known.fresh, known.pulse.agents, known.pulse.ready, known.pulse.inventory) == (True, 3, 1, INVENTORY)
    assert empty.pulse.agents == 0


async def test_whoever_wants_to_know_of_very_many_does_not_wait_for_ever(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attendance, "PATIENCE", 0.05)

    async def slow(*_: object) -> Params:
        await asyncio.sleep(0.03)
        return {"clusters": {}}

    others = OthersAttendance(world.owners, slow, lambda: world.now)
    began = asyncio.get_running_loop().time()
    await others.refresh([f"c{number}" for number in range(100 * PAGE)])
    assert asyncio.get_running_loop().time() - began < 0.5


async def test_a_cancelled_refresh_leaves_nobody_locked_out(world: World) -> None:
    waiting = asyncio.Event()

    async def hangs(*_: object) -> Params:
        await waiting.wait()
        return {"clusters": {}}

    others = OthersAttendance(world.owners, hangs, lambda: world.now)
    asking = asyncio.create_task(others.refresh(["edge"]))
    await asyncio.sleep(0.01)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    waiting.set()
    world.now += 1.0
    async with asyncio.timeout(1.0):
        await others.refresh(["edge"])


async def test_whoever_asks_about_very_many_in_turn_hears_of_each_at_his_next_turn(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attendance, "AGE", 0.01)
    monkeypatch.setattr(attendance, "SHARE", 0.0)  # a step of this clock in the midst of a round is no long round
    world.others = OthersAttendance(world.owners, world._ask, lambda: world.now)
    names = [f"c{number}" for number in range(10 * PAGE)]
    with running(world.others):
        for turn in range(3):
            for name in names:
                assert world.others.renewal(name).fresh is (turn > 0)
                assert world.others.seen(name) is None, "it is too old for whoever must know"
            await eventually(lambda turn=turn: len(world.asked) >= 10 * (turn + 1))  # type: ignore[misc]  # bound
            await asyncio.sleep(0.05)
            world.now += 3 * FRESH
        world.now += attendance.WATCHED
        await eventually(lambda: not world.others._news.is_set())
        world.now += attendance.WATCHED
        await world.others.refresh(["edge"])
    assert len(world.others._seen) == 1, "nothing is kept of what nobody asks about"

"""When a name is free, where its cluster's agents may have been connected to any replica."""

from __future__ import annotations

import asyncio
import math

import pytest

from gateway.replicas.presence import FRESH, MOST, WANTED, OwnPresence, SharedPresence
from stub.ownership import Replica
from tests.support.attached import eventually
from tests.support.owners import Owners
from tunnel.calls import CallFailed, Params

WALL = 1_800_000_000.0
TWO, THREE = Replica("two", "x:2"), Replica("three", "x:3")
WHO = ("edge", "u1")


class Last:
    """A replica's own `Presence`."""

    def __init__(self, at: float) -> None:
        self.at = at

    def last_connected(self, cluster: str, uid: str) -> float:
        return self.at if (cluster, uid) == WHO else -math.inf


class World:
    def __init__(self) -> None:
        self.now = 1000.0
        self.owners = Owners("one", TWO, THREE)
        self.own = Last(WALL - 900)
        self.theirs = {"two": Last(WALL - 900), "three": Last(WALL - 900)}
        self.answers = {name: OwnPresence(one, self.wall) for name, one in self.theirs.items()}
        self.silent: set[str] = set()
        self.asked: list[str] = []
        self.shared = SharedPresence("one", self.own, self.owners, self._ask, lambda: self.now, self.wall)
        self.now += 800.0
        self.began = self.wall() - 800.0

    def wall(self) -> float:
        return WALL + self.now - 1000.0

    async def _ask(self, replica: str, _name: str, params: Params, _timeout: float) -> Params:
        self.asked.append(replica)
        if replica in self.silent:
            raise CallFailed("timeout", "no answer")
        return await self.answers[replica].answer(params)

    def gone(self) -> float:
        """Seconds since the last one was connected, for all that is known."""
        return self.wall() - self.shared.last_connected(*WHO)


@pytest.fixture
def world() -> World:
    return World()


async def test_until_all_have_said_so_nobody_has_gone(world: World) -> None:
    assert world.gone() == 0
    await world.shared.look()
    assert world.gone() == 800, "since this replica began: before that nobody knows"
    assert sorted(world.asked) == ["three", "two"]


async def test_who_is_connected_elsewhere_or_was_lately_counts(world: World) -> None:
    world.gone()
    for seconds in (0.0, 20.0):
        world.theirs["three"].at = world.wall() - seconds
        await world.shared.look()
        assert world.gone() == seconds
    world.own.at = world.wall() - 3.0
    assert world.gone() == 3


async def test_a_replica_that_does_not_answer_may_have_them(world: World) -> None:
    world.gone()
    await world.shared.look()
    world.silent.add("two")
    world.now += FRESH + 0.1
    await world.shared.look()
    assert world.gone() == 0
    world.silent.clear()
    await world.shared.look()
    assert world.gone() > 800


async def test_a_replica_that_is_gone_had_them_until_then(world: World) -> None:
    world.gone()
    await world.shared.look()
    world.owners.others = (TWO,)
    world.shared.changed()
    world.now += 2.0
    assert world.gone() == 2
    world.owners.others = (TWO, THREE)
    world.shared.changed()
    assert world.gone() == 0, "it is there again, and has not said anything"


async def test_an_answer_is_in_seconds_so_that_clocks_may_differ(world: World) -> None:
    world.gone()
    world.theirs["two"].at += 50_000
    world.answers["two"] = OwnPresence(world.theirs["two"], lambda: world.wall() + 50_000 - 80)
    await world.shared.look()
    assert world.gone() == 800
    world.theirs["two"].at = world.wall() + 50_000 - 80 + 7  # its own clock was set back
    await world.shared.look()
    assert world.gone() == 0


@pytest.mark.parametrize("said", [{}, {"seconds": []}, {"seconds": [-1.0]}, {"seconds": ["x"]}, {"seconds": [math.nan]},
                                  {"seconds": None}], ids=repr)  # fmt: skip
async def test_an_answer_that_no_replica_gives_says_nothing(world: World, said: Params) -> None:
    async def ask(*_: object) -> Params:
        return said

    shared = SharedPresence("one", world.own, world.owners, ask, lambda: world.now, world.wall)
    shared.last_connected(*WHO)
    world.now += 60
    await shared.look()
    assert shared.last_connected(*WHO) == world.wall()


@pytest.mark.parametrize(
    "asked", [None, [["a"]], [["a", 1]], [["a", "b"]] * (MOST + 1)], ids=["no", "1", "int", "many"]
)
async def test_a_question_that_no_replica_asks_is_refused(world: World, asked: object) -> None:
    with pytest.raises(CallFailed):
        await world.answers["two"].answer({"clusters": asked})


async def test_of_more_names_than_are_asked_about_nothing_is_known(world: World) -> None:
    for number in range(MOST):
        world.shared.last_connected(f"c{number}", "u1")
    for _ in range(2):
        assert world.gone() == 0
        await world.shared.look()
    assert world.wall() - world.shared.last_connected("c0", "u1") == 800, "the first ones are asked about all the same"


async def test_it_is_asked_for_as_long_as_somebody_wants_the_name(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.replicas.presence.EVERY", 0.01)
    task = asyncio.create_task(world.shared.run())
    await asyncio.sleep(0.05)
    assert not world.asked
    world.gone()
    await eventually(lambda: len(world.asked) > 4)
    assert world.gone() == 800
    world.now += WANTED + 1
    await asyncio.sleep(0.05)
    count = len(world.asked)
    await asyncio.sleep(0.05)
    assert len(world.asked) == count
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

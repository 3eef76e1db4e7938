"""A replica that alone has lost the hub asks the others, and sends its agents to who sees it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from gateway.replicas import cutoff
from gateway.replicas.cutoff import COUNTS, EVERY, KNOWN, SIGHT, CutOff, Said, sighted
from stub.ownership import Replica
from tests.support.attached import eventually
from tunnel.calls import CallFailed

TWO = Replica("two", "10.0.0.2:8445", "https://two.example:8444")
THREE = Replica("three", "10.0.0.3:8445")


class Sight:
    """As the test says."""

    def __init__(self) -> None:
        self.sees = True
        self.blind = False

    def lose(self) -> None:
        self.sees, self.blind = False, True


class World:
    """One replica, what the others answer, and its clock."""

    def __init__(self, **answers: Any) -> None:
        self.now = 100.0
        self.sight = Sight()
        self.answers: dict[str, Any] = answers
        self.asked: list[tuple[str, str]] = []
        self.changes = 0
        self.cutoff = CutOff("one", self.sight, self.ask, lambda: self.now, self._changed)
        self.cutoff.known((Replica("one", ""), TWO, THREE))

    def _changed(self) -> None:
        self.changes += 1

    async def ask(self, replica: str, name: str, _params: Any, _timeout: float) -> dict[str, Any]:
        self.asked.append((replica, name))
        answer = self.answers.get(replica)
        if answer is None:
            raise CallFailed("timeout", "no answer")
        return {"sees": answer}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cutoff, "EVERY", 0.01)


async def rounds(world: World) -> None:
    """Long enough for a few."""
    task = asyncio.create_task(world.cutoff.run())
    await asyncio.sleep(0.1)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize(
    ("blind", "said", "found"),
    [
        (True, {"two": Said(True, 95.0)}, "two"),
        (True, {"two": Said(False, 99.0), "three": Said(True, 99.0)}, "three"),
        (True, {"two": Said(False, 99.0)}, None),
        (True, {"two": Said(True, 100.0 - COUNTS)}, None),
        (True, {}, None),
        (False, {"two": Said(True, 99.0)}, None),
    ],
    ids=["one sees", "one of two sees", "nobody sees", "long ago", "nobody answers", "not blind"],
)
def test_only_who_is_blind_while_another_sees_is_cut_off(
    blind: bool, said: Mapping[str, Said], found: str | None
) -> None:
    assert sighted(blind, said, 100.0) == found


async def test_who_is_blind_while_another_sees_sends_agents_there_and_is_not_ready() -> None:
    world = World(two=True, three=False)
    world.sight.lose()
    await rounds(world)
    assert set(world.asked) == {("two", SIGHT), ("three", SIGHT)}
    assert world.cutoff.away == TWO.agents_address
    assert "two" in str(world.cutoff.problem)
    assert world.changes == 1


async def test_without_an_address_agents_are_sent_away_all_the_same() -> None:
    world = World(three=True)
    world.sight.lose()
    await rounds(world)
    assert world.cutoff.away == ""
    assert world.cutoff.problem is not None


@pytest.mark.parametrize("answers", [{"two": False, "three": False}, {}], ids=["nobody sees", "nobody answers"])
async def test_a_hub_that_is_away_for_all_changes_nothing(answers: dict[str, bool]) -> None:
    world = World(**answers)
    world.sight.lose()
    await rounds(world)
    assert world.asked
    assert (world.cutoff.away, world.cutoff.problem) == (None, None)


async def test_who_sees_asks_nobody() -> None:
    world = World(two=True)
    await rounds(world)
    assert not world.asked
    assert world.cutoff.away is None


async def test_it_is_over_when_the_hub_is_seen_again() -> None:
    world = World(two=True)
    world.sight.lose()
    await rounds(world)
    assert world.cutoff.away is not None
    world.sight.sees, world.sight.blind = True, False
    assert world.cutoff.problem is None
    await rounds(world)
    world.answers.clear()
    world.sight.lose()
    await rounds(world)
    assert world.cutoff.away is None, "what was said before counts no more"


async def test_an_answer_that_is_missed_once_changes_nothing() -> None:
    world = World(two=True)
    world.sight.lose()
    await rounds(world)
    world.answers.clear()
    world.now += COUNTS / 2
    await rounds(world)
    assert world.cutoff.away is not None
    world.now += COUNTS
    await rounds(world)
    assert world.cutoff.away is None


async def test_others_are_answered_as_it_is() -> None:
    world = World()
    assert await world.cutoff.answer({}) == {"sees": True}
    world.sight.lose()
    assert await world.cutoff.answer({}) == {"sees": False}


def test_links_are_kept_to_those_who_were_alive_when_sight_was_lost() -> None:
    """By Leases that nobody can read all others are dead within seconds."""
    world = World()
    world.now += 10_000
    assert world.cutoff.known((Replica("one", ""),)) == ()  # just before it knows that it sees nothing
    world.sight.lose()
    assert set(world.cutoff.known((Replica("one", ""),))) == {TWO, THREE}


def test_who_is_long_gone_is_forgotten() -> None:
    world = World()
    assert world.cutoff.known((TWO,)) == (TWO,)
    world.now += KNOWN
    assert world.cutoff.known((TWO,)) == (TWO,)
    world.sight.lose()
    assert world.cutoff.known(()) == (TWO,)


async def test_what_is_asked_ends_with_the_task() -> None:
    world = World()
    world.sight.lose()
    ended: list[str] = []

    async def never(replica: str, _name: str, _params: Any, _timeout: float) -> dict[str, Any]:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(replica)
        return {}

    world.cutoff._ask = never
    before = asyncio.all_tasks()
    task = asyncio.create_task(world.cutoff.run())
    await eventually(lambda: len(asyncio.all_tasks() - before) == 3)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert set(ended) == {"two", "three"}
    assert EVERY < COUNTS

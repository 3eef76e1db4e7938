"""Calls to agents of other replicas: whoever has the cluster is asked, and the next one where it has moved."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from gateway.membership.others import Agent
from gateway.replicas import agentcalls
from gateway.replicas.agentcalls import CALL, AgentCalls, FarAgent
from gateway.replicas.exchange import NotAsked
from tests.support.owners import Owners
from tunnel.calls import CallFailed, Params


class OneAgent:
    """An agent that does as it is told, or fails."""

    def __init__(self, answer: Params | CallFailed) -> None:
        self.answer = answer
        self.called: list[tuple[str, Params, float]] = []

    async def call(self, method: str, params: Params, timeout: float = 10.0) -> Params:
        self.called.append((method, params, timeout))
        if isinstance(self.answer, CallFailed):
            raise self.answer
        return self.answer


class World:
    """Replica `one` asks; `two` and `three` answer, as their own owners say."""

    def __init__(self) -> None:
        self.owners = {name: Owners(name) for name in ("one", "two", "three")}
        self.agents: dict[str, list[OneAgent]] = {name: [] for name in self.owners}
        self.uid = "u1"
        self.asked: list[str] = []
        self.before_ask: Callable[[str], None] = lambda _replica: None
        self.calls = {name: AgentCalls(self.owners[name], self._ask, self._here(name)) for name in self.owners}

    def hold(self, holder: str, *names: str) -> None:
        for name in names or self.owners:
            self.owners[name].hold(holder)

    def _here(self, name: str) -> Callable[[str, str], Sequence[Agent]]:
        return lambda cluster, uid: self.agents[name] if (cluster, uid) == ("edge", self.uid) else []

    async def _ask(self, replica: str, name: str, params: Params, _timeout: float) -> Params:
        assert name == CALL
        self.asked.append(replica)
        self.before_ask(replica)
        return await self.calls[replica].answer(params)

    async def call(self, timeout: float = 5.0) -> Params:
        return await FarAgent(self.calls["one"], "edge", "u1").call("do", {"a": 1}, timeout)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(agentcalls, "PAUSE", 0.01)
    monkeypatch.setattr(agentcalls, "PATIENCE", 0.3)
    return World()


async def test_the_holders_agent_answers(world: World) -> None:
    world.hold("two")
    first, second = OneAgent({"did": True}), OneAgent({})
    world.agents["two"] = [first, second]
    assert await world.call() == {"did": True}
    ((method, params, timeout),) = first.called
    assert (method, params) == ("do", {"a": 1})
    assert 4.5 < timeout <= 5.0
    assert not second.called


async def test_ones_own_cluster_is_asked_here(world: World) -> None:
    world.hold("one")
    world.agents["one"] = [OneAgent({"did": True})]
    assert await world.call() == {"did": True}
    assert not world.asked


async def test_what_the_agent_refuses_is_told_and_not_tried_again(world: World) -> None:
    world.hold("two")
    world.agents["two"] = [OneAgent(CallFailed("moved", "no such namespace"))]
    with pytest.raises(CallFailed) as caught:
        await world.call()
    assert (caught.value.reason, str(caught.value)) == ("moved", "no such namespace")
    assert world.asked == ["two"]


async def test_without_an_agent_it_says_so(world: World) -> None:
    world.hold("two")
    with pytest.raises(CallFailed) as caught:
        await world.call()
    assert caught.value.reason == "unavailable"


async def test_an_agent_of_another_cluster_by_that_name_is_not_called(world: World) -> None:
    world.hold("two")
    world.agents["two"] = [OneAgent({"did": True})]
    world.uid = "u2"
    with pytest.raises(CallFailed):
        await world.call()
    assert not world.agents["two"][0].called


async def test_the_next_holder_is_asked_where_it_has_moved(world: World) -> None:
    world.hold("two")
    world.hold("three", "two", "three")
    world.agents["three"] = [OneAgent({"did": True})]
    asyncio.get_running_loop().call_later(0.05, world.hold, "three")
    assert await world.call() == {"did": True}
    assert world.asked[-1] == "three"


async def test_a_holder_that_could_not_be_asked_is_asked_again(world: World) -> None:
    world.hold("two")
    world.agents["two"] = [OneAgent({"did": True})]

    def unready(_replica: str) -> None:
        if len(world.asked) < 3:
            raise NotAsked("not linked")

    world.before_ask = unready
    assert await world.call() == {"did": True}


async def test_what_may_have_begun_is_not_asked_again(world: World) -> None:
    world.hold("two")

    def lost(_replica: str) -> None:
        raise CallFailed("closed", "the link is lost")

    world.before_ask = lost
    with pytest.raises(CallFailed) as caught:
        await world.call()
    assert caught.value.reason == "closed"
    assert len(world.asked) == 1


@pytest.mark.parametrize("timeout", [0.05, 5.0])
async def test_nobody_is_waited_for_for_ever(world: World, timeout: float) -> None:
    began = asyncio.get_running_loop().time()
    with pytest.raises(CallFailed) as caught:
        await world.call(timeout)
    assert caught.value.reason == "unavailable"
    assert asyncio.get_running_loop().time() - began < min(timeout, 0.3) + 0.2


async def test_a_cancelled_call_is_over(world: World) -> None:
    calling = asyncio.create_task(world.call(60.0))
    await asyncio.sleep(0.02)
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling


GOOD: dict[str, Any] = {"cluster": "edge", "uid": "u1", "method": "do", "params": {}, "seconds": 1.0}


@pytest.mark.parametrize(
    "changes",
    [{"cluster": 1}, {"uid": None}, {"method": "x" * 300}, {"params": []}, {"seconds": "1"}, {"seconds": -1},
     {"seconds": 1e9}, {"seconds": float("nan")}],
    ids=repr,
)  # fmt: skip
async def test_a_question_that_no_replica_asks_reaches_no_agent(world: World, changes: dict[str, Any]) -> None:
    world.hold("two")
    world.agents["two"] = [OneAgent({})]
    with pytest.raises(CallFailed) as caught:
        await world.calls["two"].answer(GOOD | changes)
    assert caught.value.reason == "request"
    assert not world.agents["two"][0].called
    await world.calls["two"].answer(GOOD)
    assert world.agents["two"][0].called


@pytest.mark.parametrize("said", [{}, {"result": 1}, {"failed": "x"}])
async def test_an_answer_that_no_replica_gives_is_none(said: Params) -> None:
    owners = Owners("one")
    owners.hold("two")

    async def ask(*_: object) -> Params:
        return said

    with pytest.raises(CallFailed):
        await AgentCalls(owners, ask, lambda *_: []).call("edge", "u1", "do", {}, 1.0)

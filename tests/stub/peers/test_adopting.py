"""Many agents that are to be passed on at once: few are dialled for at a time, and none is refused for that."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, cast

import pytest

from stub.ownership import Replica
from stub.peers import adopt
from stub.peers.adopt import Adopting
from stub.peers.dial import PeerDialler, PeerFailed
from stub.peers.limits import PeerLimits
from tests.stub.peers.replicas import until
from tunnel import proof
from tunnel.adapter import LinkConnection
from tunnel.handshake import Challenge, Refused

OTHER = Replica("o", "127.0.0.1:1")
CHALLENGE = Challenge(proof.encode(b"x" * 32), (1,), 0, "s")
SMALL = PeerLimits(adopting=3, dialling_unproved=2, unproved=4)


class Agent:
    """The connection of one."""

    transport = None

    def __init__(self) -> None:
        self.said = b""
        self.why = ""

    def attach(self, pipe: Any, on_end: Callable[[Any, str], None], _never: object) -> None:
        self._pipe, self._on_end = pipe, on_end
        pipe.on_output = self._out

    def _out(self) -> None:
        self.said += b"".join(self._pipe.take())

    def finish(self, why: str) -> None:
        self.why = why
        self._on_end(self._pipe, why)

    @property
    def waits(self) -> int:
        """How often it was told to."""
        return self.said.count(b'"wait"')


class Dialler:
    """Takes as long as the test wants."""

    identity, batch = "r", None

    def __init__(self, limits: PeerLimits) -> None:
        self.limits = limits
        self.under_way = self.most = self.done = 0
        self.go = asyncio.Semaphore(0)
        self.fails = False

    async def dial(self, _replica: Replica, _hello: object, admit: Callable[[Any, Any], Any]) -> None:
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            async with asyncio.timeout(0.5):  # from its own start
                await self.go.acquire()
        finally:
            self.under_way -= 1
        self.done += 1
        if self.fails:
            raise PeerFailed("it is not reached")
        admit(Agent(), None)


@asynccontextmanager
async def adopting(limits: PeerLimits = SMALL) -> AsyncIterator[tuple[Adopting, Dialler]]:
    dialler = Dialler(limits)
    made = Adopting(cast(PeerDialler, dialler))
    running = asyncio.create_task(made.run())
    await asyncio.sleep(0)
    try:
        yield made, dialler
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def come(made: Adopting, count: int, link: str = "shared") -> list[Agent]:
    agents = [Agent() for _ in range(count)]
    for one in agents:
        made.adopt(cast(LinkConnection, one), OTHER, CHALLENGE, {"kind": "hello", "link": link})
    return agents


async def test_all_of_three_thousand_are_passed_on_a_few_at_a_time() -> None:
    async with adopting(PeerLimits()) as (made, dialler):
        agents = come(made, 3000)
        await until(lambda: agents[-1].waits)
        while dialler.done < 3000:
            dialler.go.release()
            await asyncio.sleep(0)
        assert dialler.most == PeerLimits().adopting == 16
        assert not any(one.why for one in agents)
        assert made.adopted == 3000
        assert [one.waits for one in agents] == 16 * [0] + 2984 * [1]


async def test_those_who_wait_for_longer_than_a_dial_may_take_are_told_and_not_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(adopt, "EVERY", 0.05)
    async with adopting() as (made, dialler):
        agents = come(made, 12)
        for _ in range(4):
            await asyncio.sleep(0.3)  # each dial is in time; the last ones began 0.9 s after they came
            for _ in range(3):
                dialler.go.release()
        await until(lambda: dialler.done == 12)
        assert not any(one.why for one in agents)
        assert agents[0].waits == 0
        assert agents[11].waits > 3
        said = agents[11].waits
        await asyncio.sleep(0.15)
        assert agents[11].waits == said


async def test_a_dial_that_fails_makes_room_for_the_next() -> None:
    async with adopting() as (made, dialler):
        dialler.fails = True
        agents = come(made, 7)
        for _ in agents:
            dialler.go.release()
        await until(lambda: all(one.why for one in agents))
        assert all(b'"standby"' in one.said for one in agents)
        assert not made.adopted


async def test_who_goes_while_it_waits_makes_room_too() -> None:
    async with adopting() as (made, dialler):
        agents = come(made, 9)
        await until(lambda: dialler.under_way == 3)
        for one in agents[1:8]:
            one.finish("it went")
        for _ in range(2):
            dialler.go.release()
        await until(lambda: dialler.done == 2)
        assert not agents[0].why
        assert not agents[8].why
        assert made.adopted == 2
        assert not made._proved.waiting


@pytest.mark.parametrize("link", ["own", "enrol"])
async def test_strangers_have_few_dialled_for_and_keep_no_agent_waiting(link: str) -> None:
    async with adopting() as (made, dialler):
        strangers = come(made, 4, link)
        with pytest.raises(Refused) as caught:
            come(made, 1, link)
        assert caught.value.reason == "overloaded"
        await until(lambda: dialler.under_way == 2)
        agents = come(made, 3)
        await until(lambda: dialler.under_way == 5)
        assert [one.waits for one in agents] == [0, 0, 0]
        for _ in range(7):
            dialler.go.release()
        await until(lambda: dialler.done == 7)
        assert not any(one.why for one in strangers)
        come(made, 4, link)


async def test_the_end_ends_those_who_wait() -> None:
    async with adopting(replace(SMALL, adopting=1)) as (made, dialler):
        agents = come(made, 5)
        await until(lambda: dialler.under_way == 1)
    assert all(one.why for one in agents)
    assert not made.adopted

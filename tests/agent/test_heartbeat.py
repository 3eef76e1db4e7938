"""Heartbeats: at once, with news soon, and often enough; a slow server keeps no other waiting."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from agent.heartbeat import METHOD, Heartbeats, HeartbeatTiming
from agent.status import Status
from tests.agent.test_status import NODES, READY, STATUS
from tunnel.calls import CallFailed, Params

TIMING = HeartbeatTiming(every=0.3, least=0.05, look=0.005, answer=1.0, unknown=0.4)


class Told:
    """A session that writes down when it was told, and what."""

    def __init__(self, failure: CallFailed | None = None, hangs: bool = False) -> None:
        self.told: list[tuple[float, Params]] = []
        self.failure = failure
        self.hangs = hangs
        self.cancelled = False

    async def call(self, method: str, params: Params, timeout: float = 10.0) -> Params:
        assert method == METHOD
        self.told.append((asyncio.get_running_loop().time(), params["status"]))
        if self.hangs:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancelled = True
                raise
        if self.failure is not None:
            raise self.failure
        return {}


@asynccontextmanager
async def beating(
    status: Callable[[], Status | None], *sessions: Told, timing: HeartbeatTiming = TIMING, chance: float = 0.0
) -> AsyncIterator[None]:
    beats = Heartbeats(status, lambda: sessions, lambda: chance, timing)
    task = asyncio.create_task(beats.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_session_is_told_at_once_and_each_one_again_in_time() -> None:
    one, two = Told(), Told()
    async with beating(lambda: STATUS, one, two):
        await asyncio.sleep(0.05)
        assert len(one.told) == len(two.told) == 1
        assert one.told[0][1] == STATUS.params()
        await asyncio.sleep(0.7)
    assert len(one.told) == len(two.told) == 3


async def test_by_chance_they_come_a_fifth_sooner_and_never_later() -> None:
    early = Told()
    async with beating(lambda: STATUS, early, chance=1.0):
        await asyncio.sleep(0.6)
    gaps = [after[0] - before[0] for before, after in zip(early.told, early.told[1:], strict=False)]
    assert gaps
    assert all(0.2 < gap < 0.3 for gap in gaps)


async def test_news_waits_for_the_least_and_comes_as_it_is_then() -> None:
    status, told = [STATUS], Told()
    async with beating(lambda: status[0], told, timing=replace(TIMING, every=60.0)):
        await asyncio.sleep(0.02)
        for count in range(20):
            status[0] = replace(STATUS, nodes=replace(NODES, ready=count))
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
    assert 3 <= len(told.told) <= 7
    assert told.told[-1][1]["nodes"]["ready"] == 19


async def test_jitter_of_a_round_trip_is_not_told() -> None:
    took, told = [4], Told()
    async with beating(lambda: replace(STATUS, health=replace(READY, latency_ms=took[0])), told):
        for took[0] in (20, 4, 45, 10):
            await asyncio.sleep(0.06)
    assert len(told.told) == 1


async def test_nothing_is_told_before_there_is_anything_to_say() -> None:
    told = Told()
    async with beating(lambda: None, told):
        await asyncio.sleep(0.05)
    assert not told.told


async def test_a_session_that_does_not_answer_keeps_no_other_waiting_and_the_end_ends_it() -> None:
    slow, quick = Told(hangs=True), Told()
    async with beating(lambda: STATUS, slow, quick):
        await asyncio.sleep(0.5)
    assert len(quick.told) == 2
    assert slow.cancelled


async def test_an_older_server_is_asked_again_much_later() -> None:
    old = Told(CallFailed("unknown", "cluster.heartbeat is nothing that this side does"))
    async with beating(lambda: STATUS, old, timing=replace(TIMING, every=0.05)):
        await asyncio.sleep(0.3)
        assert len(old.told) == 1
        await asyncio.sleep(0.2)
        assert len(old.told) == 2


async def test_a_refusal_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    told = Told(CallFailed("heartbeat", "provider must be one word"))
    async with beating(lambda: STATUS, told, timing=replace(TIMING, every=0.05)):
        await asyncio.sleep(0.3)
    assert len(told.told) > 3
    assert capsys.readouterr().out.count("one word") == 1

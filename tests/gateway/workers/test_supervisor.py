"""The parent's logic, with children that are none."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import pytest

from gateway.workers import control, supervisor
from gateway.workers.supervisor import Supervisor, WorkerFailed


@dataclass
class Fake:
    """A child. It ends when it is told to stop, unless it is `stubborn`."""

    number: int
    heard: Callable[[bytes], None]
    stubborn: bool = False
    pid: int = 1
    told: list[bytes] = field(default_factory=list)
    killed: list[int] = field(default_factory=list)
    ended: asyncio.Future[int] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def tell(self, message: bytes) -> None:
        self.told.append(message)
        if message == control.STOP and not self.stubborn:
            self.end(0)

    def kill(self, number: int) -> None:
        self.killed.append(number)
        self.end(-number)

    async def wait(self) -> int:
        return await asyncio.shield(self.ended)

    def end(self, code: int) -> None:
        if not self.ended.done():
            self.ended.set_result(code)


class Family:
    """All that were ever begun, in order."""

    def __init__(self, count: int, patience: float = 0.0) -> None:
        self.begun: list[Fake] = []
        self.now = 0.0
        self.failures: list[OSError] = []
        self.supervisor = Supervisor(count, self._begin, lambda: self.now, patience)

    def _begin(self, number: int, heard: Callable[[bytes], None]) -> Fake:
        if self.failures:
            raise self.failures.pop()
        self.begun.append(Fake(number, heard))
        return self.begun[-1]

    def of(self, number: int) -> list[Fake]:
        return [one for one in self.begun if one.number == number]

    async def so_many(self, count: int) -> None:
        async with asyncio.timeout(5):
            while len(self.begun) < count:  # noqa: ASYNC110 -- a test looks on
                await asyncio.sleep(0.001)

    async def all_ready(self) -> None:
        for child in list(self.begun):
            child.heard(control.READY)
        await self.supervisor.ready()


@asynccontextmanager
async def running(count: int = 2, **more: float) -> AsyncIterator[tuple[Family, asyncio.Task[None]]]:
    family = Family(count, **more)
    task = asyncio.create_task(family.supervisor.run())
    await family.so_many(count)
    try:
        yield family, task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError, ExceptionGroup, WorkerFailed):
            await task


async def test_all_are_told_who_serves_as_each_begins_to() -> None:
    async with running(3) as (family, _):
        first, second, third = family.begun
        assert not second.told, "they wait for the first one's word"
        first.heard(control.READY)
        assert second.told == [control.alive([0])]
        second.heard(control.READY)
        third.heard(control.READY)
        await family.supervisor.ready()
        assert first.told[-1] == second.told[-1] == control.alive([0, 1, 2])


async def test_one_that_has_ended_is_begun_again_and_the_others_hear_of_both() -> None:
    async with running() as (family, _):
        await family.all_ready()
        first, second = family.begun
        second.end(-9)
        await family.so_many(3)
        assert first.told[-1] == control.alive([0])
        again = family.of(1)[1]
        assert again.told == [control.alive([0])], "it need not wait for the first one, which serves"
        again.heard(control.READY)
        assert first.told[-1] == again.told[-1] == control.alive([0, 1])


async def test_one_that_cannot_be_begun_now_is_tried_again_and_ends_nobody_else() -> None:
    async with running() as (family, task):
        await family.all_ready()
        family.failures += [OSError(12, "no memory")] * 2
        family.begun[1].end(-9)
        await family.so_many(3)
        assert not family.failures
        assert not task.done()
        assert not family.begun[0].killed


async def test_a_write_is_told_to_all_others() -> None:
    async with running(3) as (family, _):
        await family.all_ready()
        for child in family.begun:
            child.told.clear()
        family.begun[1].heard(control.WROTE)
        assert [child.told for child in family.begun] == [[control.WROTE], [], [control.WROTE]]
        family.supervisor.reopen()
        assert family.begun[1].told == [control.REOPEN]


async def test_one_that_never_came_up_ends_them_all() -> None:
    async with running() as (family, task):
        family.begun[0].heard(control.READY)
        family.begun[1].end(1)
        with pytest.raises(ExceptionGroup) as caught:
            await task
        assert "worker 1 does not start (exit code 1)" in str(caught.value.exceptions[0])
        assert family.begun[0].killed == [signal.SIGKILL]


async def test_stop_has_all_drain_and_returns_when_they_have_ended() -> None:
    async with running() as (family, task):
        await family.all_ready()
        family.begun[1].stubborn = True
        family.supervisor.stop()
        await asyncio.sleep(0.01)
        assert family.begun[0].told[-1] == family.begun[1].told[-1] == control.STOP
        assert not task.done()
        family.begun[1].end(0)
        await task
        assert len(family.begun) == 2, "none is begun again"


async def test_one_that_does_not_end_in_time_is_killed_and_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "MARGIN", 0.02)
    async with running() as (family, task):
        await family.all_ready()
        family.begun[0].stubborn = True
        family.supervisor.stop()
        with pytest.raises(WorkerFailed, match=r"worker 0 did not end in order \(signal 9\)"):
            await task


async def test_stop_while_they_begin_is_no_failure() -> None:
    async with running() as (family, task):
        family.begun[0].stubborn = True
        family.supervisor.stop()
        family.begun[0].end(-15)
        await task


async def test_to_be_cancelled_kills_them() -> None:
    async with running() as (family, task):
        await family.all_ready()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert [child.killed for child in family.begun] == [[signal.SIGKILL]] * 2

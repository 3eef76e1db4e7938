"""A new leader reads what the one before it wrote, and leads then."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gateway.replicas import leading
from gateway.replicas.leading import CaughtUp
from tests.support.attached import eventually
from tests.support.owners import Owners


class Reader:
    """Catches up when the test lets it; `fails` as often as that."""

    def __init__(self, fails: int = 0) -> None:
        self.fails = fails
        self.asked = 0
        self.done = asyncio.Event()

    async def __call__(self) -> bool:
        self.asked += 1
        await self.done.wait()
        self.fails -= 1
        return self.fails < 0


@asynccontextmanager
async def running(owners: Owners, reader: Reader) -> AsyncIterator[CaughtUp]:
    made = CaughtUp(owners, reader)
    task = asyncio.create_task(made.run())
    await asyncio.sleep(0)
    try:
        yield made
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert not owners._heard  # it listens no more


async def test_nobody_leads_until_everything_is_read() -> None:
    owners, reader = Owners(), Reader()
    async with running(owners, reader) as made:
        told: list[bool] = []
        made.subscribe(lambda: told.append(made.leading))
        owners.hold("one", 3)
        await eventually(lambda: reader.asked == 1)
        assert (made.leading, made.leader(), made.place("a").mine) == (False, "", True)
        reader.done.set()
        await eventually(lambda: made.leading)
        assert made.leader() == "one"
        assert told[-1] is True


async def test_who_loses_the_lead_meanwhile_does_not_lead() -> None:
    owners, reader = Owners(), Reader()
    async with running(owners, reader) as made:
        owners.hold("one", 3)
        await eventually(lambda: reader.asked == 1)
        owners.hold("two")
        reader.done.set()
        await asyncio.sleep(0.02)
        assert (made.leading, made.leader()) == (False, "two")


async def test_who_leads_again_reads_again() -> None:
    owners, reader = Owners(), Reader()
    reader.done.set()
    async with running(owners, reader) as made:
        owners.hold("one", 3)
        await eventually(lambda: made.leading)
        owners.hold("")
        assert not made.leading
        reader.done.clear()
        owners.hold("one", 4)
        await eventually(lambda: reader.asked == 2)
        assert not made.leading


async def test_what_cannot_be_read_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leading, "RETRY", 0.01)
    owners, reader = Owners(), Reader(fails=2)
    reader.done.set()
    async with running(owners, reader) as made:
        owners.hold("one", 3)
        await eventually(lambda: made.leading)
        assert reader.asked == 3

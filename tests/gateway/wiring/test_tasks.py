"""The server's own tasks: begun again after a failure, shown meanwhile, and gone at the end."""

from __future__ import annotations

import asyncio

from gateway.wiring.tasks import Tasks


async def test_a_task_that_fails_is_shown_and_begins_again() -> None:
    begun: list[int] = []
    well = asyncio.Event()

    async def run() -> None:
        begun.append(1)
        if len(begun) < 3:
            raise RuntimeError("a bug")
        well.set()
        await asyncio.Event().wait()

    async with Tasks(pause=0.01) as tasks:
        tasks.start("keys", run)
        async with asyncio.timeout(5):
            await well.wait()
        assert tasks.problem is not None
        assert "keys has failed" in tasks.problem


async def test_one_that_fails_harms_no_other_and_not_its_owner() -> None:
    async def fails() -> None:
        raise RuntimeError("a bug")

    lives = asyncio.Event()

    async def works() -> None:
        await asyncio.sleep(0.03)
        lives.set()

    async with Tasks(pause=0.001) as tasks:
        tasks.start("bad", fails)
        tasks.start("good", works)
        async with asyncio.timeout(5):
            await lives.wait()


async def test_the_end_cancels_all_and_waits_for_them() -> None:
    ended: list[str] = []

    async def run() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append("ended")

    async with Tasks() as tasks:
        tasks.start("one", run)
        tasks.start("two", run)
        await asyncio.sleep(0)
    assert ended == ["ended", "ended"]

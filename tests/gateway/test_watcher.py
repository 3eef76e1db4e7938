"""Whatever one look meets, the next one comes."""

from __future__ import annotations

import asyncio

import pytest

from gateway.watcher import Watcher


class Looked:
    """Something to look at, which can fail."""

    def __init__(self) -> None:
        self.count = 0
        self.error: Exception | None = None
        self.looked = asyncio.Event()

    async def until(self, count: int) -> None:
        async with asyncio.timeout(5):
            while self.count < count:
                self.looked.clear()
                await self.looked.wait()

    async def look(self) -> None:
        self.count += 1
        self.looked.set()
        if self.error is not None:
            raise self.error


async def test_a_look_that_fails_is_told_and_keeps_nothing_else_from_being_looked_at(
    caplog: pytest.LogCaptureFixture,
) -> None:
    first, second = Looked(), Looked()
    watcher = Watcher({"registry": first.look, "grants": second.look}, 0.001)
    first.error = OSError(24, "Too many open files")
    task = asyncio.create_task(watcher.run())
    await second.until(5)
    problem = watcher.problem("registry")
    assert problem is not None
    assert "Too many open files" in problem
    assert watcher.problem("grants") is None
    assert len([one for one in caplog.records if one.levelname == "ERROR"]) == 1
    first.error = None
    await first.until(first.count + 2)
    assert watcher.problem("registry") is None
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

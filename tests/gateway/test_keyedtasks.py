"""Tasks by key: one each, so many in all, and none left."""

from __future__ import annotations

import asyncio

import pytest

from gateway.keyedtasks import KeyedTasks
from tests.support.attached import nothing_left


class Work:
    """Goes on until it is let go."""

    def __init__(self) -> None:
        self.go, self.ended = asyncio.Event(), ""

    async def run(self) -> None:
        try:
            await self.go.wait()
            self.ended = "done"
        except asyncio.CancelledError:
            await asyncio.sleep(0)  # what it holds is given back first
            self.ended = "cancelled"
            raise


async def test_a_key_has_one_task_until_it_is_done() -> None:
    async with nothing_left():
        tasks, work = KeyedTasks[str](2), Work()
        tasks.begin("a", work.run(), "work a")
        assert ("a" in tasks, "b" in tasks, tasks.full) == (True, False, False)
        again = Work().run()
        with pytest.raises(AssertionError, match="again"):
            tasks.begin("a", again, "again")
        again.close()
        work.go.set()
        await tasks.settled()
        assert (work.ended, "a" in tasks) == ("done", False)
        await tasks.settled()


async def test_it_is_full_when_as_many_are_under_way_as_may_be() -> None:
    tasks, works = KeyedTasks[int](2), [Work(), Work()]
    for key, work in enumerate(works):
        assert not tasks.full
        tasks.begin(key, work.run(), f"work {key}")
    assert tasks.full
    works[0].go.set()
    await asyncio.wait_for(tasks.settled([0]), 1)
    assert not tasks.full
    await tasks.close()


async def test_who_waits_for_some_waits_for_no_other() -> None:
    tasks, one, other = KeyedTasks[str](2), Work(), Work()
    tasks.begin("one", one.run(), "one")
    tasks.begin("other", other.run(), "other")
    one.go.set()
    await asyncio.wait_for(tasks.settled(["one", "nobody"]), 1)
    assert (one.ended, other.ended) == ("done", "")
    await tasks.close()


async def test_who_stops_waiting_ends_nothing() -> None:
    tasks, work = KeyedTasks[str](2), Work()
    tasks.begin("a", work.run(), "work a")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(tasks.settled(), 0.01)
    assert (work.ended, "a" in tasks) == ("", True)
    await tasks.close()


async def test_at_its_end_all_have_ended() -> None:
    async with nothing_left():
        tasks, works = KeyedTasks[int](8), [Work() for _ in range(3)]
        for key, work in enumerate(works):
            tasks.begin(key, work.run(), f"work {key}")
        await asyncio.sleep(0)
        await tasks.close()
        assert [work.ended for work in works] == ["cancelled"] * 3
        assert not any(key in tasks for key in range(3))


async def test_one_that_fails_is_gone_as_well() -> None:
    async def fails() -> None:
        raise ZeroDivisionError

    tasks, work = KeyedTasks[str](2), Work()
    tasks.begin("fails", fails(), "fails")
    tasks.begin("a", work.run(), "work a")
    await tasks.close()
    assert "fails" not in tasks

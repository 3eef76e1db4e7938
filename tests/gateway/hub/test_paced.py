"""Work by name: once at a time, at a pace, and no more of it waits than there are names."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.hub.paced import Paced, Slots, Waiting


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 20)), max_size=60))
def test_each_name_waits_once_for_its_earliest_wish(asked: list[tuple[str, int]]) -> None:
    waiting = Waiting()
    for name, due in asked:
        waiting.ask(name, due)
    earliest = {name: min(due for one, due in asked if one == name) for name, _ in asked}
    assert len(waiting) == len(earliest)
    taken: dict[str, int] = {}
    for now in range(21):
        while (found := waiting.take(now)) is not None:
            taken[found] = now
    assert taken == earliest


def test_what_was_overtaken_does_not_pile_up() -> None:
    waiting = Waiting()
    for turn in range(10_000):
        waiting.ask("a", 1e9)
        waiting.ask("a", turn)
        assert waiting.take(turn) == "a"
    assert len(waiting._heap) < 100


async def test_a_name_is_worked_on_once_at_a_time_and_again_where_it_was_asked_for_meanwhile() -> None:
    begun, free = [], asyncio.Event()

    async def work(name: str) -> None:
        begun.append(name)
        await free.wait()

    loop = asyncio.get_running_loop()
    paced = Paced(work, loop.time, rate=1000.0, at_once=3, tick=0.005)
    running = loop.create_task(paced.run())
    for name in ("a", "a", "b"):
        paced.ask(name)
    await asyncio.sleep(0.05)
    assert sorted(begun) == ["a", "b"]
    for name in ("a", "c", "d"):
        paced.ask(name)
    await asyncio.sleep(0.03)
    assert sorted(begun) == ["a", "b", "c"], "a is under way, and d is one too many"
    free.set()
    await asyncio.sleep(0.05)
    assert sorted(begun) == ["a", "a", "b", "c", "d"]
    assert paced.idle
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_no_more_is_begun_in_a_second_than_the_rate_says() -> None:
    count = 0

    async def work(_name: str) -> None:
        nonlocal count
        count += 1

    loop = asyncio.get_running_loop()
    paced = Paced(work, loop.time, rate=100.0, tick=0.005)
    for number in range(1000):
        paced.ask(str(number))
    running = loop.create_task(paced.run())
    began = loop.time()
    await asyncio.sleep(0.3)
    assert count <= 100 * (loop.time() - began) + 2
    assert count > 5
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_bug_in_ones_work_ends_nobody_elses_and_the_end_ends_all(caplog: pytest.LogCaptureFixture) -> None:
    ended: list[str] = []

    async def work(name: str) -> None:
        if name == "bad":
            raise KeyError(name)
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(name)

    loop = asyncio.get_running_loop()
    paced = Paced(work, loop.time, rate=1000.0, tick=0.005)
    running = loop.create_task(paced.run())
    paced.ask("bad")
    paced.ask("good")
    await asyncio.sleep(0.05)
    assert not running.done()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert ended == ["good"]
    assert "go on later" in caplog.text


def test_who_waits_for_his_turn_keeps_it_and_there_are_no_more_than_the_rate_says() -> None:
    slots, now = Slots(10.0), 100.0
    assert slots.wait("a", now) == 0
    assert slots.wait("b", now) == pytest.approx(0.1)
    assert slots.wait("c", now) == pytest.approx(0.2)
    assert slots.wait("b", now + 0.05) == pytest.approx(0.05)
    assert slots.wait("b", now + 0.11) == 0
    assert slots.wait("d", now + 0.11) == pytest.approx(0.19)
    assert slots.wait("e", now + 60) == 0

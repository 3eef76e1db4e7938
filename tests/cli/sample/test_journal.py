"""The bounded sequence behind watches and logs."""

from __future__ import annotations

import asyncio

import pytest

from cli.sample.journal import Journal, Overrun


def test_a_reader_sees_what_came_since_its_position() -> None:
    journal: Journal[int] = Journal(10)
    for item in range(5):
        journal.append(item)
    assert journal.since(2) == [2, 3, 4]
    assert journal.since(5) == []


def test_a_reader_that_fell_behind_is_told() -> None:
    journal: Journal[int] = Journal(2)
    for item in range(5):
        journal.append(item)
    assert (journal.first, journal.dropped, journal.since(3)) == (3, 2, [3, 4])
    with pytest.raises(Overrun):
        journal.since(2)


async def test_all_who_wait_are_woken() -> None:
    journal: Journal[int] = Journal(2)
    waiting = [asyncio.ensure_future(journal.beyond(0)) for _ in range(3)]
    await asyncio.sleep(0)
    assert not any(task.done() for task in waiting)
    journal.append(1)
    await asyncio.wait_for(asyncio.gather(*waiting), 1)


async def test_the_end_wakes_too() -> None:
    journal: Journal[int] = Journal(2)
    waiting = asyncio.ensure_future(journal.beyond(0))
    await asyncio.sleep(0)
    journal.close()
    await asyncio.wait_for(waiting, 1)

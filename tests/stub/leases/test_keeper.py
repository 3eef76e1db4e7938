"""The task that keeps one Lease: how long it waits for answers, and what is left of it when it is cancelled."""

from __future__ import annotations

import asyncio

import pytest

from stub.leases.board import Board
from stub.leases.calls import answered
from stub.leases.clock import steady
from stub.leases.election import Election
from stub.leases.keeper import Keeper
from stub.leases.lease import Lease, LeasesUnavailable
from stub.leases.settings import Timing
from tests.support.leasestore import MemoryLeases

TIMES = Timing(2, 0.2, 0.05)


def keeper(store: MemoryLeases) -> Keeper:
    election = Election("kulvert", "a", TIMES, lambda: 0.0, contested=False)
    election.observe(None, steady())
    return Keeper(election, store, TIMES, steady, lambda: 1_000.0, lambda: None)


async def until(keeper: Keeper, holds: bool) -> None:
    for _ in range(1000):
        if keeper.election.holds(steady()) is holds:
            return
        await asyncio.sleep(0.005)
    raise TimeoutError


async def test_it_takes_and_renews() -> None:
    store = MemoryLeases()
    one = keeper(store)
    task = asyncio.create_task(one.run())
    await until(one, True)
    await asyncio.sleep(0.3)
    assert one.election.holds(steady())
    assert one.latency is not None
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(one, False)
    assert store.records.leases["kulvert"].holder == "a", "nothing is released behind one's back"


async def test_one_that_is_cancelled_while_it_writes_leaves_no_task() -> None:
    store = MemoryLeases()
    store.losing = True
    task = asyncio.create_task(keeper(store).run())
    await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_it_goes_on_when_the_store_is_back() -> None:
    store = MemoryLeases()
    one = keeper(store)
    task = asyncio.create_task(one.run())
    await until(one, True)
    epoch = one.election.epoch
    store.down = True
    await until(one, False)
    assert one.problem == "the store is cut off"
    store.down = False
    await until(one, True)
    assert one.election.epoch == epoch
    assert not one.problem
    task.cancel()


async def test_resigning_does_not_wait_for_a_store_that_is_away() -> None:
    store = MemoryLeases()
    one = keeper(store)
    task = asyncio.create_task(one.run())
    await until(one, True)
    store.losing = True
    async with asyncio.timeout(1):
        await one.resign()
    assert not one.election.holds(steady())
    task.cancel()


@pytest.mark.parametrize("delete", [False, True], ids=["released", "deleted"])
async def test_one_that_resigns_while_it_takes_lets_go_of_what_it_gets(delete: bool) -> None:
    store = MemoryLeases()
    one = keeper(store)
    answers = asyncio.Event()
    put = store.put

    async def slow(lease: Lease) -> Lease:
        written = await put(lease)
        await answers.wait()
        return written

    store.put = slow  # type: ignore[method-assign]  # its answer is late
    task = asyncio.create_task(one.run())
    await asyncio.sleep(0.02)
    resigning = asyncio.create_task(one.resign(delete=delete))
    await asyncio.sleep(0)
    answers.set()
    await resigning
    left = store.records.leases.get("kulvert")
    assert (left is None) if delete else (left is not None and not left.holder)
    assert not one.election.holds(steady())
    task.cancel()


async def test_no_call_waits_for_ever() -> None:
    with pytest.raises(LeasesUnavailable, match=r"no answer within 0\.01 s"):
        await answered(asyncio.sleep(10), 0.01)


def test_a_listener_that_fails_keeps_nobody_from_being_told(caplog: pytest.LogCaptureFixture) -> None:
    board, told = Board(), []

    def fails() -> None:
        raise RuntimeError("mine")

    board.subscribe(fails)
    end = board.subscribe(lambda: told.append(1))
    board.tell()
    end()
    end()
    board.tell()
    assert told == [1]
    assert "a listener to changes of ownership failed" in caplog.text


def test_the_clock_goes_on() -> None:
    assert steady() <= steady()

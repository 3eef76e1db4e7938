"""The first signal asks, the second cuts in."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import AsyncExitStack

import pytest
import uvloop

from cli.loop import INTERRUPTED, Stop, Stopped, run


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_asks_to_stop(number: signal.Signals) -> None:
    before = signal.signal(number, signal.SIG_DFL if number is signal.SIGHUP else signal.getsignal(number))
    seen = []

    async def main(stop: Stop) -> None:
        seen.append(isinstance(asyncio.get_running_loop(), uvloop.Loop))
        send(number)
        await stop.wait()

    try:
        assert run(main) == 0
    finally:
        signal.signal(number, before)
    assert seen == [True]


def test_a_second_one_does_not_wait() -> None:
    cleaned = []

    async def main(stop: Stop) -> None:
        try:
            send(signal.SIGTERM)
            await stop.wait()
            send(signal.SIGTERM)
            await asyncio.sleep(60)
        finally:
            cleaned.append(True)

    assert run(main) == INTERRUPTED
    assert cleaned == [True]


def test_handlers_are_gone_afterwards() -> None:
    before = signal.getsignal(signal.SIGTERM)

    async def main(stop: Stop) -> None:
        assert not stop.requested

    run(main)
    assert signal.getsignal(signal.SIGTERM) == before


async def test_work_goes_on_unless_stopped_and_is_cleaned_up_if_it_is() -> None:
    stop, cleaned = Stop(), []

    async def slow() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)
            stop.request()
            cleaned.append(True)

    async with stop.cuts():
        await asyncio.sleep(0)
    asyncio.get_running_loop().call_later(0.01, stop.request)
    with pytest.raises(Stopped):
        async with stop.cuts():
            await slow()
    assert cleaned == [True]
    with pytest.raises(Stopped):
        async with stop.cuts():
            await slow()
    stop.request()
    await asyncio.sleep(0)
    task = asyncio.current_task()
    assert task is not None
    assert not task.cancelling()


async def test_a_wish_after_the_work_cancels_nothing() -> None:
    stop = Stop()
    async with stop.cuts():
        pass
    stop.request()
    await asyncio.sleep(0.01)
    assert stop.requested


@pytest.mark.parametrize("asked", [False, True], ids=["by itself", "while it is cleaned up"])
async def test_a_failure_of_the_work_is_the_callers_unless_it_was_stopped(asked: bool) -> None:
    stop = Stop()

    async def work() -> None:
        async with stop.cuts():
            try:
                if asked:
                    stop.request()
                    await asyncio.sleep(60)
            finally:
                raise KeyError

    with pytest.raises(Stopped if asked else KeyError):
        await work()


async def test_what_is_entered_there_ends_with_who_goes_on() -> None:
    class Broken(BaseException): ...

    async def broken() -> None:
        raise Broken

    async def work(stop: Stop) -> None:
        async with AsyncExitStack() as stack:
            async with stop.cuts():
                group = await stack.enter_async_context(asyncio.TaskGroup())
            group.create_task(broken(), name="broken")
            await stop.wait()

    limit = asyncio.timeout(5)
    with pytest.raises(BaseExceptionGroup):
        async with limit:
            await work(Stop())
    assert not limit.expired()


def test_a_second_signal_cuts_into_the_cleaning_up_too() -> None:
    async def main(stop: Stop) -> None:
        async with stop.cuts():
            try:
                send(signal.SIGTERM)
                await asyncio.sleep(60)
            finally:
                send(signal.SIGTERM)
                await asyncio.sleep(60)

    assert run(main) == INTERRUPTED


def test_a_hangup_can_mean_something_else_even_under_nohup() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    heard = []

    async def main(stop: Stop) -> None:
        send(signal.SIGHUP)
        await asyncio.sleep(0.05)
        stop.on_hangup = lambda: heard.append(stop.requested)
        send(signal.SIGHUP)
        await asyncio.sleep(0.05)
        assert not stop.requested

    try:
        assert run(main) == 0
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
    assert heard == [False]

"""The first signal asks, the second cuts in."""

from __future__ import annotations

import asyncio
import os
import signal

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

    async def quick() -> int:
        return 7

    async def slow() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)
            cleaned.append(True)

    assert await stop.unless(quick()) == 7
    asyncio.get_running_loop().call_later(0.01, stop.request)
    with pytest.raises(Stopped):
        await stop.unless(slow())
    assert cleaned == [True]


async def test_a_failure_of_the_work_is_the_callers() -> None:
    async def broken() -> None:
        raise KeyError

    with pytest.raises(KeyError):
        await Stop().unless(broken())


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

"""The event loop of a command that runs until it is told to stop: uvloop, and signals: one drains, the next cuts."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import uvloop

T = TypeVar("T")

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
INTERRUPTED = 130


class Stopped(Exception):
    """The user asked to stop while something was still beginning."""


class Stop:
    """The wish to stop: the first signal's. `on_hangup` is what SIGHUP means instead, to a command that has no
    terminal: serve reopens its log.
    """

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self.on_hangup: Callable[[], None] | None = None

    @property
    def requested(self) -> bool:
        """Whether a signal has come."""
        return self._event.is_set()

    def request(self) -> None:
        """Stop in order."""
        self._event.set()

    async def wait(self) -> None:
        """Until a signal comes."""
        await self._event.wait()

    async def unless(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`, which a signal cancels. :raises Stopped: it did."""
        task = asyncio.create_task(work, name="until stopped")
        waiting = asyncio.create_task(self._event.wait(), name="wait for a signal")
        try:
            await asyncio.wait((task, waiting), return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise Stopped
            return task.result()
        finally:
            await _ended(task, waiting)


async def _ended(*tasks: asyncio.Task[Any]) -> None:
    """Cancel what is left, and let it clean up. What it raises then was asked for, or has been raised already."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def run(main: Callable[[Stop], Coroutine[Any, Any, None]]) -> int:
    """Run a command to its end; gives its exit code. The first signal asks it to stop, each further one cuts in."""
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_with_signals(main))
    except (asyncio.CancelledError, KeyboardInterrupt):
        return INTERRUPTED
    return 0


async def _with_signals(main: Callable[[Stop], Coroutine[Any, Any, None]]) -> None:
    loop, stop = asyncio.get_running_loop(), Stop()
    task = asyncio.current_task()
    assert task is not None

    def signalled() -> None:
        if stop.requested:
            task.cancel()
        stop.request()

    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN  # nohup

    def hung_up() -> None:
        if stop.on_hangup is not None:
            stop.on_hangup()
        elif not ignored:
            signalled()

    for number in SIGNALS:
        loop.add_signal_handler(number, hung_up if number is signal.SIGHUP else signalled)
    try:
        await main(stop)
    finally:
        for number in SIGNALS:
            loop.remove_signal_handler(number)
        if ignored:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)

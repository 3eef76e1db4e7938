"""The event loop of a command that runs until it is told to stop: uvloop, and signals: one drains, the next cuts."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import uvloop

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
        self._cut: Callable[[], None] = _nothing
        self.on_hangup: Callable[[], None] | None = None

    @property
    def requested(self) -> bool:
        """Whether a signal has come."""
        return self._event.is_set()

    def request(self) -> None:
        """Stop in order."""
        self._event.set()
        cut, self._cut = self._cut, _nothing  # once: by then it is being cut
        cut()

    async def wait(self) -> None:
        """Until a signal comes."""
        await self._event.wait()

    @asynccontextmanager
    async def cuts(self) -> AsyncIterator[None]:
        """What is under way in the block, a signal cancels, and it cleans up. :raises Stopped: it did.

        The block stays in its own task: what is entered there, and lives on, has an owner that lives on, too.
        """
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(0 if self.requested else None) as limit:
                self._cut = lambda: limit.reschedule(loop.time())
                try:
                    yield
                finally:
                    self._cut = _nothing
        except Exception as error:  # while it cleans up, too: it was asked for
            if limit.expired():
                raise Stopped from error
            raise


def _nothing() -> None: ...


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

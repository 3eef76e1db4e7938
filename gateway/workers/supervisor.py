"""The parent's part: it begins the workers, begins anew those that end, tells all who is alive, and ends them.

The first worker makes what has to be made once (keys, stores), so the others go on when it serves: until then they wait
for the parent's first word.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from gateway.workers import control
from gateway.workers.restarts import Restarts

_log = logging.getLogger(__name__)
MARGIN: Final = 10.0
"""Seconds beyond the settings' own for a worker to end, before it is killed."""


class WorkerFailed(Exception):
    """A worker has not come up, or not ended in order; the text says which."""


class Child(Protocol):
    """A worker's process. `tell` passes a message on; it is harmless where the process has ended."""

    pid: int

    def tell(self, message: bytes) -> None: ...
    def kill(self, number: int) -> None: ...
    async def wait(self) -> int: ...


Begin = Callable[[int, Callable[[bytes], None]], Child]
"""Begins the worker of a number; what that says goes to the other argument. Raises OSError."""


class Supervisor:
    """`run` keeps `count` workers until it is cancelled, or `stop` is called: then it returns when all have ended."""

    def __init__(self, count: int, begin: Begin, clock: Callable[[], float], patience: float) -> None:
        """`patience` is how long a worker may take to drain, by the settings."""
        self._count = count
        self._begin = begin
        self._clock = clock
        self._patience = patience + MARGIN
        self._children: dict[int, Child] = {}
        self._serving: set[int] = set()
        self._up = [asyncio.Event() for _ in range(count)]
        self._stopping = asyncio.Event()
        self._unruly: list[str] = []

    @property
    def serving(self) -> frozenset[int]:
        """The workers that serve now."""
        return frozenset(self._serving)

    async def ready(self) -> None:
        """Returns when each has served once."""
        for up in self._up:
            await up.wait()

    def reopen(self) -> None:
        """For SIGHUP."""
        self._tell(control.REOPEN)

    def stop(self) -> None:
        """Have all of them drain, and end."""
        self._stopping.set()
        self._tell(control.STOP)

    async def run(self) -> None:
        """Raises WorkerFailed where one does not come up the first time, or does not end in order."""
        async with asyncio.TaskGroup() as group:
            for number in range(self._count):
                group.create_task(self._keep(number), name=f"worker {number}")
        if self._unruly:
            raise WorkerFailed("; ".join(self._unruly))

    async def _keep(self, number: int) -> None:
        restarts = Restarts()
        while not self._stopping.is_set():
            code, served = await self._lived(number, restarts)
            if self._stopping.is_set():
                if code and served:
                    self._unruly.append(f"worker {number} did not end in order ({_shown(code)})")
                return
            if not self._up[number].is_set():
                raise WorkerFailed(f"worker {number} does not start ({_shown(code)})")
            pause = restarts.ended(self._clock())
            _log.error("a worker has ended, and is begun again", extra={"worker": number, "code": code, "in": pause})
            await self._or_stopping(asyncio.sleep(pause))

    async def _lived(self, number: int, restarts: Restarts) -> tuple[int, bool]:
        """As `_live`. That one cannot be begun again now, for want of memory or disk, ends nobody else."""
        try:
            return await self._live(number, restarts)
        except OSError as error:
            if not self._up[number].is_set():
                raise
            _log.error("a worker cannot be begun", extra={"worker": number, "error": error.strerror})
            return 1, False

    async def _live(self, number: int, restarts: Restarts) -> tuple[int, bool]:
        """From its beginning to its end; gives its exit code, and whether it served."""

        def heard(message: bytes) -> None:
            if message == control.READY:
                restarts.ready(self._clock())
                self._serving.add(number)
                self._up[number].set()
                self._tell_alive()
            elif message == control.WROTE:
                self._tell(message, but=number)

        child = self._children[number] = self._begin(number, heard)
        _log.info("a worker begins", extra={"worker": number, "pid": child.pid})
        try:
            if self._up[0].is_set():
                child.tell(control.alive(self._serving))
            return await self._end_of(child), number in self._serving
        finally:
            if number in self._serving:
                self._serving.discard(number)
                self._tell_alive()
            del self._children[number]

    async def _end_of(self, child: Child) -> int:
        ended = asyncio.ensure_future(child.wait())
        try:
            await self._or_stopping(ended)
            if not ended.done():
                await asyncio.wait((ended,), timeout=self._patience)
            if not ended.done():
                child.kill(signal.SIGKILL)
            return await ended
        except asyncio.CancelledError:
            child.kill(signal.SIGKILL)
            await asyncio.wait((ended,), timeout=self._patience)
            raise
        finally:
            ended.cancel()

    async def _or_stopping(self, what: Awaitable[object]) -> None:
        """Until the one or the other. What is awaited goes on where it is a future; a coroutine is cancelled."""
        given = asyncio.isfuture(what)
        future = asyncio.ensure_future(what)
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait((future, stopping), return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
            if not given:
                future.cancel()

    def _tell(self, message: bytes, but: int | None = None) -> None:
        for number, child in tuple(self._children.items()):
            if number != but:
                child.tell(message)

    def _tell_alive(self) -> None:
        if not self._stopping.is_set():
            self._tell(control.alive(self._serving))


def _shown(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"

"""The leader leads when it has read all that the one before it wrote: until then nobody does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from stub.leases.board import Board
from stub.ownership import Ownership, Place, Replica

RETRY: Final = 1.0


class CaughtUp:
    """An `Ownership` that leads a moment later than the one it is about. `run` is its life."""

    def __init__(self, inner: Ownership, caught_up: Callable[[], Awaitable[bool]]) -> None:
        self._inner = inner
        self._caught_up = caught_up
        self._ready = False
        self._news = asyncio.Event()
        self._board = Board()

    def place(self, cluster: str) -> Place:
        """See `stub.ownership.Ownership`."""
        return self._inner.place(cluster)

    @property
    def leading(self) -> bool:
        """See `stub.ownership.Ownership`."""
        return self._ready and self._inner.leading

    def leader(self) -> str:
        """See `stub.ownership.Ownership`."""
        return "" if self._inner.leading and not self._ready else self._inner.leader()

    def replicas(self) -> tuple[Replica, ...]:
        """See `stub.ownership.Ownership`."""
        return self._inner.replicas()

    def subscribe(self, changed: Callable[[], None]) -> Callable[[], None]:
        """See `stub.ownership.Ownership`."""
        return self._board.subscribe(changed)

    async def run(self) -> None:
        """Until it is cancelled."""
        end = self._inner.subscribe(self._changed)
        try:
            while True:
                self._news.clear()
                if self._inner.leading and not self._ready:
                    await self._begin()
                if self._inner.leading is self._ready:
                    await self._news.wait()
                else:
                    await asyncio.sleep(RETRY)
        finally:
            end()

    async def _begin(self) -> None:
        if await self._caught_up() and self._inner.leading:
            self._ready = True
            self._board.tell()

    def _changed(self) -> None:
        self._ready = self._ready and self._inner.leading
        self._news.set()
        self._board.tell()

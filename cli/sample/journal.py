"""A bounded sequence that grows at one end and can be waited for: a watch's history, a container's log.

Readers keep only a position, so a slow one costs nothing and is told when it fell behind; there is no queue
for each reader that could fill up.
"""

from __future__ import annotations

import asyncio
from collections import deque
from itertools import islice
from typing import Generic, TypeVar

T = TypeVar("T")


class Overrun(Exception):
    """What the reader wants next has been dropped already."""


class Journal(Generic[T]):
    def __init__(self, limit: int) -> None:
        self._items: deque[T] = deque(maxlen=limit)
        self._waiters: set[asyncio.Future[None]] = set()
        self.end = 0
        self.closed = False
        self.dropped: T | None = None

    @property
    def first(self) -> int:
        return self.end - len(self._items)

    def append(self, item: T) -> None:
        if len(self._items) == self._items.maxlen:
            self.dropped = self._items[0]
        self._items.append(item)
        self.end += 1
        self._wake()

    def since(self, position: int) -> list[T]:
        """Everything from a position on; Overrun if some of it is gone."""
        if position < self.first:
            raise Overrun
        tail = list(islice(reversed(self._items), self.end - position))
        tail.reverse()
        return tail

    async def beyond(self, position: int) -> None:
        """Return as soon as there is something at the position, or nothing will ever come."""
        while self.end <= position and not self.closed:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.add(waiter)
            try:
                await waiter
            finally:
                self._waiters.discard(waiter)

    def close(self) -> None:
        self.closed = True
        self._wake()

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

"""Tasks by what they are about: one for each key at a time, and so many in all."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Hashable, Iterable
from typing import Any, Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)


class KeyedTasks(Generic[Key]):
    """The owner of tasks that say themselves what went wrong. They end by `close`, if not before."""

    def __init__(self, most: int) -> None:
        """`most` of them at a time: see `full`."""
        self._most = most
        self._tasks: dict[Key, asyncio.Task[None]] = {}

    def __contains__(self, key: Key) -> bool:
        return key in self._tasks

    @property
    def full(self) -> bool:
        """As many are under way as there may be: begin no other."""
        return len(self._tasks) >= self._most

    def begin(self, key: Key, work: Coroutine[Any, Any, None], name: str) -> None:
        """Begin a task, for a key that has none."""
        assert key not in self._tasks, name
        self._tasks[key] = task = asyncio.get_running_loop().create_task(work, name=name)
        task.add_done_callback(lambda _task: self._tasks.pop(key))

    async def settled(self, keys: Iterable[Key] | None = None) -> None:
        """Waits for what is under way now: of all keys, or of some. Whoever stops waiting ends nothing."""
        wanted = self._tasks if keys is None else keys
        if tasks := [self._tasks[key] for key in wanted if key in self._tasks]:
            await asyncio.wait(tasks)

    async def close(self) -> None:
        """Ends them, and waits until they have."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

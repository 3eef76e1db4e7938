"""The server's own tasks, and their owner. One that fails is a bug: it is logged, shown on the health page, and begun
again after a while, because what it keeps fresh (keys, grants, tokens) would grow old unnoticed without it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

_log = logging.getLogger(__name__)
PAUSE = 5.0
"""Seconds before a task that failed is begun again."""


class Tasks:
    """An asynchronous context: at its end all tasks are cancelled, and have ended."""

    def __init__(self, pause: float = PAUSE) -> None:
        self._pause = pause
        self._group = asyncio.TaskGroup()
        self._tasks: list[asyncio.Task[None]] = []
        self._problems: dict[str, str] = {}

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await self._group.__aexit__(kind, value, trace)

    @property
    def problem(self) -> str | None:
        """Which of them have failed, and were not well since."""
        return "; ".join(self._problems.values()) or None

    def start(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        """Begin a task. `run` is called anew after a failure; one that returns is done."""
        self._tasks.append(self._group.create_task(self._kept(name, run), name=name))

    async def _kept(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                return await run()
            except Exception as error:
                _log.error("%s has failed, and begins again in %g s", name, self._pause, exc_info=error)
                self._problems[name] = f"{name} has failed: see the log"
            await asyncio.sleep(self._pause)

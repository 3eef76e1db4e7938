"""The agent inside `up`: a task that begins with its block and ends with it."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from agent.app import AgentApp
from agent.settings import Settings
from cli.failures import Failed

PATIENCE = 1.0
"""Seconds for what is under way when a first look ends: a `logs -f` in another window never ends by itself."""


class RunningAgent:
    """An async context manager."""

    def __init__(self, settings: Settings, version: str) -> None:
        self._app = AgentApp(settings, version, {})
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._app.run(), name="the agent")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._task is not None
        self._app.stop()
        try:
            await asyncio.wait((self._task,), timeout=PATIENCE)
        finally:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def ended(self) -> None:
        """Wait for an end that nobody asked for. :raises Failed: it came."""
        assert self._task is not None
        await asyncio.wait((self._task,))
        await self._task
        raise Failed("the agent has ended by itself: --log-level info says more")

"""Looks at what others may change, as long as the server runs. Whatever one look meets, the next one comes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias

_log = logging.getLogger(__name__)
Look: TypeAlias = Callable[[], Awaitable[None]]


class Watcher:
    """One task for all `looks`; `problem` says of each why the last one failed, for the health page."""

    def __init__(self, looks: Mapping[str, Look], interval: float) -> None:
        self._looks = looks
        self._interval = interval
        self._problems: dict[str, str] = {}

    def problem(self, name: str) -> str | None:
        """Why what is in force may be older than what there is."""
        return self._problems.get(name)

    @property
    def any_problem(self) -> str | None:
        """All of them."""
        return "; ".join(self._problems.values()) or None

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            await asyncio.sleep(self._interval)
            await self.look()

    async def look(self) -> None:
        """Each once."""
        for name, look in self._looks.items():
            try:
                await look()
            except Exception as error:
                self._failed(name, error)
            else:
                if self._problems.pop(name, None) is not None:
                    _log.info("%s can be looked at again", name)

    def _failed(self, name: str, error: Exception) -> None:
        problem = f"{name} cannot be looked at, what is in force may be old: {error or type(error).__name__}"
        if self._problems.get(name) != problem:  # once, and not once a second
            _log.error("%s cannot be looked at, what is in force may be old", name, exc_info=error)
        self._problems[name] = problem

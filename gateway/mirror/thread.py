"""The file's thread, and a bell: what the mirror's tasks share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from gateway.mirror.file import MirrorFile

T = TypeVar("T")


class FileThread:
    """The one thread in which the file is used: a transaction keeps no request waiting."""

    def __init__(self, file: MirrorFile) -> None:
        self._file = file
        self._executor = ThreadPoolExecutor(1, "mirror")

    async def __call__(self, use: Callable[[MirrorFile], T]) -> T:
        """Runs it to its end even if whoever waits is cancelled. Raises RegistryError."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, use, self._file)

    async def close(self) -> None:
        """Waits for what is under way, and closes the file."""
        await asyncio.get_running_loop().run_in_executor(None, self._executor.shutdown)
        self._file.close()


class Bell:
    """Wakes all who wait for it at this moment."""

    def __init__(self) -> None:
        self._rung = asyncio.Event()

    def ring(self) -> None:
        """Something has changed."""
        before, self._rung = self._rung, asyncio.Event()
        before.set()

    async def heard(self) -> None:
        """Waits for the next ring."""
        await self._rung.wait()

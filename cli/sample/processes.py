"""All local processes of the sample, so that none is left behind and there are never too many."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from cli.sample.process import Command, Process, start
from cli.sample.status import internal, too_many

LIMIT = 64


class Processes:
    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._running: set[Process] = set()

    @property
    def count(self) -> int:
        return len(self._running)

    @asynccontextmanager
    async def run(self, command: Command) -> AsyncIterator[Process]:
        """A process for the length of a block: when that ends, all that was started ends too."""
        process = self._start(command)
        self._running.add(process)
        try:
            yield process
        finally:
            process.close()
            try:
                await process.wait()
            finally:
                self._running.discard(process)

    async def close(self) -> None:
        running = list(self._running)
        for process in running:
            process.close()
        await asyncio.gather(*(process.wait() for process in running))

    def _start(self, command: Command) -> Process:
        if len(self._running) >= self._limit:
            raise too_many(f"the sample runs {self._limit} processes already")
        _check_exists(command)
        try:
            return start(command)
        except (OSError, ValueError) as error:
            raise internal(f"error executing command in container: {error}") from error


def _check_exists(command: Command) -> None:
    """Looked up with the command's own PATH, before a terminal's wrapper would hide that it is missing."""
    program = command.argv[0]
    path = program if program.startswith("/") else str(command.cwd / program)
    found = shutil.which(path) if "/" in program else shutil.which(program, path=command.env.get("PATH", ""))
    if found is None:
        why = f'exec: "{program}": executable file not found in $PATH'
        raise internal(f"error executing command in container: {why}")

"""Reading and writing file descriptors without blocking: pipes and terminals alike.

asyncio's subprocess pipes would do for pipes, but they know no terminals, and whether they are closed with
their process differs between event loops; a descriptor that we own is closed when we say so.
"""

from __future__ import annotations

import asyncio
import errno
import os

CHUNK = 32 * 1024


class Fd:
    """A descriptor, and whoever waits for it. Closing it wakes the waiter."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self._waiter: asyncio.Future[None] | None = None

    @property
    def closed(self) -> bool:
        return self._fd < 0

    def fileno(self) -> int:
        return self._fd

    def close(self) -> None:
        if self.closed:
            return
        fd, self._fd = self._fd, -1
        self._forget(fd)
        _wake(self._waiter)
        os.close(fd)

    async def _ready(self) -> None:
        fd = self._fd
        waiter = self._waiter = asyncio.get_running_loop().create_future()
        self._watch(fd, waiter)
        try:
            await waiter
        finally:
            if not self.closed:
                self._forget(fd)

    def _watch(self, fd: int, waiter: asyncio.Future[None]) -> None:
        raise NotImplementedError

    def _forget(self, fd: int) -> None:
        raise NotImplementedError


class FdReader(Fd):
    async def read(self) -> bytes:
        """The next bytes, empty at the end; a terminal whose other side has gone ends as a pipe does."""
        while not self.closed:
            try:
                return os.read(self._fd, CHUNK)
            except BlockingIOError:
                await self._ready()
            except OSError as error:
                if error.errno == errno.EIO:
                    return b""
                raise
        return b""

    def _watch(self, fd: int, waiter: asyncio.Future[None]) -> None:
        asyncio.get_running_loop().add_reader(fd, _wake, waiter)

    def _forget(self, fd: int) -> None:
        asyncio.get_running_loop().remove_reader(fd)


class FdWriter(Fd):
    async def write(self, data: bytes) -> None:
        """All of the data, or BrokenPipeError; waits while the process does not read."""
        view = memoryview(data)
        while view:
            if self.closed:
                raise BrokenPipeError
            try:
                view = view[os.write(self._fd, view) :]
            except BlockingIOError:
                await self._ready()

    def _watch(self, fd: int, waiter: asyncio.Future[None]) -> None:
        asyncio.get_running_loop().add_writer(fd, _wake, waiter)

    def _forget(self, fd: int) -> None:
        asyncio.get_running_loop().remove_writer(fd)


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)

"""Forwards TCP in small steps, so that TLS records arrive in pieces."""

from __future__ import annotations

import asyncio
from types import TracebackType


class Splitter:
    """From its own port to `port`; what comes back comes `step` bytes at a time."""

    def __init__(self, port: int, step: int) -> None:
        self._target = port
        self._step = step
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> int:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._writers:
            writer.transport.abort()
        await self._server.wait_closed()
        await asyncio.sleep(0.01)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        near, far = await asyncio.open_connection("127.0.0.1", self._target)
        self._writers += [writer, far]
        for work in (self._copy(reader, far, 65_536), self._copy(near, writer, self._step)):
            self._tasks.add(asyncio.get_running_loop().create_task(work))

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, step: int) -> None:
        while data := await reader.read(step):
            writer.write(data)
            await writer.drain()
            await asyncio.sleep(0.002)
        writer.close()

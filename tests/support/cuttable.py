"""A TCP relay between an agent and its server, which a test cuts (a reset) or freezes (packets that are dropped)."""

from __future__ import annotations

import asyncio
import socket
import struct
from types import TracebackType
from typing import Self

_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER that makes a close a RST."""


class Cuttable:
    """An async context. `port` is where the agent goes; `target` is the server's port on loopback."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._server: asyncio.Server | None = None
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._closing: set[asyncio.StreamWriter] = set()
        """They may have bytes left that nobody takes."""
        self._ended = False

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=1 << 18)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._ended = True
        self._server.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.cut()
        for writer in self._closing:
            writer.transport.abort()
        await asyncio.sleep(0.02)

    @property
    def port(self) -> int:
        """Where it listens."""
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    @property
    def connections(self) -> int:
        """How many go through it now."""
        return len(self._writers) // 2

    def cut(self) -> None:
        """Reset every connection, at both ends."""
        for writer in self._writers:
            sock: socket.socket | None = writer.get_extra_info("socket")
            if sock is None or sock.fileno() < 0:  # closed already (uvloop, asyncio)
                continue
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()
        self._writers.clear()

    def freeze(self) -> None:
        """Nothing passes from now on, new connections included; everything stays open."""
        self._flowing.clear()

    def thaw(self) -> None:
        """End a freeze: what waited goes on."""
        self._flowing.set()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._ended:
            writer.transport.abort()  # it had been accepted already
            return
        self._writers.add(writer)
        self._own(asyncio.ensure_future(self._join(reader, writer)))

    def _own(self, task: asyncio.Future[None]) -> None:
        assert isinstance(task, asyncio.Task)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._flowing.wait()
        try:
            near, far = await asyncio.open_connection("127.0.0.1", self._target, limit=1 << 18)
        except OSError:
            self._writers.discard(writer)
            writer.transport.abort()
            return
        self._writers.add(far)
        self._own(asyncio.ensure_future(self._copy(near, writer)))
        await self._copy(reader, far)

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1 << 16):
                await self._flowing.wait()
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        await self._flowing.wait()
        self._writers.discard(writer)
        self._closing.add(writer)
        writer.close()

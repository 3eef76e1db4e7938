"""A small CONNECT proxy, which joins a client to whatever the test says the target is."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Coroutine
from types import TracebackType


class ConnectProxy:
    """Answers CONNECT with `answer`; after a 200 it copies both ways to `port` on loopback, whatever was
    asked for.
    """

    def __init__(
        self, port: int, answer: bytes = b"HTTP/1.1 200 OK\r\n\r\n", tls: ssl.SSLContext | None = None
    ) -> None:
        self._target = port
        self._answer = answer
        self._tls = tls
        self.heads: list[bytes] = []
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> ConnectProxy:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self._tls)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._writers:
            writer.transport.abort()
        await self._server.wait_closed()
        await asyncio.sleep(0.01)

    @property
    def url(self) -> str:
        """For HTTPS_PROXY, without a user."""
        assert self._server is not None
        return f"http{'s' if self._tls else ''}://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        self._own(self._serve(reader, writer))

    def _own(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(self._answer)
        if b" 200 " not in self._answer.split(b"\r\n")[0] or not self._target:
            await reader.read()
            return
        near, far = await asyncio.open_connection("127.0.0.1", self._target)
        self._writers.append(far)
        self._own(_copy(near, writer))
        await _copy(reader, far)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    writer.close()

"""A scripted API server over loopback TLS, which says exactly the bytes that a test wants, when it wants
them.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from types import TracebackType


@dataclass
class Client:
    """One accepted connection, as a script sees it."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    number: int
    seen: bytearray = field(default_factory=bytearray)

    async def head(self) -> bytes:
        """The next request head; everything read is kept in `seen`."""
        data = await self.reader.readuntil(b"\r\n\r\n")
        self.seen += data
        return data

    async def exactly(self, count: int) -> bytes:
        """So many bytes of a body."""
        data = await self.reader.readexactly(count)
        self.seen += data
        return data

    async def until(self, end: bytes) -> bytes:
        """Bytes up to an ending."""
        data = await self.reader.readuntil(end)
        self.seen += data
        return data

    async def rest(self) -> bytes:
        """Everything until the agent closes."""
        try:
            data = await self.reader.read()
        except ConnectionError:
            data = b""
        self.seen += data
        return data

    async def say(self, data: bytes) -> None:
        """Send bytes."""
        self.writer.write(data)
        await self.writer.drain()

    async def body(self, head: bytes) -> bytes:
        """A request's body, by its framing."""
        if found := re.search(rb"content-length: (\d+)", head):
            return await self.exactly(int(found[1]))
        body = b""
        while size := int(await self.until(b"\r\n"), 16):
            body += (await self.exactly(size + 2))[:-2]
        await self.until(b"\r\n")
        return body


Script = Callable[[Client], Awaitable[None]]


class ScriptedServer:
    """Runs a script for each connection, which is closed when the script returns."""

    def __init__(self, context: ssl.SSLContext, script: Script) -> None:
        self._context = context
        self.script = script
        self.clients: list[Client] = []
        self.errors: list[BaseException] = []
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> ScriptedServer:
        self._server = await asyncio.start_server(
            self._accept, "127.0.0.1", 0, ssl=self._context, ssl_shutdown_timeout=0.1, limit=1 << 20
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for client in self.clients:
            client.writer.transport.abort()
        await self._server.wait_closed()
        await asyncio.sleep(0.01)
        if value is None and self.errors:
            raise self.errors[0]

    @property
    def port(self) -> int:
        """Where it listens."""
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = Client(reader, writer, len(self.clients))
        self.clients.append(client)
        task = asyncio.get_running_loop().create_task(self._run(client))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, client: Client) -> None:
        try:
            await self.script(client)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        except AssertionError as error:
            self.errors.append(error)
        client.writer.close()


def answering(*answers: bytes) -> Script:
    """A script that reads a request's head, answers with these bytes, and does so again for the next."""

    async def script(client: Client) -> None:
        for answer in answers:
            head = await client.head()
            if b"content-length: " in head or b"transfer-encoding: " in head:
                await client.body(head)
            await client.say(answer)
        await client.rest()

    return script

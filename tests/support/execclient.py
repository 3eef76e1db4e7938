"""`kubectl exec` as a light client, many in one process: WebSocket messages that begin with a channel's number
(v5.channel.k8s.io).
"""

from __future__ import annotations

import asyncio
import json
import ssl
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlencode

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

STDIN, STDOUT, STDERR, ERROR = 0, 1, 2, 3
PROTOCOL = Subprotocol("v5.channel.k8s.io")


@dataclass
class Exec:
    """One command in a pod. An async context: inside it the command runs."""

    url: str
    tls: ssl.SSLContext
    pod: str
    command: tuple[str, ...]
    out: bytearray = field(default_factory=bytearray)
    err: bytearray = field(default_factory=bytearray)
    status: dict[str, Any] = field(default_factory=dict)

    async def __aenter__(self) -> Self:
        query = [("stdin", "true"), ("stdout", "true"), ("stderr", "true"), *(("command", one) for one in self.command)]
        url = f"{self.url.replace('https', 'wss')}/api/v1/namespaces/default/pods/{self.pod}/exec?{urlencode(query)}"
        self._connection: ClientConnection = await connect(
            url, ssl=self.tls, subprotocols=[PROTOCOL], compression=None, max_size=None, open_timeout=60.0, proxy=None
        )
        self._changed = asyncio.Event()
        self._reading = asyncio.create_task(self._read())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
        await self._connection.close()

    async def said(self, size: int) -> None:
        """Wait until so many bytes of stdout are there. Raises EOFError where it ends before."""
        while len(self.out) < size:
            if self._reading.done():
                raise EOFError(f"{len(self.out)} bytes of {size}, and {self.status}, {bytes(self.err[:300])!r}")
            self._changed.clear()
            await asyncio.wait(
                (self._reading, asyncio.ensure_future(self._changed.wait())), return_when="FIRST_COMPLETED"
            )

    async def say(self, text: bytes) -> None:
        """To its stdin."""
        await self._connection.send(bytes([STDIN]) + text)

    async def end(self) -> None:
        """Wait until the command has ended."""
        await asyncio.shield(self._reading)

    async def _read(self) -> None:
        try:
            async for message in self._connection:
                assert isinstance(message, bytes)
                self._take(message[0], message[1:])
                self._changed.set()
        except ConnectionClosed:
            pass

    def _take(self, channel: int, data: bytes) -> None:
        if channel == ERROR:
            self.status = json.loads(data)
        else:
            (self.out if channel == STDOUT else self.err).extend(data)

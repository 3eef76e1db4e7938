"""A plain HTTP/1.1 client over keep-alive connections, which says exactly what it had to do to get an answer.

What it does by itself, as Go's net/http and client-go do, and counts in `Retries`:

- `connect`: a connection could not be made (refused, or ended within TCP's or TLS's handshake). Nothing was written, so
  any request is tried again, on another connection, up to ten times with a pause that grows to half a second.
- `stale`: a connection that had served a request before ended without a byte of an answer. A read is sent again, on
  another connection; a write is not: it fails (net/http, `shouldRetryRequest`).
- `told`: a 429 or 5xx with Retry-After. Any request is sent again after that time, up to ten times (client-go,
  `withRetry`).

Not counted: a kept connection whose end was seen before the next request was written. `Connection: close` is followed.
Each count is a failure to a client that never tries again.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import h11

MOST = 10
"""Tries of one request beyond the first (client-go's maxRetries)."""
READS = ("GET", "HEAD")


class Failed(Exception):
    """No answer, or not all of it. `begun`: its head had come."""

    def __init__(self, why: str, *, begun: bool = False) -> None:
        super().__init__(why)
        self.begun = begun


class Unsent(Failed):
    """Nothing of the request was written."""


@dataclass(slots=True)
class Retries:
    """See the module."""

    connect: int = 0
    stale: int = 0
    told: int = 0

    @property
    def all(self) -> int:
        """What would have failed without."""
        return self.connect + self.stale + self.told


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole one."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes


class Line:
    """One connection: one request after another."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
        self.served = 0

    @property
    def usable(self) -> bool:
        """Whether another request may be written."""
        idle = self._http.our_state is h11.IDLE and self._http.their_state is h11.IDLE
        return idle and not self._reader.at_eof() and not self._writer.is_closing()

    async def ask(self, method: str, target: str, host: str, body: bytes) -> tuple[int, dict[bytes, bytes]]:
        """Send a request; gives the head of its answer. Raises Failed."""
        headers = [("host", host), ("user-agent", "load"), ("accept", "application/json")]
        if body:
            headers += [("content-type", "application/json"), ("content-length", str(len(body)))]
        data = self._http.send(h11.Request(method=method, target=target, headers=headers)) or b""
        if body:
            data += self._http.send(h11.Data(data=body)) or b""
        data += self._http.send(h11.EndOfMessage()) or b""
        try:
            self._writer.write(data)
            await self._writer.drain()
        except OSError as error:
            raise Failed(f"the request was not taken: {error}") from error
        while True:
            head = await self._event(begun=False)
            if isinstance(head, h11.Response):
                return head.status_code, dict(head.headers)

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body that follows. Raises Failed where it is cut."""
        while True:
            event = await self._event(begun=True)
            if isinstance(event, h11.Data):
                yield bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                break
        self.served += 1
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()

    async def _event(self, *, begun: bool) -> object:
        try:
            while (event := self._http.next_event()) is h11.NEED_DATA:
                self._http.receive_data(await self._reader.read(65_536))
        except (OSError, h11.RemoteProtocolError) as error:
            raise Failed(f"the connection ended: {error}", begun=begun) from error
        if event is h11.PAUSED or isinstance(event, h11.ConnectionClosed):
            raise Failed("the connection ended", begun=begun)
        return event

    def close(self) -> None:
        """End it now."""
        self._writer.transport.abort()


class Client:
    """One user with one connection at a time, as it is kept. `url` is where everything is below."""

    def __init__(self, url: str, tls: ssl.SSLContext, *, fresh: bool = False, patience: float = 40.0) -> None:
        """`fresh`: a connection for each request. `patience`: seconds for one request, with all its tries."""
        parts = urlsplit(url)
        assert parts.hostname
        self._where = (parts.hostname, parts.port or 443)
        self._host = parts.netloc
        self._base = parts.path.rstrip("/")
        self._tls = tls
        self._fresh = fresh
        self._patience = patience
        self._line: Line | None = None
        self.retries = Retries()

    async def ask(self, method: str, path: str, body: bytes = b"") -> Answer:
        """A whole answer of any status. Raises Failed."""
        try:
            async with asyncio.timeout(self._patience), self.open(method, path, body) as (status, headers, line):
                return Answer(status, headers, b"".join([piece async for piece in line.pieces()]))
        except TimeoutError:
            raise Failed(f"no answer within {self._patience:g} s") from None

    @asynccontextmanager
    async def open(
        self, method: str, path: str, body: bytes = b""
    ) -> AsyncIterator[tuple[int, dict[bytes, bytes], Line]]:
        """An answer's head, and its body to be read. Raises Failed."""
        self._line, line = None, self._line
        if line is not None and (self._fresh or not line.usable):
            line.close()
            line = None
        line, status, headers = await self._begin(line, method, self._base + path, body)
        try:
            yield status, headers, line
        except BaseException:
            line.close()
            raise
        self._line = line

    def close(self) -> None:
        """End the connection."""
        self._line, line = None, self._line
        if line is not None:
            line.close()

    async def _begin(
        self, line: Line | None, method: str, target: str, body: bytes
    ) -> tuple[Line, int, dict[bytes, bytes]]:
        told = 0
        while True:
            line = line if line is not None and line.usable else await self._connect()
            try:
                status, headers = await line.ask(method, target, self._host, body)
            except Failed:
                line.close()
                if not line.served or method not in READS:
                    raise
                self.retries.stale += 1
                line = None
                continue
            except BaseException:
                line.close()
                raise
            after = headers.get(b"retry-after", b"")
            if not ((status == 429 or status >= 500) and after.isdigit() and told < MOST):
                return line, status, headers
            told += 1
            self.retries.told += 1
            async for _ in line.pieces():
                pass
            await asyncio.sleep(int(after))

    async def _connect(self) -> Line:
        for attempt in range(MOST + 1):
            try:
                reader, writer = await asyncio.open_connection(*self._where, ssl=self._tls, limit=1 << 22)
            except OSError as error:  # of TLS, too
                if attempt == MOST:
                    raise Unsent(f"no connection: {error}") from error
            else:
                return Line(reader, writer)
            self.retries.connect += 1
            await asyncio.sleep(min(0.02 * 2**attempt, 0.5))
        raise AssertionError

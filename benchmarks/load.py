"""The load driver: keep-alive GETs over a number of TLS connections, on uvloop, with little work of its own."""

from __future__ import annotations

import asyncio
import re
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import cast
from urllib.parse import urlsplit

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)


class LoadError(Exception):
    """An answer that was no success, or a connection that ended."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where GETs go, and with which headers (`name: value`); with `paths`, to these in turn instead of the url's."""

    url: str
    tls: ssl.SSLContext
    headers: Sequence[str] = ()
    paths: Sequence[str] = ()

    def requests(self) -> Iterator[bytes]:
        """The bytes of one request after another, as kubectl sends them."""
        return cycle([self._request(path) for path in self.paths or [urlsplit(self.url).path]])

    def _request(self, path: str) -> bytes:
        parts = urlsplit(self.url)
        lines = [
            f"GET {path} HTTP/1.1",
            f"Host: {parts.netloc}",
            "User-Agent: kubectl/v1.36.3 (linux/amd64) kubernetes/abcdef1",
            "Accept: application/json",
            "Kubectl-Command: kubectl get",
            "Kubectl-Session: 8f4e6c0e-3b2d-4b0a-8d6c-5a9f0e6b7c1d",
            *self.headers,
        ]
        return ("\r\n".join(lines) + "\r\n\r\n").encode()


@dataclass(frozen=True, slots=True)
class Result:
    """Latencies in seconds, sorted, and how long all of it took."""

    latencies: tuple[float, ...]
    seconds: float

    def percentile(self, share: float) -> float:
        """The latency that `share` of the requests stayed within."""
        return self.latencies[min(len(self.latencies) - 1, int(share * len(self.latencies)))]

    @property
    def rate(self) -> float:
        """Requests in a second."""
        return len(self.latencies) / self.seconds


async def run(target: Target, connections: int, requests: int, ready: Callable[[], None] = lambda: None) -> Result:
    """`requests` GETs in all over `connections` connections, each sending the next when it has its answer.

    `ready` is called when all connections are there: handshakes are not part of what a request costs.
    """
    loop = asyncio.get_running_loop()
    parts = urlsplit(target.url)
    assert parts.hostname
    assert parts.port
    crew = _Crew(target.requests(), requests)
    where = (parts.hostname, parts.port)
    for _ in range(connections):
        await loop.create_connection(lambda: _Connection(crew), *where, ssl=target.tls, server_hostname=parts.hostname)
    ready()
    began = time.perf_counter()
    for worker in crew.workers:
        worker.ask()
    await crew.done
    seconds = time.perf_counter() - began
    for worker in crew.workers:
        worker.transport.close()
    return Result(tuple(sorted(crew.latencies)), seconds)


class _Crew:
    def __init__(self, texts: Iterator[bytes], requests: int) -> None:
        self.texts = texts
        self.left = requests
        self.waiting = requests
        self.workers: list[_Connection] = []
        self.latencies: list[float] = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def answered(self, latency: float) -> None:
        self.latencies.append(latency)
        self.waiting -= 1
        if not self.waiting and not self.done.done():
            self.done.set_result(None)

    def failed(self, why: str) -> None:
        if not self.done.done():
            self.done.set_exception(LoadError(why))


class _Connection(asyncio.Protocol):
    """It trusts the framing of the answers: whether that is right is for the tests to show."""

    transport: asyncio.Transport

    def __init__(self, crew: _Crew) -> None:
        self._crew = crew
        self._held = b""
        self._end = 0
        self._began = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._crew.workers.append(self)

    def ask(self) -> None:
        """Send the next request, if one is left."""
        if self._crew.left:
            self._crew.left -= 1
            self._began = time.perf_counter()
            self.transport.write(next(self._crew.texts))

    def data_received(self, data: bytes) -> None:
        self._held = self._held + data if self._held else data
        if not self._end:
            self._read_head()
        if self._complete():
            self._held, self._end = b"", 0
            self._crew.answered(time.perf_counter() - self._began)
            self.ask()

    def _complete(self) -> bool:
        if self._end < 0:  # the head itself may end in these five bytes
            return self._held.endswith(b"0\r\n\r\n", -self._end)
        return 0 < self._end <= len(self._held)

    def _read_head(self) -> None:
        end = self._held.find(b"\r\n\r\n")
        if end < 0:
            return
        if not self._held.startswith(b"HTTP/1.1 200 "):
            self._crew.failed(self._held[:600].decode(errors="replace"))
            return
        length = _LENGTH.search(self._held, 0, end + 2)
        if length:
            self._end = end + 4 + int(length[1])
        elif _CHUNKED.search(self._held, 0, end + 2):
            self._end = -(end + 4)
        else:
            self._crew.failed("an answer without framing")

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._crew.waiting:
            self._crew.failed(f"a connection ended: {exc}")

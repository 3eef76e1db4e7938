"""A load balancer as a Service is one: new connections go in turn to whoever is ready, those that are there stay.

`python -m tests.support.balancer PORT CA HOST:PORT[=HOST:READYPORT]…`: a process of its own, so that nothing of it
waits for a test. Readiness is asked of /readyz (of the users' port behind `=`, where the port itself has none) five
times a second, as endpoints would follow a probe.
"""

from __future__ import annotations

import asyncio
import ssl
import sys
from pathlib import Path
from typing import cast

import uvloop

EVERY = 0.2


class Backend:
    """One endpoint."""

    def __init__(self, text: str) -> None:
        self.address, _, ready = text.partition("=")
        self.asked = ready or self.address
        self.ready = False

    async def look(self, tls: ssl.SSLContext) -> None:
        """Ask once."""
        host, _, port = self.asked.rpartition(":")
        try:
            async with asyncio.timeout(1.0):
                reader, writer = await asyncio.open_connection(host, int(port), ssl=tls, server_hostname="localhost")
                writer.write(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                self.ready = (await reader.readline()).startswith(b"HTTP/1.1 200")
                writer.close()
        except (OSError, TimeoutError):
            self.ready = False


class Half(asyncio.Protocol):
    """One side of a connection that is passed on."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.other: Half | None = None
        self._early = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def join(self, other: Half) -> None:
        """What comes here goes there."""
        self.other = other
        if self._early:
            other.transport.write(self._early)

    def data_received(self, data: bytes) -> None:
        if self.other is None:
            self._early += data
        else:
            self.other.transport.write(data)

    def pause_writing(self) -> None:
        if self.other is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None:
            self.other.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.other is not None:
            self.other.transport.close()


class Front(Half):
    """A client's side."""

    def __init__(self, balancer: Balancer) -> None:
        super().__init__()
        self._balancer = balancer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._balancer.tasks.add(task := asyncio.get_running_loop().create_task(self._connect()))
        task.add_done_callback(self._balancer.tasks.discard)

    async def _connect(self) -> None:
        for backend in self._balancer.turn():
            host, _, port = backend.address.rpartition(":")
            try:
                _, back = await asyncio.get_running_loop().create_connection(Half, host, int(port))
            except OSError:
                continue
            back.join(self)
            self.join(back)
            return
        self.transport.abort()


class Balancer:
    """All of it."""

    def __init__(self, backends: list[Backend], tls: ssl.SSLContext) -> None:
        self._backends = backends
        self._tls = tls
        self._next = 0
        self.tasks: set[asyncio.Task[None]] = set()

    def turn(self) -> list[Backend]:
        """Those that are ready, beginning with whose turn it is."""
        self._next += 1
        ready = [one for one in self._backends if one.ready]
        at = self._next % len(ready) if ready else 0
        return ready[at:] + ready[:at]

    async def run(self, port: int) -> None:
        """Until it is killed."""
        await asyncio.get_running_loop().create_server(lambda: Front(self), "127.0.0.1", port)
        while True:
            await asyncio.gather(*(backend.look(self._tls) for backend in self._backends))
            await asyncio.sleep(EVERY)


def main() -> None:
    """See the module."""
    port, ca, *backends = sys.argv[1:]
    tls = ssl.create_default_context(cadata=Path(ca).read_text())
    uvloop.run(Balancer([Backend(one) for one in backends], tls).run(int(port)))


if __name__ == "__main__":
    main()

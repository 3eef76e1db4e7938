"""The floor: a bare TLS splice on uvloop, without parsing, framing or features. Two in a row are what any two Python
processes with three TLS legs cost at least.

`python -m benchmarks.splice CHAIN PORT TARGET_PORT CA`: what comes to PORT goes to TARGET_PORT, and back.
"""

from __future__ import annotations

import asyncio
import ssl
import sys
from typing import cast

import uvloop


class _Far(asyncio.Protocol):
    def __init__(self, near: _Near) -> None:
        self._near = near

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._near.joined(cast(asyncio.Transport, transport))

    def data_received(self, data: bytes) -> None:
        self._near.transport.write(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._near.transport.close()


class _Near(asyncio.Protocol):
    transport: asyncio.Transport

    def __init__(self, port: int, tls: ssl.SSLContext) -> None:
        self._port = port
        self._tls = tls
        self._far: asyncio.Transport | None = None
        self._held: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        loop = asyncio.get_running_loop()
        where = ("127.0.0.1", self._port)
        joining = loop.create_connection(lambda: _Far(self), *where, ssl=self._tls, server_hostname=where[0])
        self._joining = loop.create_task(joining, name="splice: join")

    def joined(self, far: asyncio.Transport) -> None:
        self._far = far
        for data in self._held:
            far.write(data)

    def data_received(self, data: bytes) -> None:
        if self._far is not None:
            self._far.write(data)
        else:
            self._held.append(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._far is not None:
            self._far.close()


async def serve(chain: str, port: int, target: int, ca: str) -> None:
    """Listen until killed."""
    server_tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_tls.load_cert_chain(chain)
    client_tls = ssl.create_default_context(cafile=ca)
    server = await asyncio.get_running_loop().create_server(
        lambda: _Near(target, client_tls), "127.0.0.1", port, ssl=server_tls
    )
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]))

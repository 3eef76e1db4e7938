"""Strangers at the agents' door, for `benchmarks.scale`: `python -m benchmarks.scale_flood PORT RATE`.

By turns: one who says nothing, one whose TLS handshake stops after its first message, one who sends rubbish, and one
who goes as far as the WebSocket and never says hello. Each stays for as long as the server lets it. Ends with
its stdin.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import sys
from contextlib import suppress
from typing import cast

import uvloop

from gateway.rlimit import raise_descriptors
from tunnel.carriage import WebSocketClient

HOST = "127.0.0.1"


def insecure() -> ssl.SSLContext:
    """Strangers do not care who answers."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def client_hello() -> bytes:
    """The first message of a handshake."""
    out = ssl.MemoryBIO()
    tls = insecure().wrap_bio(ssl.MemoryBIO(), out, server_hostname=HOST)
    with suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return out.read()


class _Stranger(asyncio.Protocol):
    def __init__(self, first: bytes) -> None:
        self._first = first

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self._first:
            cast(asyncio.Transport, transport).write(self._first)


async def _knock(port: int, kind: int, hello: bytes) -> None:
    loop, tls = asyncio.get_running_loop(), None
    first = (b"", hello, os.urandom(200), b"")[kind]
    if kind == 3:
        tls, first = insecure(), WebSocketClient(f"{HOST}:{port}").begin()
    with suppress(OSError):
        await loop.create_connection(lambda: _Stranger(first), HOST, port, ssl=tls)


async def _main(port: int, rate: float) -> None:
    loop, hello, number = asyncio.get_running_loop(), client_hello(), 0
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    ended, began = loop.create_task(reader.read()), loop.time()
    knocks: set[asyncio.Task[None]] = set()
    while not ended.done():
        while number < (loop.time() - began) * rate:
            knock = loop.create_task(_knock(port, number % 4, hello))
            knocks.add(knock)
            knock.add_done_callback(knocks.discard)
            number += 1
        await asyncio.sleep(1 / rate)


if __name__ == "__main__":
    raise_descriptors()
    uvloop.run(_main(int(sys.argv[1]), float(sys.argv[2])))

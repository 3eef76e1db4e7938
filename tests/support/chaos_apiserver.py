"""An API server that knows its own name, and writes down every request with its time.

`python -m tests.support.chaos_apiserver NAME CHAIN PORT RECORD`: over TLS on 127.0.0.1. Every answer names the cluster;
a watch says something every second, and never ends by itself. A line of JSON `[steady time, method, target]` is written
before a request is answered; what an agent asks for itself is not.
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import sys
import time
from typing import cast

import uvloop

TICK = 1.0
_OWN = (b"/readyz", b"/livez", b"/version", b"/api/v1/nodes", b"/api/v1/namespaces/kube-system")


class ApiServer:
    """What all connections share."""

    def __init__(self, name: str, record: str) -> None:
        self.name = name
        self._file = os.open(record, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self.watches: dict[Connection, int] = {}

    def note(self, method: bytes, target: bytes) -> None:
        """It has come."""
        line = json.dumps([time.monotonic(), method.decode(), target.decode("latin-1")])
        os.write(self._file, line.encode() + b"\n")

    def answer(self, method: bytes, target: bytes) -> bytes:
        """To anything but a watch."""
        status = b"201 Created" if method == b"POST" else b"200 OK"
        said: dict[str, object] = {"kind": "ConfigMap", "cluster": self.name, "target": target.decode("latin-1")}
        if target.startswith(b"/version"):
            said = {"gitVersion": "v1.36.0", "major": "1", "minor": "36"}
        elif target.startswith(b"/api/v1/nodes"):
            said = {"kind": "NodeList", "apiVersion": "v1", "metadata": {}, "items": []}
        elif target.startswith(b"/api/v1/namespaces/kube-system"):
            said = {"kind": "Namespace", "metadata": {"name": "kube-system", "uid": f"uid-of-{self.name}"}}
        body = json.dumps(said).encode()
        head = b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (status, len(body))
        return head + body

    async def tick(self) -> None:
        """All watches, for ever."""
        while True:
            await asyncio.sleep(TICK)
            for connection in tuple(self.watches):
                self.watches[connection] += 1
                connection.event(self.watches[connection])


class Connection(asyncio.Protocol):
    """One of an agent's."""

    def __init__(self, server: ApiServer) -> None:
        self._server = server
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.watches.pop(self, None)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while b"\r\n\r\n" in self._buffer:
            head, _, rest = self._buffer.partition(b"\r\n\r\n")
            length = _length(head)
            if len(rest) < length:
                return
            self._buffer = rest[length:]
            method, target, _ = head.split(b" ", 2)
            self._request(method, target)

    def _request(self, method: bytes, target: bytes) -> None:
        if not target.startswith(_OWN):
            self._server.note(method, target)
        if b"watch=1" in target:
            self._transport.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
            )
            self._server.watches[self] = 0
            self.event(0)
        else:
            self._transport.write(self._server.answer(method, target))

    def event(self, number: int) -> None:
        """One, with its number."""
        said = {"type": "MODIFIED", "object": {"cluster": self._server.name, "tick": number}}
        text = json.dumps(said).encode() + b"\n"
        self._transport.write(b"%x\r\n%b\r\n" % (len(text), text))


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


async def _serve(name: str, chain: str, port: int, record: str) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(chain)
    api = ApiServer(name, record)
    await asyncio.get_running_loop().create_server(lambda: Connection(api), "127.0.0.1", port, ssl=tls)
    print("ready: an API server", flush=True)
    await api.tick()


if __name__ == "__main__":
    uvloop.run(_serve(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]))

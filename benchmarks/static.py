"""The cheapest upstream that an agent takes for an API server: what remains is the cost of the way there.

`python -m benchmarks.static CHAIN PORT`: answers every GET with one Pod of about 3 kB, but for what an agent asks.
"""

from __future__ import annotations

import asyncio
import ssl
import sys
from typing import cast

import orjson
import uvloop

POD = orjson.dumps({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "demo", "annotations": {"a": "x" * 2990}}})
NAMESPACE = orjson.dumps({"kind": "Namespace", "metadata": {"name": "kube-system", "uid": "benchmark"}})


def _answer(body: bytes) -> bytes:
    head = [
        "HTTP/1.1 200 OK",
        "Audit-Id: 8f4e6c0e-3b2d-4b0a-8d6c-5a9f0e6b7c1d",
        "Cache-Control: no-cache, private",
        "Content-Type: application/json",
        "X-Kubernetes-Pf-Flowschema-Uid: 8f4e6c0e-3b2d-4b0a-8d6c-5a9f0e6b7c1d",
        "X-Kubernetes-Pf-Prioritylevel-Uid: 8f4e6c0e-3b2d-4b0a-8d6c-5a9f0e6b7c1d",
        "Date: Fri, 20 Nov 2026 11:00:00 GMT",
        f"Content-Length: {len(body)}",
    ]
    return ("\r\n".join(head) + "\r\n\r\n").encode() + body


ANSWERS = {b"/readyz": _answer(b"ok"), b"/api/v1/namespaces/kube-system": _answer(NAMESPACE)}
USUAL = _answer(POD)


class _Static(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        for request in data.split(b"\r\n\r\n")[:-1]:
            self._transport.write(ANSWERS.get(request.split(b" ", 2)[1], USUAL))


async def serve(chain: str, port: int) -> None:
    """Listen until killed."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(chain)
    server = await asyncio.get_running_loop().create_server(_Static, "127.0.0.1", port, ssl=tls)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1], int(sys.argv[2])))

"""Whether a 101 is the one that was asked for. Anything else that called itself 101 would open a raw pipe
to the API server.

Sources: RFC 6455 §4.1 for websockets; SPDY/3.1 as apimachinery's `httpstream/spdy` does it.
"""

from __future__ import annotations

import base64
import hashlib

from agent.policy import CheckedRequest
from tunnel.errors import HeadError
from tunnel.head import Headers, ResponseHead

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def check_switch(request: CheckedRequest, head: ResponseHead) -> None:
    """Raises HeadError unless the 101 answers this very request. Its Connection field was checked by the
    reader.
    """
    if request.upgrade is None:
        raise HeadError("a 101 that nobody asked for", 502)
    if head.upgrade != request.upgrade:
        raise HeadError("a 101 to another protocol than was asked for", 502)
    if request.upgrade == b"websocket":
        _check_accept(request.headers, head)
        _check_chosen(request.headers, head, b"sec-websocket-protocol")
    else:
        _check_chosen(request.headers, head, b"x-stream-protocol-version")


def _check_accept(asked: Headers, head: ResponseHead) -> None:
    key = next((value for name, value in asked if name == b"sec-websocket-key"), None)
    if key is None:
        return
    digest = hashlib.sha1(key + _GUID, usedforsecurity=False).digest()
    if head.get_all(b"sec-websocket-accept") != [base64.b64encode(digest)]:
        raise HeadError("a 101 whose Sec-WebSocket-Accept does not answer the key", 502)


def _check_chosen(asked: Headers, head: ResponseHead, field: bytes) -> None:
    """At most one sub-protocol, and one that was offered."""
    chosen = head.get_all(field)
    offered = {part.strip(b" \t") for name, value in asked if name == field for part in value.split(b",")}
    if len(chosen) > 1 or not offered.issuperset(chosen):
        raise HeadError("a 101 with a sub-protocol that was not offered", 502)

"""A checked request as HTTP/1.1 for the API server: its head with the agent's credential, and its body's
framing.

The framing is what keeps a client's bytes inside its own request: with a client certificate, a byte past it
would be the beginning of a request of the agent's own.
"""

from __future__ import annotations

from agent.access import ApiServer
from agent.policy import CheckedRequest
from tunnel.body import LAST_CHUNK
from tunnel.errors import HeadError, TunnelError
from tunnel.head import render_request_head
from tunnel.known import KnownLines
from tunnel.ports import Headers


class BodyMismatch(TunnelError):
    """The body is not as long as its head said."""


def render(request: CheckedRequest, server: ApiServer, authorization: bytes | None) -> bytes:
    """The head's bytes. `authorization` is the agent's own, which a pass-through never gets. Raises HeadError rather
    than write something that could be read in another way.
    """
    target = server.prefix + request.target
    if request.pass_through:
        authorization = None
    if request.known is None:
        return render_request_head(request.method, target, _headers(request, request.headers, server, authorization))
    tail, lines = _tail(request, request.known, server, authorization)
    head = b"%b %b HTTP/1.1\r\naudit-id: %b\r\n%b" % (request.method, target, request.headers[0][1], tail)
    if head.count(b"\n") != lines + 2 or head.count(b" ", 0, len(head) - len(tail)) != 3:
        raise HeadError("a head that cannot be written", 500)
    return head


def _headers(request: CheckedRequest, own: Headers, server: ApiServer, authorization: bytes | None) -> Headers:
    """The request's own, and what the agent says: where to, its credential, and the framing on this connection."""
    headers = [(b"host", server.authority), *own]
    if authorization is not None:
        headers.append((b"authorization", authorization))
    if request.upgrade is not None:
        headers.append((b"connection", b"Upgrade"))
    elif request.length is None:
        headers.append((b"transfer-encoding", b"chunked"))
    return headers


def _tail(
    request: CheckedRequest, known: KnownLines, server: ApiServer, authorization: bytes | None
) -> tuple[bytes, int]:
    """(all lines but the first and the Audit-ID, their number): made once for a client that sends the same again."""
    slot = ("tail", request.length is None)
    made_for, tail, lines = known.derived.get(slot, (None, b"", 0))
    if made_for != (server, authorization):
        whole = render_request_head(b"GET", b"/", _headers(request, known.headers, server, authorization))
        tail = whole.partition(b"\r\n")[2]
        lines = tail.count(b"\n")
        known.derived[slot] = ((server, authorization), tail, lines)
    return tail, lines


class RequestBody:
    """Frames a body: by the length that its head gave (`None`: in chunks)."""

    __slots__ = ("_left",)

    def __init__(self, length: int | None) -> None:
        self._left = length

    def frame(self, data: bytes) -> bytes:
        """Bytes as they go out. Raises BodyMismatch for more than was announced."""
        if self._left is None:
            return b"%x\r\n%b\r\n" % (len(data), data)
        self._left -= len(data)
        if self._left < 0:
            raise BodyMismatch("more body than the request's content-length says")
        return data

    def end(self) -> bytes:
        """What ends the body. Trailers of a request are not passed on. Raises BodyMismatch for less than
        was announced.
        """
        if self._left is None:
            return LAST_CHUNK
        if self._left:
            raise BodyMismatch("less body than the request's content-length says")
        return b""

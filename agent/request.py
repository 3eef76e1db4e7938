"""A checked request as HTTP/1.1 for the API server: its head with the agent's credential, and its body's
framing.

The framing is what keeps a client's bytes inside its own request: with a client certificate, a byte past it
would be the beginning of a request of the agent's own.
"""

from __future__ import annotations

from agent.access import ApiServer
from agent.policy import CheckedRequest
from tunnel.body import LAST_CHUNK
from tunnel.errors import TunnelError
from tunnel.head import render_request_head


class BodyMismatch(TunnelError):
    """The body is not as long as its head said."""


def render(request: CheckedRequest, server: ApiServer, authorization: bytes | None) -> bytes:
    """The head's bytes. Raises HeadError rather than write something that could be read in another way."""
    headers = [(b"host", server.authority), *request.headers]
    if authorization is not None:
        headers.append((b"authorization", authorization))
    if request.upgrade is not None:
        headers.append((b"connection", b"Upgrade"))
    elif request.length is None:
        headers.append((b"transfer-encoding", b"chunked"))
    return render_request_head(request.method, server.prefix + request.target, headers)


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

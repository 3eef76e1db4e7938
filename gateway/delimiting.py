"""How an answer's body ends on a user's connection: decided anew for each answer, whatever framing its cluster used."""

from __future__ import annotations

import enum

from tunnel.errors import HeadError
from tunnel.ports import Headers, ResponseBlock

_LENGTH_DIGITS = 18


class Delimiting(enum.Enum):
    """How the body that goes to the client ends."""

    NONE = 0
    LENGTH = 1
    CHUNKED = 2
    CLOSE = 3
    OPAQUE = 4


def delimit(head: ResponseBlock, method: bytes, version: bytes) -> tuple[Delimiting, int, Headers]:
    """The way, with LENGTH how many bytes, and the headers that say so (RFC 9112, 6.3).

    A content-length is kept where it is one number and fits what the head says. Raises HeadError (502) otherwise.
    """
    length = _length(head.headers)
    status = head.status
    if method == b"HEAD" or status in (204, 304):
        told = [] if length is None or status == 204 else [(b"content-length", b"%d" % length)]
        return Delimiting.NONE, 0, told
    if head.ended:
        if length:
            raise HeadError("a content-length, and no body", 502)
        length = 0
    if length is not None:
        return Delimiting.LENGTH, length, [(b"content-length", b"%d" % length)]
    if version == b"1.0":
        return Delimiting.CLOSE, 0, []
    return Delimiting.CHUNKED, 0, [(b"transfer-encoding", b"chunked")]


def _length(headers: Headers) -> int | None:
    lengths = [value for name, value in headers if name == b"content-length"]
    if not lengths:
        return None
    if len(lengths) > 1 or not lengths[0].isdigit() or len(lengths[0]) > _LENGTH_DIGITS:
        raise HeadError("a malformed content-length", 502)
    return int(lengths[0])

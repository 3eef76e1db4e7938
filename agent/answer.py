"""The API server's answer to one request, sans-IO: strict heads, strict framing, and where it ends, to the
byte.

The user's connection at the gateway may carry another cluster's answer next. So a hostile or broken API
server gets no say in framing: what it sends is decoded here, and whatever does not fit ends in a HeadError,
and the connection with it.
"""

from __future__ import annotations

from agent.policy import CheckedRequest
from agent.upgrade import check_switch
from tunnel.block import FORBIDDEN, FORBIDDEN_IN_REQUESTS, encode_trailers
from tunnel.body import Body, body_for
from tunnel.errors import HeadError
from tunnel.head import Headers, ResponseHead, ResponseReader, connection_tokens
from tunnel.limits import HeadLimits
from tunnel.ports import ResponseBlock

_DROPPED = FORBIDDEN | {b"upgrade"}


class AnswerReader:
    """Fed with all that comes after a request. `feed` gives payload; heads that came before it wait in
    `heads`.
    """

    __slots__ = (
        "_body", "_interims", "_limits", "_reader", "_request", "begun", "done", "heads", "keep_alive", "switched",
    )  # fmt: skip

    def __init__(self, request: CheckedRequest, limits: HeadLimits) -> None:
        self._request = request
        self._limits = limits
        self._reader = ResponseReader(limits, request.method)
        self._body: Body | None = None
        self._interims = 0
        self.begun = False
        """A byte of an answer has come: the request must not be sent again."""
        self.heads: list[ResponseBlock] = []
        self.keep_alive = False
        self.done = False
        self.switched = False
        """A checked 101: payload is opaque from here on."""

    def feed(self, data: bytes) -> list[bytes]:
        """The payload in these bytes. Raises HeadError for what is malformed, forbidden, or more than the
        answer.
        """
        body = self._body
        if body is None:
            if self.switched:
                return [data]
            self.begun = True
            data = self._read_heads(data)
            body = self._body
            if body is None:
                return [data] if data else []
        payload = body.feed(data) if data else []
        if body.done:
            if body.rest:
                raise HeadError("bytes after the end of an answer", 502)
            self.done = True
        return payload

    def finish(self) -> None:
        """The API server has said all: an answer without a length ends so, any other raises HeadError."""
        if self._body is None:
            raise HeadError("the connection closed inside a head" if self.begun else "the connection closed", 502)
        self._body.eof()
        self.done = True

    def trailers(self) -> bytes:
        """The trailer block of an answer that is done."""
        found = self._body.trailers if self._body is not None else None
        return encode_trailers([t for t in found if t[0] not in FORBIDDEN_IN_REQUESTS]) if found else b""

    def _read_heads(self, data: bytes) -> bytes:
        """Interim heads and the final one; what follows it is returned."""
        reader = self._reader
        while (head := reader.feed(data)) is not None:
            data = reader.rest
            if head.status >= 200:
                self._final(head)
                return data
            if head.status == 101:
                self._switch(head)
                return data
            self._interim(head)
            if not data:
                break
        return b""

    def _interim(self, head: ResponseHead) -> None:
        self._interims += 1
        if self._interims > self._limits.interim_responses:
            raise HeadError("too many interim responses", 502)
        self.heads.append(ResponseBlock(head.status, _bodyless(head), interim=True))

    def _final(self, head: ResponseHead) -> None:
        if head.status > 599:
            raise HeadError("a status beyond 599", 502)
        framing = head.framing
        self._body = body_for(framing, self._limits)
        # After an upgrade that was asked for, the other end may be past HTTP: never again a request there.
        self.keep_alive = head.keep_alive and self._request.upgrade is None
        headers = _passed(head) if head.status != 204 else _bodyless(head)
        self.heads.append(ResponseBlock(head.status, headers, ended=framing.empty))

    def _switch(self, head: ResponseHead) -> None:
        check_switch(self._request, head)
        self.switched = True
        protocol = head.get(b"upgrade") or b""
        self.heads.append(ResponseBlock(101, [*_bodyless(head), (b"upgrade", protocol)], upgrade=True))


def _passed(head: ResponseHead) -> Headers:
    """What may go on: nothing that is hop-by-hop, or named in Connection."""
    dropped = _DROPPED
    if head.get(b"connection") is not None:
        dropped |= connection_tokens(head.headers) - {b"content-length"}
    return [pair for pair in head.headers if pair[0] not in dropped]


def _bodyless(head: ResponseHead) -> Headers:
    """Of an answer that never has a body: a content-length there means nothing (RFC 9110 §8.6)."""
    return [pair for pair in _passed(head) if pair[0] != b"content-length"]

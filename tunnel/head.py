"""HTTP/1.1 heads as values, and the two readers that make them from a peer's bytes (RFC 9112 §2 to §7).

llhttp reads heads only: it cannot be told that an answer belongs to a HEAD, and it ignores lengths on an
upgrade. So it is fed whole heads, never a body, and what it accepts has to pass tunnel.headcheck as well."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from httptools import HttpRequestParser, HttpResponseParser

from tunnel.errors import HeadError
from tunnel.headcheck import PLAIN_FIELDS, Fields, Headers, careful_fields, plain_fields, single
from tunnel.headframing import UNTIL_CLOSE, UPGRADE, Framing, FramingKind, declared, of_request, of_response
from tunnel.headline import (
    BAD_ANSWER,
    METHODS,
    connection_of,
    expects_continue,
    host_of,
    request_line,
    status_line,
)
from tunnel.headreader import HeadReader
from tunnel.headwrite import connection_tokens, end_to_end, render_request_head, render_response_head
from tunnel.limits import HeadLimits

__all__ = [
    "Framing",
    "FramingKind",
    "Headers",
    "RequestHead",
    "RequestReader",
    "ResponseHead",
    "ResponseReader",
    "connection_tokens",
    "end_to_end",
    "render_request_head",
    "render_response_head",
]

_REQUEST_LINE = b"(" + b"|".join(METHODS) + rb") (/[\x21\x22\x24-\x7e]*+) HTTP/1\.([01])\r\n"
_PLAIN_LINE = re.compile(_REQUEST_LINE).match
_PLAIN_REQUEST = re.compile(_REQUEST_LINE + PLAIN_FIELDS).match
_PLAIN_RESPONSE = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2}) ([\x20-\x7e]*+)\r\n" + PLAIN_FIELDS).match
_SINGLE = frozenset(b"host content-length transfer-encoding upgrade expect authorization content-type".split())
_BAD_REQUEST = 400


@dataclass(slots=True, eq=False)
class _Head:
    """What requests and answers share. Read only: `get` would not see a change. Values stay out of the repr,
    since they hold tokens."""

    headers: Headers = field(repr=False)
    version: bytes
    keep_alive: bool
    framing: Framing
    upgrade: bytes | None
    _index: dict[bytes, bytes] = field(repr=False)
    derived: dict[object, Any] = field(repr=False)
    """What its reader's user has made of these very fields. Heads of one connection with the same fields share it."""

    def get(self, name: bytes) -> bytes | None:
        """The first value of a field, by its lower-cased name."""
        return self._index.get(name)

    def get_all(self, name: bytes) -> list[bytes]:
        """Every value of a field, in order."""
        return [value for found, value in self.headers if found == name]


@dataclass(slots=True, eq=False)
class RequestHead(_Head):
    """A request's head; `target` is byte for byte the client's, `path` and `query` are its halves, still
    raw."""

    method: bytes
    target: bytes = field(repr=False)
    path: bytes = field(repr=False)
    query: bytes = field(repr=False)
    expect_continue: bool
    host: bytes | None


@dataclass(slots=True, eq=False)
class ResponseHead(_Head):
    """An answer's head, an interim one (1xx) included. `upgrade` is set on a 101 only."""

    status: int
    reason: bytes


class RequestReader(HeadReader[RequestHead]):
    """Reads a client's request heads, one at a time; refusals carry the status to answer with.

    A client sends much the same fields each time. What both parsers have agreed on once is remembered, as the raw bytes
    that it was read from: where the very same bytes come again, only the request line is read.
    """

    __slots__ = ("_known", "_known_minor", "_known_raw")

    def __init__(self, limits: HeadLimits) -> None:
        super().__init__(limits, _BAD_REQUEST, limits.target_bytes + 64)
        self._known_raw = self._known_minor = b""
        self._known: Fields[HttpRequestParser] | None = None

    def _check_line(self, line: bytes) -> None:
        request_line(line, self.limits.target_bytes)

    def _starts(self, start: bytes) -> bool:
        """A method's first letter: TLS, for one, begins otherwise, and would wait here for an end of head."""
        return start[:1].isalpha()

    def _plain(self, data: bytes) -> RequestHead | None:
        if self._known is not None and (head := self._again(data, self._known)) is not None:
            return head
        match = _PLAIN_REQUEST(data, 0, self.limits.head_bytes)
        if match is None:
            return None
        raw = match[0]
        method, target, minor = match.groups()
        start = match.end(3) + 2
        fields = plain_fields(HttpRequestParser, raw, start, _BAD_REQUEST)
        limits = self.limits
        if fields is None or len(target) > limits.target_bytes or len(fields.headers) > limits.headers:
            return None
        if fields.parser.get_method() != method:
            raise HeadError("a head that can be read in two ways")
        self.rest = data[len(raw) :]
        self._known_raw, self._known_minor, self._known = raw[start:], minor, fields
        return _request(method, target, minor == b"0", fields)

    def _again(self, data: bytes, known: Fields[HttpRequestParser]) -> RequestHead | None:
        """A head whose fields, to their end, are the bytes of the one before."""
        match = _PLAIN_LINE(data, 0, self.limits.head_bytes)
        if match is None or not data.startswith(self._known_raw, match.end()):
            return None
        end = match.end() + len(self._known_raw)
        method, target, minor = match.groups()
        if minor != self._known_minor or len(target) > self.limits.target_bytes or end > self.limits.head_bytes:
            return None
        self.rest = data[end:]
        return _request(method, target, minor == b"0", known)

    def _careful(self, raw: bytes) -> RequestHead:
        line = raw[: raw.index(b"\r\n")]
        method, target, version = request_line(line, self.limits.target_bytes)
        fields = careful_fields(HttpRequestParser, raw, len(line) + 2, self.limits.headers, _BAD_REQUEST)
        single(fields.headers, _SINGLE, _BAD_REQUEST)
        if fields.parser.get_method() != method:
            raise HeadError("a head that can be read in two ways")
        return _request(method, target, version == b"1.0", fields)


class ResponseReader(HeadReader[ResponseHead]):
    """Reads a server's answers; set `method` to the request's first. Each 1xx is returned as a head of its
    own."""

    __slots__ = ("method",)

    def __init__(self, limits: HeadLimits, method: bytes = b"GET") -> None:
        super().__init__(limits, BAD_ANSWER, limits.head_bytes)
        self.method = method

    def _check_line(self, line: bytes) -> None:
        status_line(line)

    def _starts(self, start: bytes) -> bool:
        return b"HTTP/1.".startswith(start[:7])

    def _plain(self, data: bytes) -> ResponseHead | None:
        match = _PLAIN_RESPONSE(data, 0, self.limits.head_bytes)
        if match is None:
            return None
        raw = match[0]
        minor, code, reason = match.groups()
        fields = plain_fields(HttpResponseParser, raw, match.end(3) + 2, BAD_ANSWER)
        if fields is None or len(fields.headers) > self.limits.headers:
            return None
        self.rest = data[len(raw) :]
        return _response(int(code), reason, minor == b"0", fields, self.method)

    def _careful(self, raw: bytes) -> ResponseHead:
        line = raw[: raw.index(b"\r\n")]
        version, status, reason = status_line(line)
        fields = careful_fields(HttpResponseParser, raw, len(line) + 2, self.limits.headers, BAD_ANSWER)
        single(fields.headers, _SINGLE, BAD_ANSWER)
        return _response(status, reason, version == b"1.0", fields, self.method)


def _request(method: bytes, target: bytes, old: bool, fields: Fields[HttpRequestParser]) -> RequestHead:
    """What the fields mean, once it is clear what they are."""
    index = fields.index
    get = index.get
    host = host_of(get(b"host"), old)
    keep_alive, upgrade = connection_of(fields, old, _BAD_REQUEST)
    said = declared(get(b"content-length"), get(b"transfer-encoding"), old, _BAD_REQUEST)
    path, _, query = target.partition(b"?")
    return RequestHead(
        fields.headers, b"1.0" if old else b"1.1", keep_alive, of_request(said, upgrade), upgrade, index,
        fields.derived, method, target, path, query, expects_continue(get(b"expect"), old), host,
    )  # fmt: skip


def _response(status: int, reason: bytes, old: bool, fields: Fields[HttpResponseParser], method: bytes) -> ResponseHead:
    """What the fields mean, for an answer to this method."""
    if fields.parser.get_status_code() != status:
        raise HeadError("a head that can be read in two ways", BAD_ANSWER)
    index = fields.index
    keep_alive, upgrade = connection_of(fields, old, BAD_ANSWER, status)
    if status == 101 and upgrade is None:
        raise HeadError("a 101 without Upgrade", BAD_ANSWER)
    said = declared(index.get(b"content-length"), index.get(b"transfer-encoding"), old, BAD_ANSWER)
    framing = of_response(said, status, method)
    if framing is UNTIL_CLOSE or framing is UPGRADE:
        keep_alive = False
    version = b"1.0" if old else b"1.1"
    return ResponseHead(fields.headers, version, keep_alive, framing, upgrade, index, fields.derived, status, reason)

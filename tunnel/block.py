"""Heads as they stand on the link (docs/protocol.md, 4): written without ambiguity, and checked whole when read.

The header lines are those of HTTP/1.1 with lower-case names; what makes HTTP/1.1 ambiguous (folding, bare LF, framing
headers, hop-by-hop headers) cannot be said in it.
"""

from __future__ import annotations

import re
import struct
from typing import Final

from tunnel.errors import ProtocolError
from tunnel.frames import FLAG_END, FLAG_INTERIM, FLAG_LONG, FLAG_UPGRADE
from tunnel.known import KnownLines, LineMemory
from tunnel.limits import HeadLimits
from tunnel.ports import Headers, RequestBlock, ResponseBlock

MODE_IMPERSONATED: Final = 0
MODE_PASS_THROUGH: Final = 1
"""The user's own credential goes to the API server, in the place of an impersonation."""
MAX_LINES: Final = 1_000
"""More than a client may send: ours come on top, and a user's groups are a line each."""

_REQUEST: Final = struct.Struct("!QB")
_STATUS: Final = struct.Struct("!H")
_TOKEN = rb"[!#$%&'*+.^_`|~0-9a-z-]++"
_VALUE = rb"(?:(?![\t ])[\t\x20-\x7e\x80-\xff]++(?<![\t ]))?+"
_LINES: Final = re.compile(rb"(?:" + _TOKEN + rb": " + _VALUE + rb"\r\n)*+")
_PAIRS: Final = re.compile(rb"([^:]+): (.*)\r\n")
"""Takes apart what _LINES has proved."""
_UPGRADES: Final = (b"spdy/3.1", b"websocket")
_AUDIT: Final = re.compile(rb"audit-id: ([\x21-\x7e]{1,64})\r\n")
"""What differs from request to request; the gateway writes it first."""
_FIRST: Final = re.compile(rb"([A-Z]{1,32}) (/[\x21-\x7e]*)\r\n")

FORBIDDEN: Final = frozenset((
    b"connection", b"keep-alive", b"proxy-connection", b"proxy-authenticate", b"proxy-authorization",
    b"te", b"trailer", b"transfer-encoding", b"http2-settings",
))  # fmt: skip
"""Hop-by-hop fields (RFC 9110, 7.6.1): meaningless between frames, and the root of smuggling when passed on."""
FORBIDDEN_IN_REQUESTS: Final = FORBIDDEN | {b"host", b"authorization"}
FORBIDDEN_IN_PASS_THROUGH: Final = FORBIDDEN | {b"host"}


def _lines(headers: Headers) -> bytes:
    return b"\r\n".join([*map(b": ".join, headers), b""])


def _parse_lines(lines: bytes, forbidden: frozenset[bytes]) -> Headers:
    if not _LINES.fullmatch(lines):
        raise ProtocolError("malformed header lines in a HEAD")
    headers: Headers = _PAIRS.findall(lines)
    if len(headers) > MAX_LINES:
        raise ProtocolError("too many header lines in a HEAD")
    if not forbidden.isdisjoint([name for name, _ in headers]):
        raise ProtocolError("a hop-by-hop or forbidden header in a HEAD")
    return headers


def encode_request(block: RequestBlock, epoch: int) -> tuple[int, bytes]:
    """(flags, payload) of a request's HEAD."""
    flags = FLAG_LONG if block.long else 0
    if block.upgrade:
        flags |= FLAG_UPGRADE  # without END: after a 101 this direction carries the client's bytes
    elif block.ended:
        flags |= FLAG_END
    mode = MODE_PASS_THROUGH if block.pass_through else MODE_IMPERSONATED
    first = b"%b %b\r\n" % (block.method, block.target)
    return flags, _REQUEST.pack(epoch, mode) + first + _lines(block.headers)


def decode_request(flags: int, payload: bytes, memory: LineMemory | None = None) -> tuple[int, RequestBlock]:
    """(epoch, head) of a request. Raises ProtocolError for anything that this page's grammar does not allow."""
    if len(payload) < _REQUEST.size:
        raise ProtocolError("HEAD too short")
    epoch, mode = _REQUEST.unpack_from(payload)
    if mode > MODE_PASS_THROUGH:
        raise ProtocolError(f"unknown mode {mode} in a HEAD")
    first = _FIRST.match(payload, _REQUEST.size)
    if not first:
        raise ProtocolError("malformed request line in a HEAD")
    upgrade, ended = bool(flags & FLAG_UPGRADE), bool(flags & FLAG_END)
    if upgrade and ended:
        raise ProtocolError("an upgrade whose direction has ended already")
    through = mode == MODE_PASS_THROUGH
    known, headers = _request_lines(payload, first.end(), upgrade, through, memory)
    return epoch, RequestBlock(first[1], first[2], headers, ended, bool(flags & FLAG_LONG), upgrade, through, known)


def _request_lines(
    payload: bytes, start: int, upgrade: bool, through: bool, memory: LineMemory | None
) -> tuple[KnownLines | None, Headers]:
    """The header lines; those behind a leading audit-id from memory, where they were read before."""
    audit = _AUDIT.match(payload, start) if memory is not None else None
    lines = payload[audit.end() if audit else start :]
    known = memory.get(lines) if memory is not None and audit else None
    if known is None or known.upgrades is not upgrade or known.pass_through is not through:
        headers = _parse_lines(lines, FORBIDDEN_IN_PASS_THROUGH if through else FORBIDDEN_IN_REQUESTS)
        _check_upgrade(headers, upgrade)
        _check_mode(headers, through)
        if memory is None or not audit:
            return None, headers
        known = KnownLines(headers, upgrade, through)
        memory.put(lines, known)
    assert audit is not None
    return known, [(b"audit-id", audit[1]), *known.headers]


def encode_response(block: ResponseBlock) -> tuple[int, bytes]:
    """(flags, payload) of a response's HEAD."""
    flags = FLAG_END if block.ended else 0
    if block.interim:
        flags |= FLAG_INTERIM
    if block.upgrade:
        flags |= FLAG_UPGRADE
    return flags, _STATUS.pack(block.status) + _lines(block.headers)


def decode_response(flags: int, payload: bytes) -> ResponseBlock:
    """A response's head. Raises ProtocolError when status, flags and headers contradict one another."""
    if len(payload) < _STATUS.size:
        raise ProtocolError("HEAD too short")
    status: int = _STATUS.unpack_from(payload)[0]
    interim, upgrade, ended = bool(flags & FLAG_INTERIM), bool(flags & FLAG_UPGRADE), bool(flags & FLAG_END)
    _check_status(status, interim, upgrade, ended)
    headers = _parse_lines(payload[_STATUS.size :], FORBIDDEN)
    _check_upgrade(headers, upgrade)
    return ResponseBlock(status, headers, interim, upgrade, ended)


def _check_status(status: int, interim: bool, upgrade: bool, ended: bool) -> None:
    if upgrade != (status == 101) or interim != (100 <= status < 200 and status != 101):
        raise ProtocolError(f"status {status} contradicts the flags of its HEAD")
    if not 100 <= status <= 999 or (ended and (interim or upgrade)):
        raise ProtocolError(f"impossible status {status} in a HEAD")


def _check_upgrade(headers: Headers, upgrade: bool) -> None:
    values = [value for name, value in headers if name == b"upgrade"]
    if len(values) != upgrade or (values and values[0].lower() not in _UPGRADES):
        raise ProtocolError("the upgrade header contradicts the flags of its HEAD")


def _check_mode(headers: Headers, through: bool) -> None:
    """A credential in exactly the mode that is for it: so no lines are good in both modes."""
    if [name for name, _ in headers].count(b"authorization") != through:
        raise ProtocolError("not exactly one credential in the HEAD of a pass-through")


def encode_trailers(trailers: Headers) -> bytes:
    """A trailer block."""
    return _lines(trailers)


def decode_trailers(payload: bytes) -> Headers:
    """The trailers of an END. Raises ProtocolError when malformed, or beyond what a peer's HTTP may have."""
    if not payload:
        return []
    trailers = _parse_lines(payload, FORBIDDEN_IN_REQUESTS)
    limits = HeadLimits()
    if len(trailers) > limits.trailers or len(payload) - len(trailers) > limits.trailer_bytes:
        raise ProtocolError("trailers beyond their limits")
    return trailers

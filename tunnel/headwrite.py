"""Writing heads, and taking out what was meant for one connection only (RFC 9110 §7.6.1)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tunnel.errors import HeadError
from tunnel.headcheck import TOKEN, options

Field = tuple[bytes, bytes]

HOP_BY_HOP = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    )
)
_HARMLESS = bytes(set(range(256)) - set(b"\r\n\0"))
_REFUSAL = 500


def connection_tokens(headers: Iterable[Field]) -> frozenset[bytes]:
    """Every option of every Connection field, lower-cased. Names in `headers` are lower-cased already."""
    values = [value for name, value in headers if name == b"connection"]
    return frozenset(options(values)) if values else frozenset()


def end_to_end(headers: Sequence[Field]) -> list[Field]:
    """The fields that may go on: neither hop-by-hop nor named in Connection. Ours are added after this, or a
    client could name them (CVE-2021-31999)."""
    named = connection_tokens(headers)
    dropped = HOP_BY_HOP | named if named else HOP_BY_HOP
    return [header for header in headers if header[0] not in dropped]


def render_request_head(method: bytes, target: bytes, headers: Sequence[Field]) -> bytes:
    """A request's head. Raises HeadError (500) rather than write a part that would end a line."""
    if b" " in method or b" " in target or not target:
        raise HeadError("a request line that cannot be written", _REFUSAL)
    return _render(b"%b %b HTTP/1.1" % (method, target), headers)


def render_response_head(status: int, reason: bytes, headers: Sequence[Field]) -> bytes:
    """An answer's head. Raises HeadError (500) rather than write a part that would end a line."""
    return _render(b"HTTP/1.1 %d %b" % (status, reason), headers)


def render_trailers(trailers: Sequence[Field]) -> bytes:
    """Trailers and the blank line that ends a chunked body, under the same guard."""
    return _guarded(b"\r\n".join([*map(b": ".join, trailers), b"", b""]), trailers, len(trailers) + 1)


def _render(line: bytes, headers: Sequence[Field]) -> bytes:
    return _guarded(b"\r\n".join([line, *map(b": ".join, headers), b"", b""]), headers, len(headers) + 2)


def _guarded(head: bytes, headers: Sequence[Field], ends: int) -> bytes:
    """One look at the joined bytes: no CR, LF or NUL but the line ends put in; and names made of tokens only."""
    if head.translate(None, _HARMLESS) != b"\r\n" * ends:
        raise HeadError("a header that cannot be written", _REFUSAL)
    names = b":".join([name for name, _ in headers])
    empty = headers and b"::" in b":%b:" % names
    if empty or names.translate(None, TOKEN) != b":" * (len(headers) - 1):
        raise HeadError("a header name that cannot be written", _REFUSAL)
    return head

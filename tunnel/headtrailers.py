"""Trailers: fields after a chunked body, few and harmless (RFC 9110 §6.5)."""

from __future__ import annotations

from tunnel.errors import HeadError
from tunnel.headcheck import Headers, strict_fields
from tunnel.limits import HeadLimits

_FORBIDDEN = frozenset(
    b"connection keep-alive proxy-connection proxy-authenticate proxy-authorization te trailer"
    b" transfer-encoding upgrade content-length content-encoding content-type content-range host"
    b" authorization www-authenticate cookie set-cookie cache-control expect max-forwards pragma range age"
    b" expires date location retry-after vary warning if-match if-none-match if-modified-since"
    b" if-unmodified-since if-range".split()
)
"""What frames, routes, authenticates or controls a message cannot come after it (RFC 9110 §6.5.1)."""
_FORBIDDEN_PREFIXES = (b"impersonate", b"x-remote", b"x_remote", b"x-forwarded", b"x_forwarded")


def checked_trailers(lines: list[bytes], limits: HeadLimits) -> Headers:
    """The trailers that these lines spell. A forbidden one is refused, not dropped: nobody sends it by
    mistake."""
    if len(lines) > limits.trailers:
        raise HeadError("too many trailers", 431)
    trailers = strict_fields(lines)
    for name, _ in trailers:
        if name in _FORBIDDEN or name.startswith(_FORBIDDEN_PREFIXES):
            raise HeadError("a field that cannot be a trailer")
    return trailers

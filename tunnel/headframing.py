"""How long a message's body is, decided once from its head (RFC 9112 §6.3), and in one way only.

Every ambiguity that the RFC lets a recipient resolve is refused here instead: what two parsers may read
differently is how requests are smuggled."""

from __future__ import annotations

import enum
from typing import NamedTuple

from tunnel.errors import HeadError

LENGTH_DIGITS = 18


class FramingKind(enum.Enum):
    """The ways a body can end."""

    NONE = "none"
    LENGTH = "length"
    CHUNKED = "chunked"
    UNTIL_CLOSE = "until-close"
    UPGRADE = "upgrade"


class Framing(NamedTuple):
    """A kind, and with LENGTH how many bytes follow."""

    kind: FramingKind
    length: int = 0

    @property
    def empty(self) -> bool:
        """No body byte can follow the head: none was announced, or its length is 0."""
        return self.kind is FramingKind.NONE or (self.kind is FramingKind.LENGTH and self.length == 0)


NONE = Framing(FramingKind.NONE)
CHUNKED = Framing(FramingKind.CHUNKED)
UNTIL_CLOSE = Framing(FramingKind.UNTIL_CLOSE)
UPGRADE = Framing(FramingKind.UPGRADE)


def declared(length: bytes | None, coding: bytes | None, old: bool, status: int) -> Framing | None:
    """What Content-Length and Transfer-Encoding say together, or None if both are absent (RFC 9112 §6.1,
    §6.2).

    `old` is an HTTP/1.0 message, where Transfer-Encoding has no meaning; `status` goes into the refusal.
    """
    if coding is None:
        return None if length is None else Framing(FramingKind.LENGTH, _number(length, status))
    if length is not None:
        raise HeadError("both Content-Length and Transfer-Encoding", status)
    if old:
        raise HeadError("Transfer-Encoding in an HTTP/1.0 message", status)
    if coding.lower() != b"chunked":
        raise HeadError("a Transfer-Encoding other than chunked", 501 if status == 400 else status)
    return CHUNKED


def _number(length: bytes, status: int) -> int:
    """Digits alone (RFC 9110 §8.6): int() would take `+5`, `5_0` and blanks; a list (`5, 5`) is refused, not
    collapsed."""
    if not length.isdigit() or len(length) > LENGTH_DIGITS:
        raise HeadError("malformed Content-Length", status)
    return int(length)


def of_request(said: Framing | None, upgrade: bytes | None) -> Framing:
    """A request without either header has no body (RFC 9112 §6.3). An upgrade must have none: llhttp, and
    servers that hijack, ignore its length, so its body would be read as the first bytes of the new
    protocol."""
    if upgrade is None:
        return NONE if said is None else said
    if said is not None and not said.empty:
        raise HeadError("an upgrade with a body")
    return NONE


def of_response(said: Framing | None, status: int, method: bytes) -> Framing:
    """RFC 9112 §6.3: the request's method and the status decide before any header does."""
    if status < 200 or status == 204:
        if said is CHUNKED:
            raise HeadError("Transfer-Encoding in an answer that has no body", 502)
        return _of_switch(said) if status == 101 else NONE
    if status == 304 or method == b"HEAD":
        return NONE
    return UNTIL_CLOSE if said is None else said


def _of_switch(said: Framing | None) -> Framing:
    if said is not None and said.length:
        raise HeadError("a 101 with a body", 502)
    return UPGRADE

"""What can go wrong on a link and in an exchange, in one vocabulary for both ends (docs/protocol.md, "RESET")."""

from __future__ import annotations

import enum


class Hop(enum.IntEnum):
    """Where an exchange failed; the user's `Status` names it in `details.causes`."""

    GATEWAY = 1
    STUB = 2
    AGENT = 3
    APISERVER = 4
    CLIENT = 5


class Reason(enum.IntEnum):
    """Why an exchange was RESET. Unknown numbers are read as INTERNAL."""

    INTERNAL = 0
    CANCELLED = 1
    STOPPED = 2
    UNREACHABLE = 3
    TLS = 4
    TIMEOUT = 5
    BAD_RESPONSE = 6
    REFUSED_HEAD = 7
    PROTECTED_IDENTITY = 8
    TOO_LARGE = 9
    OVERLOADED = 10
    DRAINING = 11
    LINK_LOST = 12
    STALE_EPOCH = 13
    UPSTREAM_CLOSED = 14
    UNACKNOWLEDGED = 15
    POLICY = 16

    @classmethod
    def _missing_(cls, value: object) -> Reason:
        return cls.INTERNAL


class TunnelError(Exception):
    """Base of everything the tunnel raises."""


class ProtocolError(TunnelError):
    """The peer broke the link protocol: the link ends, since nothing after this can be trusted."""


class HeadError(TunnelError):
    """An HTTP head or body framing was refused. `status` is the answer's code where an answer can be given."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class ExchangeReset(TunnelError):
    """An exchange ended without a whole answer."""

    def __init__(self, hop: Hop, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.hop = hop
        self.reason = reason
        self.message = message

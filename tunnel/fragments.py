"""The one HEAD block that a link may have begun and not finished (docs/protocol.md, 4)."""

from __future__ import annotations

from tunnel.errors import ProtocolError
from tunnel.frames import FLAG_MORE


class Fragments:
    """Gathers the fragments of one block; they follow one another, with the same flags and exchange."""

    __slots__ = ("_parts", "exchange", "flags", "since")

    def __init__(self, flags: int, exchange: int, since: float) -> None:
        self.flags = flags & ~FLAG_MORE
        self.exchange = exchange
        self.since = since
        self._parts = bytearray()

    def add(self, flags: int, exchange: int, payload: bytes, limit: int) -> bytes | None:
        """One more; the whole block when it was the last. Raises ProtocolError, also for a block beyond its limit."""
        if exchange != self.exchange or flags & ~FLAG_MORE != self.flags:
            raise ProtocolError("fragments of different HEADs")
        if not payload:
            raise ProtocolError("an empty fragment of a HEAD")
        if len(self._parts) + len(payload) > limit:
            raise ProtocolError("a HEAD block beyond its limit")
        self._parts += payload
        return None if flags & FLAG_MORE else bytes(self._parts)

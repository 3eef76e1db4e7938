"""Collecting a head's bytes: bounded, incremental, and refusing early what can never become a head."""

from __future__ import annotations

from typing import Generic, TypeVar

from tunnel.errors import HeadError
from tunnel.limits import HeadLimits

_END = b"\r\n\r\n"
_CR = 13

Head = TypeVar("Head")


class HeadReader(Generic[Head]):
    """Swallows bytes until one head is whole. `rest` then holds the surplus, and the reader is ready for the
    next.

    The surplus is the caller's: it belongs to a body, to the next head (feed it back), or to nobody.
    """

    __slots__ = ("_held", "_line_limit", "_line_seen", "_refusal", "_refused", "limits", "rest")

    def __init__(self, limits: HeadLimits, refusal: int, line_limit: int) -> None:
        self.limits = limits
        self.rest = b""
        self._held = bytearray()
        self._line_seen = False
        self._line_limit = line_limit
        self._refusal = refusal
        self._refused = False

    @property
    def held(self) -> int:
        """Bytes of an incomplete head; 0 means that the peer may close here."""
        return len(self._held)

    def feed(self, data: bytes) -> Head | None:
        """The next head, or None while it is incomplete. After a refusal the reader refuses for ever: where
        the next message would begin is unknown."""
        if self._refused:
            raise HeadError("bytes after a refused head", self._refusal)
        try:
            if self._held:
                return self._more(data)
            head = self._plain(data)
            return head if head is not None else self._first(data)
        except HeadError:
            self._refused = True
            self.reset()
            raise

    def reset(self) -> None:
        """Forget an incomplete head and the surplus. A refusal is not forgotten."""
        self._held.clear()
        self._line_seen = False
        self.rest = b""

    def _first(self, data: bytes) -> Head | None:
        """Bytes that do not begin with a plain head, when none are held."""
        end = data.find(_END, 0, self.limits.head_bytes)
        if end < 0:
            self._hold(data)
            return None
        self.rest = data[end + 4 :]
        return self._careful(data[: end + 4])

    def _more(self, data: bytes) -> Head | None:
        """Look for the end where it could begin: one byte at a time must not cost the square of the head."""
        held, old = self._held, len(self._held)
        window = bytes(held[-3:]) + data[: self.limits.head_bytes - old]
        end = window.find(_END)
        if end < 0:
            self._hold(data)
            return None
        taken = end + 4 - min(3, old)
        raw = bytes(held) + data[:taken]
        self.reset()
        head = self._plain(raw)
        if head is None:
            head = self._careful(raw)
        self.rest = data[taken:]
        return head

    def _hold(self, data: bytes) -> None:
        """Keep an incomplete head, unless it is too long or cannot become a head any more."""
        held, old = self._held, len(self._held)
        if old + len(data) >= self.limits.head_bytes:
            raise HeadError("head too long", 431 if self._refusal == 400 else self._refusal)
        held += data
        new = held[old - 1 if old and held[old - 1] == _CR else old :]
        if new.count(b"\n") != new.count(b"\r\n"):
            raise HeadError("a line that ends without CR", self._refusal)
        if held and not self._line_seen:
            self._look_at_line(max(0, old - 1))

    def _look_at_line(self, since: int) -> None:
        held = self._held
        if not self._starts(bytes(held[:8])):
            raise HeadError("not HTTP/1.1", self._refusal)
        end = held.find(b"\r\n", since)
        if end >= 0:
            self._line_seen = True
            self._check_line(bytes(held[:end]))
        elif len(held) > self._line_limit:
            raise HeadError("first line too long", 414 if self._refusal == 400 else self._refusal)

    def _starts(self, start: bytes) -> bool:
        """Could a head begin with these (up to 8) bytes?"""
        raise NotImplementedError

    def _check_line(self, line: bytes) -> None:
        """Refuse a first line that is wrong, before the rest of the head is here."""
        raise NotImplementedError

    def _plain(self, data: bytes) -> Head | None:
        """The head that these bytes begin with, if it is whole and in the plain spelling; sets `rest`."""
        raise NotImplementedError

    def _careful(self, raw: bytes) -> Head:
        """The head that these bytes, its last blank line included, spell in whatever way is legal."""
        raise NotImplementedError

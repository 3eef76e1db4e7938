"""Body framing (RFC 9112 §6, §7), read strictly and never looked into.

A hostile peer's framing must not decide what the next message on somebody's connection is. So each decoder
takes bytes, gives payload, and says exactly where the body ended: `rest` is what came after it, and belongs
to no body."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from tunnel.errors import HeadError
from tunnel.headcheck import Headers
from tunnel.headframing import Framing, FramingKind
from tunnel.headtrailers import checked_trailers
from tunnel.headwrite import render_trailers
from tunnel.limits import HeadLimits

LAST_CHUNK = b"0\r\n\r\n"
CHUNK_MAX = 1 << 40
"""One chunk of 1 TiB is more than anybody sends; it keeps the number small whatever is added to it."""
_HEX = b"0123456789abcdefABCDEF"
_HEX_DIGITS = 16
_SIZE_LINE = _HEX_DIGITS + 2


class Body(Protocol):
    """A decoder: `feed` gives payload (no piece is empty); once `done`, what else came is in `rest`."""

    done: bool
    rest: bytes
    trailers: Headers

    def feed(self, data: bytes) -> list[bytes]:
        """The payload in these bytes."""

    def eof(self) -> None:
        """The peer closed. Raises HeadError if the body was not whole."""


class _Base:
    """What all decoders hold."""

    __slots__ = ("done", "rest", "trailers")

    def __init__(self, done: bool = False) -> None:
        self.done = done
        self.rest = b""
        self.trailers: Headers = []

    def eof(self) -> None:
        if not self.done:
            raise HeadError("the connection closed inside a body")


class NoBody(_Base):
    """A message that ends with its head: everything after it is surplus."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(done=True)

    def feed(self, data: bytes) -> list[bytes]:
        self.rest += data
        return []


class LengthBody(_Base):
    """Exactly as many bytes as Content-Length said (RFC 9112 §6.2)."""

    __slots__ = ("_left",)

    def __init__(self, length: int) -> None:
        super().__init__(done=length == 0)
        self._left = length

    def feed(self, data: bytes) -> list[bytes]:
        left = self._left
        if len(data) < left:
            self._left = left - len(data)
            return [data] if data else []
        self._left, self.done = 0, True
        if len(data) == left:
            return [data] if data else []
        self.rest += data[left:]
        return [data[:left]] if left else []


class UntilCloseBody(_Base):
    """An answer without a length: the close of its connection is its end (RFC 9112 §6.3), truncation cannot
    be told."""

    __slots__ = ()

    def feed(self, data: bytes) -> list[bytes]:
        if self.done:
            self.rest += data
            return []
        return [data] if data else []

    def eof(self) -> None:
        self.done = True


class ChunkedBody(_Base):
    """Chunks, a last chunk, trailers (RFC 9112 §7.1). Extensions, blanks and bare LFs are refused: nobody in
    Kubernetes sends them, and parsers differ about them."""

    __slots__ = ("_held", "_left", "_limits", "_state")

    def __init__(self, limits: HeadLimits) -> None:
        super().__init__()
        self._limits = limits
        self._held = b""
        self._left = 0
        # Not a bound method: the cycle would keep each decoder until the garbage collector runs.
        self._state: _State = ChunkedBody._size

    def feed(self, data: bytes) -> list[bytes]:
        """Whole chunks are taken in one loop; a state is only changed where the bytes end inside a chunk."""
        if self._held:
            data = self._held + data
            self._held = b""
        out: list[bytes] = []
        at = 0
        while not self.done and 0 <= at < len(data):
            at = self._state(self, data, at, out)
        if self.done:
            self.rest += data[at:]
        return out

    def _size(self, data: bytes, at: int, out: list[bytes]) -> int:
        """Size lines, and every chunk that is here with its CRLF."""
        find = data.find
        while True:
            end = find(b"\r\n", at, at + _SIZE_LINE)
            if end < 0:
                return self._partial_size(data, at)
            size = _chunk_size(data[at:end])
            at = end + 2
            if not size:
                self._state = ChunkedBody._trailers
                return at
            stop = at + size
            if data[stop : stop + 2] != b"\r\n":
                self._left, self._state = size, ChunkedBody._payload
                return at
            out.append(data[at:stop])
            at = stop + 2

    def _partial_size(self, data: bytes, at: int) -> int:
        """Less than a size line: hold what can still become one."""
        self._held = data[at:]
        digits = self._held[:-1] if self._held.endswith(b"\r") else self._held
        if len(digits) > _HEX_DIGITS or digits.translate(None, _HEX):
            raise HeadError("malformed chunk size")
        return -1

    def _payload(self, data: bytes, at: int, out: list[bytes]) -> int:
        """A chunk that comes in pieces: each is passed on as it comes."""
        piece = data[at : at + self._left]
        out.append(piece)
        self._left -= len(piece)
        if not self._left:
            self._state = ChunkedBody._chunk_end
        return at + len(piece)

    def _chunk_end(self, data: bytes, at: int, out: list[bytes]) -> int:
        found = data[at : at + 2]
        if not b"\r\n".startswith(found):
            raise HeadError("a chunk longer than its size")
        if len(found) < 2:
            self._held = found
            return -1
        self._state = ChunkedBody._size
        return at + 2

    def _trailers(self, data: bytes, at: int, out: list[bytes]) -> int:
        """A blank line, or fields and a blank line."""
        if data.startswith(b"\r\n", at):
            self.done = True
            return at + 2
        limit = self._limits.trailer_bytes
        end = data.find(b"\r\n\r\n", at, at + limit)
        if end < 0:
            return self._partial_trailers(data[at:], limit)
        self.trailers = checked_trailers(data[at:end].split(b"\r\n"), self._limits)
        self.done = True
        return end + 4

    def _partial_trailers(self, held: bytes, limit: int) -> int:
        if len(held) >= limit:
            raise HeadError("trailers too long", 431)
        if held.count(b"\n") != held.count(b"\r\n"):
            raise HeadError("a line that ends without CR")
        self._held = held
        return -1


_State = Callable[[ChunkedBody, bytes, int, list[bytes]], int]


def _chunk_size(line: bytes) -> int:
    """Hexadecimal digits alone (RFC 9112 §7.1): int() would take signs, blanks, `0x` and underscores."""
    if not line or line.translate(None, _HEX):
        raise HeadError("malformed chunk size")
    size = int(line, 16)
    if size > CHUNK_MAX:
        raise HeadError("chunk too large", 413)
    return size


def body_for(framing: Framing, limits: HeadLimits) -> Body:
    """The decoder for a message's body. What follows a 101 is no body: asking for one is a programming
    error."""
    match framing.kind:
        case FramingKind.NONE:
            return NoBody()
        case FramingKind.LENGTH:
            return LengthBody(framing.length)
        case FramingKind.CHUNKED:
            return ChunkedBody(limits)
        case FramingKind.UNTIL_CLOSE:
            return UntilCloseBody()
    raise ValueError("an upgraded connection has no HTTP body")


def chunk_head(size: int) -> bytes:
    """The line before a chunk's bytes, for writelines: head, bytes, CRLF."""
    if size <= 0:
        raise ValueError("an empty chunk would end the body")
    return b"%x\r\n" % size


def encode_chunk(data: bytes) -> bytes:
    """One chunk. Nothing at all for no bytes: an empty chunk would end the body."""
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


def encode_last_chunk(trailers: Headers) -> bytes:
    """The last chunk and its trailers."""
    return b"0\r\n" + render_trailers(trailers) if trailers else LAST_CHUNK

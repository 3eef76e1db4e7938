"""The end of a WebSocket stream that its user may not have any more, said so that the client reports it.

exec and attach have a channel for the outcome of the command: the `Status` of the refusal goes there, as the cluster
itself would tell a failure, and then the close that follows such an outcome. kubectl prints its message. Everywhere
else there is only the close frame, with the beginning of the message as its reason.

Ours may stand only between messages of the cluster's (a close within one is an error to many clients). So an onlooker
follows where those begin and end: it reads the headers of frames, never contents, keeps at most nine bytes, and changes
nothing. What makes no sense to it loses the farewell, and no byte.
"""

from __future__ import annotations

import base64
import struct
from typing import Final

from tunnel.ports import Headers
from tunnel.websocket import BINARY, CLOSE, CONT, NORMAL, POLICY, PONG, TEXT, encode

GRACE: Final = 1.0
"""Seconds for the end of a message that has begun."""
PLAIN: Final = frozenset((b"v4.channel.k8s.io", b"v5.channel.k8s.io"))
BASE64: Final = frozenset((b"v4.base64.channel.k8s.io",))
"""Protocols whose error channel takes a `Status`; those before them took text of no form."""
_COMMANDS: Final = frozenset(("exec", "attach"))
_STREAMS: Final = _COMMANDS | {"portforward"}
_ERROR: Final = 3
_MAX_HEADER: Final = 10
_MAX_CONTROL: Final = 125
_MAX_REASON: Final = _MAX_CONTROL - 2
_SIZES: Final = {126: struct.Struct("!H"), 127: struct.Struct("!Q")}
_SMALLEST: Final = {126: 126, 127: 65_536}


class Frames:
    """Where the messages of a server begin and end."""

    __slots__ = ("_head", "_left", "_within", "lost")

    def __init__(self) -> None:
        self._head = b""
        self._left = 0
        self._within = False
        """A message goes on in another frame."""
        self.lost = False
        """Nothing of ours may follow any more: these are no frames of a server's, or it has sent its close."""

    @property
    def midway(self) -> bool:
        """Whether a message or frame has begun, and will end."""
        return bool(self._left or self._head or self._within) and not self.lost

    def feed(self, data: bytes) -> None:
        """Look at what goes on."""
        left = self._left - len(data)
        if left >= 0:
            self._left = left
        elif not self.lost:
            self._follow(data)

    def finish(self, data: bytes) -> int:
        """How many of these bytes belong to what has begun; only they count as seen."""
        at = 0
        while at < len(data) and self.midway:
            step = max(self._left, 1)
            self.feed(data[at : at + step])
            at += step
        return min(at, len(data))

    def _follow(self, data: bytes) -> None:
        at, end, held = self._left, len(data), self._head
        self._head = b""
        while at < end and not self.lost:
            head = held + data[at : at + _MAX_HEADER - len(held)]
            size = self._header(head)
            if not size:
                self._head, self._left = head, 0
                return
            at += size - len(held) + self._left
            held = b""
        self._left = at - end

    def _header(self, head: bytes) -> int:
        """Its length, where all of it is here; then `_left` is the payload's."""
        if len(head) < 2:
            return 0
        first, size = head[0], head[1]  # a set mask bit makes the size larger than any
        length = 2
        if size > _MAX_CONTROL:
            form = _SIZES.get(size)
            if form is None:
                return self._lose()
            length += form.size
            if len(head) < length:
                return 0
            least, (size,) = _SMALLEST[size], form.unpack_from(head, 2)
            if size < least or size >> 63:
                return self._lose()
        self._check(first, size)
        self._left = size
        return length

    def _check(self, first: int, size: int) -> None:
        opcode, final = first & 0x0F, first & 0x80
        if opcode >= CLOSE:
            malformed = opcode > PONG or not final or size > _MAX_CONTROL
            self.lost = opcode == CLOSE or malformed or bool(first & 0x70)
        else:
            self.lost = bool(first & 0x70) or opcode > BINARY or (opcode == CONT) is not self._within
            self._within = not final

    def _lose(self) -> int:
        self.lost = True
        return 2


class Farewell:
    """What can be said at the end of one stream. `feed` it everything that goes to the client after the 101."""

    __slots__ = ("_protocol", "feed", "frames")

    def __init__(self, protocol: bytes) -> None:
        """`protocol` is one of PLAIN or BASE64 where a `Status` is understood, else anything."""
        self._protocol = protocol
        self.frames = Frames()
        self.feed = self.frames.feed

    def words(self, status: bytes, message: str) -> bytes:
        """The last frames of the stream, as it is now; nothing where they cannot be put."""
        if self.frames.midway or self.frames.lost:
            return b""
        if self._protocol in PLAIN:
            return encode(BINARY, bytes((_ERROR,)) + status, masked=False) + _close(NORMAL, "")
        if self._protocol in BASE64:
            return encode(TEXT, b"%d" % _ERROR + base64.b64encode(status), masked=False) + _close(NORMAL, "")
        return _close(POLICY, message)


def farewell_of(subresource: str, headers: Headers) -> Farewell | None:
    """For a stream that begins with a 101 of these headers; None where an extension may change what frames are, and for
    an application's own WebSocket behind a proxy.
    """
    if subresource not in _STREAMS or any(name == b"sec-websocket-extensions" for name, _ in headers):
        return None
    chosen = [value for name, value in headers if name == b"sec-websocket-protocol"]
    return Farewell(chosen[0] if subresource in _COMMANDS and len(chosen) == 1 else b"")


def _close(code: int, reason: str) -> bytes:
    text = reason.encode("utf-8", "replace")[:_MAX_REASON].decode("utf-8", "ignore")
    return encode(CLOSE, struct.pack("!H", code) + text.encode(), masked=False)

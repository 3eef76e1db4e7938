"""exec's streams over WebSocket (`channel.k8s.io` to `v5.channel.k8s.io`), read by somebody who only looks on.

The first byte of a message is its channel; in the base64 variants a digit, and base64 follows. A message is handed on
in the pieces that it comes in, so nothing of it is kept but its channel.

Servers of Kubernetes take each *fragment* of a client's message for a message (golang.org/x/net/websocket does), and
RFC 6455 does not: a client whose messages are fragmented would be read in two ways, and is not decoded. What clusters
send is joined as the RFC says, and as kubectl does. Compression is not decoded either.
"""

from __future__ import annotations

import base64
import binascii
from typing import Final

from gateway.recording.channels import Channel, Piece, Undecodable
from tunnel.websocket import BINARY, CLOSE, CONT, PONG, TEXT

try:
    from websockets.speedups import apply_mask
except ImportError:
    from websockets.utils import apply_mask

PLAIN: Final = frozenset(
    {b"", b"channel.k8s.io", b"v2.channel.k8s.io", b"v3.channel.k8s.io", b"v4.channel.k8s.io", b"v5.channel.k8s.io"}
)
BASE64: Final = frozenset({b"base64.channel.k8s.io", b"v4.base64.channel.k8s.io"})
PROTOCOLS: Final = PLAIN | BASE64
_CLOSE_CHANNEL: Final = 255
_MAX_CONTROL: Final = 125


class WebSocketDecoder:
    """See gateway.recording.channels.Decoder. `protocol` is the one that the cluster chose, one of PROTOCOLS."""

    def __init__(self, protocol: bytes) -> None:
        coded = protocol in BASE64
        self._client = _Direction(masked=True, fragments=False, coded=coded)
        self._cluster = _Direction(masked=False, fragments=True, coded=coded)

    def from_client(self, data: bytes) -> list[Piece]:
        """See Decoder."""
        return self._client.feed(data)

    def from_cluster(self, data: bytes) -> list[Piece]:
        """See Decoder."""
        return self._cluster.feed(data)


class _Direction:
    def __init__(self, *, masked: bool, fragments: bool, coded: bool) -> None:
        self._masked = masked
        self._fragments = fragments
        self._coded = coded
        self._head = b""
        self._left = 0
        self._key = b""
        self._control = self._final = self._closing = self._closed = False
        self._within = False
        """A fragment was not its message's last."""
        self._channel: int | None = None
        self._quad = b""
        self._padded = False

    def feed(self, data: bytes) -> list[Piece]:
        pieces: list[Piece] = []
        while data and not self._closed:
            data = self._payload(data, pieces) if self._left else self._header(data, pieces)
        return pieces

    def _header(self, data: bytes, pieces: list[Piece]) -> bytes:
        """At most 14 bytes are kept of it."""
        need = _header_size(self._head + data[:14])
        taken = need - len(self._head)
        self._head += data[:taken]
        if len(self._head) == need:
            head, self._head = self._head, b""
            self._frame(head)
            if not self._left:
                self._ended(pieces)
        return data[taken:]

    def _frame(self, head: bytes) -> None:
        first, second, opcode = head[0], head[1], head[0] & 0x0F
        self._final, size = bool(first & 0x80), second & 0x7F
        if first & 0x70:
            raise Undecodable("a WebSocket frame with a reserved bit, as compression sets it")
        if bool(second & 0x80) is not self._masked:
            raise Undecodable("a WebSocket frame with the wrong masking")
        if size > _MAX_CONTROL:
            size = int.from_bytes(head[2 : 4 if size == 126 else 10], "big")
        self._control, self._closing = opcode >= CLOSE, opcode == CLOSE
        self._check(opcode, size)
        self._key = head[-4:] if self._masked else b""
        self._left = size

    def _check(self, opcode: int, size: int) -> None:
        if self._control:
            if opcode > PONG or not self._final or size > _MAX_CONTROL:
                raise Undecodable("a malformed WebSocket control frame")
            return
        if opcode not in (CONT, TEXT, BINARY) or (opcode == CONT) is not self._within or size >> 63:
            raise Undecodable("an unknown WebSocket frame, or a fragment out of its order")
        if not self._fragments and not self._final:
            raise Undecodable("a fragmented WebSocket message, which servers read in another way")
        if opcode != CONT:
            self._channel, self._quad, self._padded = None, b"", False
        self._within = not self._final

    def _payload(self, data: bytes, pieces: list[Piece]) -> bytes:
        piece, rest = data[: self._left], data[self._left :]
        self._left -= len(piece)
        if self._key:
            turned = len(piece) % 4
            piece, self._key = apply_mask(piece, self._key), self._key[turned:] + self._key[:turned]
        if not self._control:
            self._message(piece, pieces)
        if not self._left:
            self._ended(pieces)
        return rest

    def _message(self, piece: bytes, pieces: list[Piece]) -> None:
        if self._channel is None:
            self._channel, piece = piece[0] - (ord("0") if self._coded else 0), piece[1:]
            if not (0 <= self._channel <= Channel.RESIZE or self._channel == _CLOSE_CHANNEL):
                raise Undecodable("a WebSocket message on an unknown channel")
        if self._coded:
            piece = self._decoded(piece)
        if piece and self._channel != _CLOSE_CHANNEL:
            pieces.append((Channel(self._channel), piece))

    def _decoded(self, piece: bytes) -> bytes:
        held = self._quad + piece
        whole = len(held) // 4 * 4
        self._quad = held[whole:]
        if self._padded and held:
            raise Undecodable("a message that is not base64")
        self._padded = held[:whole].endswith(b"=")
        try:
            return base64.b64decode(held[:whole], validate=True)
        except (ValueError, binascii.Error):
            raise Undecodable("a message that is not base64") from None

    def _ended(self, pieces: list[Piece]) -> None:
        """A frame is complete."""
        self._closed = self._closing
        if not self._control and self._final and self._quad:
            raise Undecodable("a message that is not base64")


def _header_size(head: bytes) -> int:
    """Of the frame that begins here, as far as can be told: one more byte than there are, at least."""
    if len(head) < 2:
        return 2
    size = head[1] & 0x7F
    return 2 + (0 if size < 126 else 2 if size == 126 else 8) + (4 if head[1] & 0x80 else 0)

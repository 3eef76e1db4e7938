"""WebSocket frames after the handshake (RFC 6455, 5), as far as a link needs them: binary messages, no extensions.

The library that makes the handshake could do this too, at four times the cost of a small message: half of what the link
itself takes for a short exchange. What it would refuse is refused here, which a test holds against it.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from typing import Final

from tunnel.errors import ProtocolError

try:
    from websockets.speedups import apply_mask
except ImportError:
    from websockets.utils import apply_mask

CONT: Final = 0x0
TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA
NORMAL: Final = 1000
PROTOCOL: Final = 1002
UNSUPPORTED: Final = 1003
POLICY: Final = 1008
TOO_BIG: Final = 1009

MAX_EMPTY: Final = 1_000
"""Pings, pongs and empty fragments with no data between them."""

_FIN: Final = 0x80
_MASKED: Final = 0x80
_SHORT: Final = struct.Struct("!BB")
_MEDIUM: Final = struct.Struct("!BBH")
_LARGE: Final = struct.Struct("!BBQ")


class WebSocketFailed(ProtocolError):
    """The peer broke RFC 6455, or the limits of the page. `code` is for the close frame."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"the WebSocket failed: {message}")
        self.code = code


def encode(opcode: int, payload: bytes, *, masked: bool) -> bytes:
    """One whole frame. Clients mask (with a new key for each frame), servers do not."""
    size = len(payload)
    bit = _MASKED if masked else 0
    if size < 126:
        header = _SHORT.pack(_FIN | opcode, bit | size)
    elif size < 65_536:
        header = _MEDIUM.pack(_FIN | opcode, bit | 126, size)
    else:
        header = _LARGE.pack(_FIN | opcode, bit | 127, size)
    if not masked:
        return header + payload
    key = os.urandom(4)
    return b"".join((header, key, apply_mask(payload, key)))


class WebSocketReader:
    """Cuts frames out of a stream, and gives what messages carry as pieces of one stream.

    `answer` is called with what has to be written: a pong, or the echo of a close.
    """

    def __init__(self, *, masked: bool, max_message: int, answer: Callable[[int, bytes], None]) -> None:
        self.closed = False
        self._masked = masked
        self._max_message = max_message
        self._answer = answer
        self._held = bytearray()
        self._need = 0
        self._message = -1
        self._empty = 0

    def feed(self, data: bytes) -> list[bytes]:
        """The pieces that `data` completes. Raises WebSocketFailed. After a close, what comes is dropped."""
        if self._held:
            self._held += data
            if len(self._held) < self._need:
                return []
            data = bytes(self._held)
            self._held.clear()
        pieces: list[bytes] = []
        at = 0
        while at < len(data) and not self.closed:
            end = self._frame(data, at, pieces)
            if not end:
                self._held += memoryview(data)[at:]
                break
            at = end
        return pieces

    def _frame(self, data: bytes, at: int, pieces: list[bytes]) -> int:
        """Handle the frame at `at`. Gives where it ends; 0, and how much is needed, where it is not whole yet."""
        begin = at + 2
        if begin > len(data):
            return self._lacks(begin - at)
        first, second = data[at], data[at + 1]
        size = second & 0x7F
        if size > 125:
            begin += 2 if size == 126 else 8
            if begin > len(data):
                return self._lacks(begin - at)
            size = int.from_bytes(data[at + 2 : begin], "big")
        self._check(first, second, size)
        if self._masked:
            begin += 4
        end = begin + size
        if end > len(data):
            return self._lacks(end - at)
        payload = data[begin:end]
        self._take(first, apply_mask(payload, data[begin - 4 : begin]) if self._masked else payload, pieces)
        return end

    def _lacks(self, need: int) -> int:
        self._need = need
        return 0

    def _check(self, first: int, second: int, size: int) -> None:
        """Refuse a frame by its header, before its payload is kept."""
        opcode, final = first & 0x0F, first & _FIN
        if first & 0x70:
            raise WebSocketFailed(PROTOCOL, "a reserved bit is set")
        if (second & _MASKED == _MASKED) is not self._masked:
            raise WebSocketFailed(PROTOCOL, "incorrect masking")
        if opcode >= CLOSE:
            if opcode > PONG or not final or size > 125:
                raise WebSocketFailed(PROTOCOL, "a malformed control frame")
        elif opcode == TEXT:
            raise WebSocketFailed(UNSUPPORTED, "a text message: binary messages only")
        elif opcode > BINARY or (opcode == CONT) is (self._message < 0):
            raise WebSocketFailed(PROTOCOL, "an unknown frame, or a fragment out of its order")
        elif max(self._message, 0) + size > self._max_message:
            raise WebSocketFailed(TOO_BIG, f"a message of more than {self._max_message} bytes")

    def _take(self, first: int, payload: bytes, pieces: list[bytes]) -> None:
        opcode = first & 0x0F
        if opcode >= CLOSE:
            self._control(opcode, payload)
        else:
            self._message = -1 if first & _FIN else max(self._message, 0) + len(payload)
        if payload and opcode < CLOSE:
            self._empty = 0
            pieces.append(payload)
        else:
            self._count_empty()

    def _control(self, opcode: int, payload: bytes) -> None:
        if opcode == PING:
            self._answer(PONG, payload)
        elif opcode == CLOSE:
            if self._message >= 0:
                raise WebSocketFailed(PROTOCOL, "a close within a message")
            self.closed = True
            self._answer(CLOSE, payload[:2] if len(payload) > 1 else b"")

    def _count_empty(self) -> None:
        self._empty += 1
        if self._empty > MAX_EMPTY:
            raise WebSocketFailed(POLICY, "too many frames without data")

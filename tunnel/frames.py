"""The frames of the link protocol (docs/protocol.md, 2): how they are written, and cut out of a stream of bytes."""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from tunnel.errors import Hop, ProtocolError, Reason

HEADER: Final = struct.Struct("!BBIQ")
HEADER_SIZE: Final = HEADER.size
OFFSET: Final = struct.Struct("!Q")

CONTROL: Final = 0x01
HEAD: Final = 0x02
DATA: Final = 0x03
END: Final = 0x04
RESET: Final = 0x05
ACK: Final = 0x06
CREDIT: Final = 0x07
MOVE: Final = 0x08
PING: Final = 0x09
PONG: Final = 0x0A
FIRST_IGNORABLE: Final = 0x80

FLAG_END: Final = 0x01
FLAG_MORE: Final = 0x02
FLAG_INTERIM: Final = 0x04
FLAG_LONG: Final = 0x08
FLAG_UPGRADE: Final = 0x10
FLAG_ACK: Final = 0x01
FLAG_OFFER: Final = 0x01
FLAG_CONFIRM: Final = 0x02
FLAG_DECLINE: Final = 0x04
MOVE_FLAGS: Final = FLAG_OFFER | FLAG_CONFIRM | FLAG_DECLINE

MAX_RESET_MESSAGE: Final = 1024


class Frame(NamedTuple):
    """One frame as it was received."""

    type: int
    flags: int
    exchange: int
    payload: bytes


def encode(kind: int, flags: int = 0, exchange: int = 0, payload: bytes = b"") -> bytes:
    """The bytes of one frame."""
    return HEADER.pack(kind, flags, len(payload), exchange) + payload


def reset_payload(hop: Hop, reason: Reason, message: str) -> bytes:
    """The payload of a RESET; the message is cut to what the protocol allows."""
    return bytes((hop, reason)) + message.encode("utf-8", "replace")[:MAX_RESET_MESSAGE]


def parse_reset(payload: bytes) -> tuple[Hop, Reason, str]:
    """What a RESET says. Raises ProtocolError for a payload that is none."""
    if not 2 <= len(payload) <= 2 + MAX_RESET_MESSAGE:
        raise ProtocolError("RESET with a payload of a wrong size")
    try:
        hop = Hop(payload[0])
    except ValueError as error:
        raise ProtocolError("RESET from an unknown hop") from error
    return hop, Reason(payload[1]), payload[2:].decode("utf-8", "replace")


def parse_offset(payload: bytes) -> int:
    """The absolute offset of a CREDIT."""
    if len(payload) != OFFSET.size:
        raise ProtocolError("CREDIT with a payload of a wrong size")
    offset: int = OFFSET.unpack(payload)[0]
    return offset


class FrameReader:
    """Cuts a stream of bytes, fed in pieces of any size, into frames; holds no more than one of them."""

    __slots__ = ("_held", "_max_payload", "_need")

    def __init__(self, max_payload: int) -> None:
        self._max_payload = max_payload
        self._held = bytearray()
        self._need = HEADER_SIZE

    def feed(self, data: bytes) -> list[Frame]:
        """The frames completed by `data`. Raises ProtocolError for a payload beyond the limit, before it is kept."""
        if self._held:
            self._held += data
            if len(self._held) < self._need:
                return []
            data = bytes(self._held)
            self._held.clear()
        return self._cut(data)

    def _cut(self, data: bytes) -> list[Frame]:
        frames: list[Frame] = []
        at, size = 0, len(data)
        while size - at >= HEADER_SIZE:
            kind, flags, length, exchange = HEADER.unpack_from(data, at)
            if length > self._max_payload:
                raise ProtocolError(f"frame of {length} bytes, more than {self._max_payload}")
            end = at + HEADER_SIZE + length
            if end > size:
                return self._keep(frames, data, at, HEADER_SIZE + length)
            frames.append(Frame(kind, flags, exchange, data[at + HEADER_SIZE : end]))
            at = end
        return self._keep(frames, data, at, HEADER_SIZE)

    def _keep(self, frames: list[Frame], data: bytes, at: int, need: int) -> list[Frame]:
        self._held += memoryview(data)[at:]
        self._need = need
        return frames

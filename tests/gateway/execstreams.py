"""exec's streams as clients and clusters write them: WebSocket messages, and SPDY frames with their compression."""

from __future__ import annotations

import os
import struct
import zlib

from gateway.recording.spdy import HEADERS, SYN_REPLY, SYN_STREAM, dictionary
from tunnel.websocket import BINARY, encode

TYPES = (b"error", b"stdin", b"stdout", b"resize")
ERROR, STDIN, STDOUT, RESIZE = 1, 3, 5, 7


def message(channel: int, data: bytes, *, masked: bool = False, opcode: int = BINARY) -> bytes:
    return encode(opcode, bytes([channel]) + data, masked=masked)


def fragment(opcode: int, payload: bytes, *, final: bool, masked: bool = False) -> bytes:
    whole = encode(opcode, payload, masked=masked)
    return bytes([(0x80 if final else 0) | opcode]) + whole[1:]


def size(width: int, height: int) -> bytes:
    return b'{"Width":%d,"Height":%d}\n' % (width, height)


class Spdy:
    """One end, writing: its header blocks are one zlib stream."""

    def __init__(self) -> None:
        self._deflate = zlib.compressobj(zdict=dictionary())

    def control(self, kind: int, payload: bytes, version: int = 3, flags: int = 0) -> bytes:
        return struct.pack("!HHI", 0x8000 | version, kind, flags << 24 | len(payload)) + payload

    def block(self, headers: list[tuple[bytes, bytes]], count: int | None = None) -> bytes:
        plain = struct.pack("!I", len(headers) if count is None else count)
        for text in (text for pair in headers for text in pair):
            plain += struct.pack("!I", len(text)) + text
        return self._deflate.compress(plain) + self._deflate.flush(zlib.Z_SYNC_FLUSH)

    def open(self, stream: int, kind: bytes, **more: bytes) -> bytes:
        headers = [(b"streamtype", kind), *((name.encode(), value) for name, value in more.items())]
        return self.control(SYN_STREAM, struct.pack("!IIH", stream, 0, 0) + self.block(headers))

    def open_all(self) -> bytes:
        return b"".join(self.open(2 * number + 1, kind) for number, kind in enumerate(TYPES))

    def reply(self, stream: int) -> bytes:
        return self.control(
            SYN_REPLY, struct.pack("!I", stream) + self.block([(b"x-accepted", os.urandom(20).hex().encode())])
        )

    def headers(self, stream: int) -> bytes:
        return self.control(HEADERS, struct.pack("!I", stream) + self.block([]))

    def ping(self) -> bytes:
        return self.control(6, struct.pack("!I", 1))

    def data(self, stream: int, data: bytes, flags: int = 0) -> bytes:
        return struct.pack("!II", stream, flags << 24 | len(data)) + data

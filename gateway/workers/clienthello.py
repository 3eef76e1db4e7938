"""What a TLS client offers by ALPN, read from the first bytes of its connection, which stay in the socket.

Only as much is read as that takes (RFC 8446, 4.1.2 and 5.1; RFC 7301, 3.1), and nothing of it is believed: whoever gets
the connection does the handshake. What is no ClientHello, or a strange one, offers nothing.
"""

from __future__ import annotations

import re
from typing import Final

MOST: Final = 16 * 1024
"""Bytes of a ClientHello with its records; with post-quantum key shares they are two thousand."""
RECORDS: Final = 16
"""In which it may come."""
_HANDSHAKE: Final = 22
_CLIENT_HELLO: Final = 1
_ALPN: Final = 16
_RECORD_HEADER: Final = 5
_MESSAGE_HEADER: Final = 4
_HINT: Final = re.compile(rb"kulvert-worker-(0|[1-9][0-9]{0,2})")


def look(data: bytes) -> int | tuple[bytes, ...]:
    """The protocols offered, in their order; or how many bytes of the connection it takes to say more, at least."""
    hello = b""
    at = 0
    for _ in range(RECORDS):
        if len(data) < at + _RECORD_HEADER:
            return _wanting(at + _RECORD_HEADER)
        length = int.from_bytes(data[at + 3 : at + 5], "big")
        if data[at] != _HANDSHAKE or data[at + 1] != 3 or not length:
            return ()
        end = at + _RECORD_HEADER + length
        if len(data) < end:
            return _wanting(end)
        hello += data[at + _RECORD_HEADER : end]
        at = end
        if len(hello) >= _MESSAGE_HEADER:
            whole = _MESSAGE_HEADER + int.from_bytes(hello[1:4], "big")
            if hello[0] != _CLIENT_HELLO or whole > MOST:
                return ()
            if len(hello) >= whole:
                return _protocols(hello[_MESSAGE_HEADER:whole])
    return ()


def worker(protocols: tuple[bytes, ...]) -> int | None:
    """Which worker is asked for: by the first entry that says so."""
    found = next((match for one in protocols if (match := _HINT.fullmatch(one)) is not None), None)
    return int(found[1]) if found is not None else None


def hint(number: int) -> str:
    """The entry that asks for a worker."""
    return f"kulvert-worker-{number}"


def _wanting(total: int) -> int | tuple[bytes, ...]:
    return total if total <= MOST else ()


def _protocols(hello: bytes) -> tuple[bytes, ...]:
    try:
        rest = _Bytes(hello)
        rest.skip(2 + 32)
        for size in (1, 2, 1):  # session id, cipher suites, compression methods
            rest.vector(size)
        extensions = _Bytes(rest.vector(2))
        while extensions.left:
            kind = extensions.number(2)
            content = _Bytes(extensions.vector(2))
            if kind == _ALPN:
                return _entries(_Bytes(content.vector(2)))
    except _Short:
        pass
    return ()


def _entries(names: _Bytes) -> tuple[bytes, ...]:
    found = []
    while names.left:
        found.append(names.vector(1))
    return tuple(found)


class _Short(Exception):
    """It ends too early."""


class _Bytes:
    """Reads numbers and vectors one after the other. Raises _Short."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def skip(self, count: int) -> bytes:
        if self.left < count:
            raise _Short
        self._at += count
        return self._data[self._at - count : self._at]

    def number(self, size: int) -> int:
        return int.from_bytes(self.skip(size), "big")

    def vector(self, size: int) -> bytes:
        return self.skip(self.number(size))

"""What a decoder of exec's streams finds in the bytes of a hijacked stream, whichever protocol carries them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Protocol, TypeAlias

import orjson

_MAX_SIZE_BYTES: Final = 1024
_MAX_CELLS: Final = 65_535


class Channel(IntEnum):
    """As kubelet numbers them."""

    STDIN = 0
    STDOUT = 1
    STDERR = 2
    ERROR = 3
    RESIZE = 4


Piece: TypeAlias = tuple[Channel, bytes]
"""Bytes of one channel, in their order."""


@dataclass(frozen=True, slots=True)
class Size:
    """Of a terminal, in characters."""

    width: int
    height: int


class Undecodable(Exception):
    """These bytes are not what the protocol says, or two readers may differ about them. There are no contents in it."""


class Decoder(Protocol):
    """Both directions of one stream. Pure; keeps a bounded number of bytes, whatever comes."""

    def from_client(self, data: bytes) -> list[Piece]:
        """:raises Undecodable: it can decode no more."""
        ...

    def from_cluster(self, data: bytes) -> list[Piece]:
        """:raises Undecodable: it can decode no more."""
        ...


class Sizes:
    """Reads the channel of terminal sizes: JSON objects one after the other, in pieces of any length."""

    def __init__(self) -> None:
        self._held = b""

    def feed(self, data: bytes) -> list[Size]:
        """The sizes that are complete. :raises Undecodable: it is none."""
        *whole, self._held = (self._held + data).replace(b"}", b"}\n").split(b"\n")
        sizes = [_size(line) for line in whole if line.strip()]
        if len(self._held) > _MAX_SIZE_BYTES:
            raise Undecodable("a terminal size without an end")
        return sizes


def _size(line: bytes) -> Size:
    try:
        told = orjson.loads(line)
        width, height = told["Width"], told["Height"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        raise Undecodable("a terminal size that is none") from None
    if not all(type(one) is int and 0 <= one <= _MAX_CELLS for one in (width, height)):
        raise Undecodable("a terminal size out of range")
    return Size(width, height)

"""How a link's bytes travel between two replicas: a preamble, then records (docs/protocol.md, "Between replicas").

A record is a length and so many bytes of the stream; borders mean nothing. An empty one is the last that an end says:
TLS cannot be half closed, and a link whose work is done has to be told from one that was cut.
"""

from __future__ import annotations

import struct
from typing import Final

from tunnel.errors import ProtocolError
from tunnel.limits import MIB

PREAMBLE: Final = b"kulvert-peer\r\n\x00\r\n"
MAX_RECORD: Final = 16 * MIB
"""Nobody keeps a record whole: the bound only tells what is none."""
_LENGTH: Final = struct.Struct("!I")
_LAST: Final = _LENGTH.pack(0)


class RecordCarriage:
    """Implements `tunnel.carriage.Carriage`. `dials`: this end connected, and says the preamble."""

    def __init__(self, *, dials: bool) -> None:
        self.open = dials
        self.ended = False
        self._dials = dials
        self._greeted = dials
        self._said_last = False
        self._left = 0
        self._held = b""

    def begin(self) -> bytes:
        return PREAMBLE if self._dials else b""

    def receive(self, data: bytes) -> list[bytes]:
        if self.ended:
            return []
        if self._held:
            data, self._held = self._held + data, b""
        if not self._greeted:
            data = self._greet(data)
        pieces = self._cut(data) if self._greeted else []
        return [] if self._said_last else pieces

    def _greet(self, data: bytes) -> bytes:
        if not PREAMBLE.startswith(data[: len(PREAMBLE)]):
            raise ProtocolError("this is the port for other replicas of a Kulvert server, and this is none")
        if len(data) < len(PREAMBLE):
            self._held = data
            return b""
        self._greeted = self.open = True
        return data[len(PREAMBLE) :]

    def _cut(self, data: bytes) -> list[bytes]:
        pieces: list[bytes] = []
        at, size = 0, len(data)
        while at < size:
            if not self._left:
                if size - at < _LENGTH.size:
                    self._held = data[at:]
                    break
                (self._left,) = _LENGTH.unpack_from(data, at)
                at += _LENGTH.size
                if not self._left:
                    self.ended, self.open = True, False
                    break
                if self._left > MAX_RECORD:
                    raise ProtocolError("a record that is too long")
                continue
            end = min(size, at + self._left)
            pieces.append(data[at:end])
            self._left -= end - at
            at = end
        return pieces

    def wrap(self, pieces: list[bytes]) -> bytes:
        size = sum(map(len, pieces))
        if not size:
            return b""
        if size <= MAX_RECORD:
            return b"".join([_LENGTH.pack(size), *pieces])
        data = b"".join(pieces)
        cuts = [data[at : at + MAX_RECORD] for at in range(0, size, MAX_RECORD)]
        return b"".join([part for cut in cuts for part in (_LENGTH.pack(len(cut)), cut)])

    def pending(self) -> bytes:
        """The peer's last record is answered by ours."""
        return self.close() if self.ended else b""

    def close(self) -> bytes:
        if self._said_last or not self._greeted:
            return b""
        self._said_last, self.open = True, False
        return _LAST

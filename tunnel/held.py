"""Frames of an own link that wait for a MOVE on the shared one (docs/protocol.md, 7)."""

from __future__ import annotations

from tunnel.errors import ProtocolError
from tunnel.frames import DATA, FLAG_END

HeldFrame = tuple[int, int, bytes]
"""(type, flags, payload)."""

MOST = 64
"""Interim heads, a head and an end are fewer; DATA is joined, so that only its bytes count."""


class HeldFrames:
    """Keeps their order, and joins neighbouring DATA. `size` is that of the DATA held."""

    __slots__ = ("_frames", "size")

    def __init__(self) -> None:
        self._frames: list[tuple[int, int, bytearray]] = []
        self.size = 0

    def add(self, frame: HeldFrame) -> None:
        """One more. Raises ProtocolError for more of them than an exchange can have."""
        kind, flags, payload = frame
        if kind == DATA:
            if not payload:
                raise ProtocolError("empty DATA")
            self.size += len(payload)
            last = self._frames[-1] if self._frames else None
            if last is not None and last[0] == DATA and not last[1] & FLAG_END:
                last[2].extend(payload)
                self._frames[-1] = (DATA, flags, last[2])
                return
        if len(self._frames) >= MOST:
            raise ProtocolError("too much on an own link before its MOVE")
        self._frames.append((kind, flags, bytearray(payload)))

    def take(self) -> list[HeldFrame]:
        """All of them, in their order."""
        return [(kind, flags, bytes(payload)) for kind, flags, payload in self._frames]

"""When to PING, when a peer is gone, and how long a round trip takes (docs/protocol.md, 9)."""

from __future__ import annotations

import enum

from tunnel.frames import OFFSET
from tunnel.limits import Timing


class Verdict(enum.Enum):
    """What a sweep finds."""

    FINE = 0
    PING = 1
    DEAD = 2


class Liveness:
    """One link's, pure: driven by a sweep, with the time passed in."""

    __slots__ = ("_asked", "_last", "_pinged", "_timing", "rtt")

    def __init__(self, timing: Timing, now: float) -> None:
        self._timing = timing
        self._last = now
        self._pinged = now
        self._asked = b""
        self.rtt = 0.0

    def ping(self, now: float) -> bytes:
        """The payload of a PING sent now."""
        self._pinged = now
        self._asked = OFFSET.pack(int(now * 1e6))
        return self._asked

    def pong(self, payload: bytes, now: float) -> bool:
        """A PONG came. True: it answers our last PING, and the round trip is measured anew."""
        if not self._asked or payload != self._asked:
            return False
        self.rtt = max(0.0, now - self._pinged)
        self._asked = b""
        return True

    def sweep(self, heard: bool, now: float, *, measured: bool = False) -> Verdict:
        """What to do now. A `measured` link is PINGed while it is heard, too: its round trip says what is overdue."""
        if heard:
            self._last = now
        timing = self._timing
        if now - self._last >= timing.dead_after:
            return Verdict.DEAD
        due = now - self._pinged >= timing.ping_after
        if due and (measured or now - self._last >= timing.ping_after):
            return Verdict.PING
        return Verdict.FINE

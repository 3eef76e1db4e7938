"""When a worker that has ended is begun again: at once after a long life, later and later after short ones."""

from __future__ import annotations

from typing import Final

FIRST: Final = 0.05
MOST: Final = 10.0
"""Seconds between an end and the next beginning."""
STABLE: Final = 10.0
"""Seconds for which a worker has to serve for its end to count as the first."""


class Restarts:
    """Of one worker; time is passed in (seconds of any clock)."""

    def __init__(self) -> None:
        self._short = 0
        self._ready: float | None = None

    def ready(self, now: float) -> None:
        """It serves."""
        self._ready = now

    def ended(self, now: float) -> float:
        """It has ended; seconds until it is to be begun again."""
        if self._ready is not None and now - self._ready >= STABLE:
            self._short = 0
        self._ready = None
        pause = min(MOST, FIRST * 2.0**self._short)
        self._short = min(self._short + 1, 16)
        return pause

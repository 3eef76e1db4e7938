"""Which holding of its cluster an agent has seen: a holder of before is not attached to again."""

from __future__ import annotations

from agent.attaching import AttachFailed

MEMORY = 600.0
"""Seconds for which the highest epoch is remembered: a Lease that was made anew is not refused for ever."""
UNKNOWN = 0
"""The epoch of a challenge that leaves it to the welcome: a replica does not know yet which cluster it is about."""


class Epochs:
    """The highest epoch that a session had, and when it was seen last. `now` is the loop's time."""

    def __init__(self) -> None:
        self.highest = UNKNOWN
        self._seen = 0.0

    def check(self, epoch: int, now: float) -> None:
        """Raises AttachFailed where a higher one was seen not long ago."""
        if UNKNOWN < epoch < self.highest and now - self._seen < MEMORY:
            raise AttachFailed(f"the stub's epoch {epoch} is older than {self.highest}: it is not the holder any more")

    def attached(self, epoch: int, now: float) -> None:
        """A session has this epoch: from now on it is the one to go by. Raises as `check` does."""
        self.check(epoch, now)
        self.highest, self._seen = epoch, now

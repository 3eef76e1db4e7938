"""Which holding of the stub's Lease an agent has seen: a holder of before is not attached to again."""

from __future__ import annotations

from agent.attaching import AttachFailed

MEMORY = 600.0
"""Seconds for which the highest epoch is remembered: a Lease that was made anew is not refused for ever."""


class Epochs:
    """The highest epoch, and when it was seen last. `now` is the loop's time."""

    def __init__(self) -> None:
        self.highest = 0
        self._seen = 0.0

    def check(self, epoch: int, now: float) -> None:
        """Remember an epoch. Raises AttachFailed where a higher one was seen not long ago."""
        if epoch < self.highest and now - self._seen < MEMORY:
            raise AttachFailed(f"the stub's epoch {epoch} is older than {self.highest}: it is not the holder any more")
        self.highest, self._seen = epoch, now

"""What waits to be brought to the hub, as one is told at times: how much, and for how long the oldest does."""

from __future__ import annotations

import math


class Backlog:
    """`documents` is how many. Times are the loop's."""

    def __init__(self) -> None:
        self.documents = 0
        self._oldest: int | None = None
        self._since = math.inf

    def looked(self, documents: int, oldest: int | None, now: float) -> None:
        """A look into the file; `oldest` numbers the change that waits for longest, and differs when that is done."""
        if oldest != self._oldest:
            self._oldest, self._since = oldest, now
        self.documents = documents

    def age(self, now: float) -> float:
        """Seconds for which the oldest was seen to wait; 0: nothing waits."""
        return max(0.0, now - self._since) if self._oldest is not None else 0.0

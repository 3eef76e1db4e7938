"""How long to wait before the next try of what has failed, so that ten thousand who lost the same thing do not come
back in one second.
"""

from __future__ import annotations

import math
from collections.abc import Callable


class BackOff:
    """Exponential, with half of each delay by chance. `uniform` gives numbers of [0, 1); all others are seconds, but
    for `factor`, by which the bound grows from `first` to `most`.

    It grows not beyond `soon` until it has waited for `patience` in all: what is taken over by another is back within
    seconds, and what is not may take its time.
    """

    def __init__(
        self,
        uniform: Callable[[], float],
        first: float,
        most: float,
        factor: float = 2.0,
        soon: float = math.inf,
        patience: float = 60.0,
        spread: float = 1.0,
    ) -> None:
        self._uniform = uniform
        self._first = min(first, most)
        self._most = most
        self._factor = factor
        self._soon = min(soon, most)
        self._patience = patience
        self._spread = spread
        self._bound = self._first
        self._waited = 0.0
        self.failures = 0
        """In a row: how often it was asked since it began anew."""

    def next(self) -> float:
        """Seconds to wait now, after one more failure: between a half and the whole of a bound that grows with each."""
        delay = self._bound * (0.5 + 0.5 * self._uniform())
        self.failures += 1
        self._waited += delay
        self._bound = min(self._bound * self._factor, self._soon if self._waited < self._patience else self._most)
        return delay

    def reset(self) -> None:
        """It went well: begin anew."""
        self._bound, self._waited, self.failures = self._first, 0.0, 0

    def scatter(self) -> float:
        """Seconds to wait before the first try of all, within `spread`: whoever lost the same server does not come back
        as one.
        """
        return self._spread * self._uniform()

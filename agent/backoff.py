"""How long to wait before the next attempt to attach, so that ten thousand agents do not come back in one
second.
"""

from __future__ import annotations

from collections.abc import Callable


class BackOff:
    """Exponential, with half of each delay at random. `uniform` gives numbers of [0, 1).

    It grows to `most`, but not beyond `soon` until it has waited for `patience` seconds in all: a server that is taken
    over by another is back within seconds, and one that is not may take its time.
    """

    def __init__(
        self,
        uniform: Callable[[], float],
        first: float = 0.5,
        most: float = 30.0,
        factor: float = 2.0,
        spread: float = 1.0,
        soon: float = 5.0,
        patience: float = 60.0,
    ) -> None:
        self._uniform = uniform
        self._first = first
        self._most = most
        self._factor = factor
        self._spread = spread
        self._soon = min(soon, most)
        self._patience = patience
        self._bound = first
        self._waited = 0.0

    def next(self) -> float:
        """Seconds to wait now: between a half and the whole of a bound that grows with each call."""
        delay = self._bound * (0.5 + 0.5 * self._uniform())
        self._waited += delay
        self._bound = min(self._bound * self._factor, self._soon if self._waited < self._patience else self._most)
        return delay

    def reset(self) -> None:
        """The last attempt held: begin anew."""
        self._bound = self._first
        self._waited = 0.0

    def scatter(self) -> float:
        """Seconds to wait before the first attempt of all: whoever lost the same server does not come back as one."""
        return self._spread * self._uniform()

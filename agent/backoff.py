"""How long to wait before the next attempt to attach, so that ten thousand agents do not come back in one
second.
"""

from __future__ import annotations

from collections.abc import Callable


class BackOff:
    """Exponential, with half of each delay at random. `uniform` gives numbers of [0, 1)."""

    def __init__(
        self,
        uniform: Callable[[], float],
        first: float = 0.5,
        most: float = 30.0,
        factor: float = 2.0,
        spread: float = 1.0,
    ) -> None:
        self._uniform = uniform
        self._first = first
        self._most = most
        self._factor = factor
        self._spread = spread
        self._bound = first

    def next(self) -> float:
        """Seconds to wait now: between a half and the whole of a bound that grows with each call."""
        bound = self._bound
        self._bound = min(bound * self._factor, self._most)
        return bound * (0.5 + 0.5 * self._uniform())

    def reset(self) -> None:
        """The last attempt held: begin anew."""
        self._bound = self._first

    def scatter(self) -> float:
        """Seconds to wait before the first attempt of all: whoever lost the same server does not come back as one."""
        return self._spread * self._uniform()

"""How long to wait before a replica is dialled again: short, since its users wait, and not all at once."""

from __future__ import annotations

from collections.abc import Callable


class PeerBackOff:
    """The bound doubles with each attempt, and half of each pause is by chance. `uniform` gives numbers of [0, 1)."""

    def __init__(self, uniform: Callable[[], float], first: float, most: float) -> None:
        self._uniform = uniform
        self._first = first
        self._most = most
        self._bound = first

    def next(self) -> float:
        """Seconds to wait now."""
        bound, self._bound = self._bound, min(2 * self._bound, self._most)
        return bound * (0.5 + 0.5 * self._uniform())

    def reset(self) -> None:
        """An attempt held."""
        self._bound = self._first

"""An `Ownership` that a test sets."""

from __future__ import annotations

from collections.abc import Callable

from stub.ownership import Place, Replica


class Owners:
    """Who holds all clusters, as the test says: `hold` tells whoever listens."""

    def __init__(self, identity: str = "one", *others: Replica) -> None:
        self.identity = identity
        self.others = others
        self._holder = ""
        self._epoch = 0
        self._heard: list[Callable[[], None]] = []

    def hold(self, holder: str, epoch: int = 0) -> None:
        """This replica, another one, or (empty) nobody has all clusters now."""
        self._holder, self._epoch = holder, epoch
        for heard in tuple(self._heard):
            heard()

    def place(self, cluster: str) -> Place:
        """See `Ownership`."""
        return Place(self._holder, self._holder == self.identity, self._epoch)

    @property
    def leading(self) -> bool:
        """See `Ownership`."""
        return self._holder == self.identity

    def leader(self) -> str:
        """See `Ownership`."""
        return self._holder

    def replicas(self) -> tuple[Replica, ...]:
        """See `Ownership`."""
        return (Replica(self.identity, ""), *self.others)

    def subscribe(self, changed: Callable[[], None]) -> Callable[[], None]:
        """See `Ownership`."""
        self._heard.append(changed)
        return lambda: self._heard.remove(changed)

"""Ownership among the workers of one machine, as their parent process assigns it: no Lease, since the kernel tells a
parent at once which of its children are alive, and a child that has ended reaches nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Final

from stub.leases.rendezvous import best, shard_of
from stub.ownership import Place, Replica

SHARES: Final = 1_024
"""Clusters are assigned by so many shares: two workers differ by a few per cent in what they have."""
_NOBODY: Final = Place("", False)


class Assigned:
    """The `Ownership` of the worker `me`. `workers` are all that there are to be, the one that leads first: who owns
    what follows from their names alone, so that all say the same, and nothing moves when one of them is begun anew.
    """

    def __init__(self, workers: tuple[Replica, ...], me: str, epoch: int) -> None:
        names = [one.identity for one in workers]
        self._workers = workers
        self._me = me
        self._owners = [best(share, names) for share in range(SHARES)]
        self._places = {name: Place(name, name == me, epoch if name == me else 0) for name in names}
        self._alive = frozenset((me,))
        self._subscribers: list[Callable[[], None]] = []

    def tell(self, alive: Iterable[str]) -> None:
        """Which workers serve now, by their parent's word; this one does in any case."""
        alive = frozenset((*alive, self._me))
        if alive != self._alive:
            self._alive = alive
            for changed in tuple(self._subscribers):
                changed()

    def owner(self, cluster: str) -> str:
        """Whose a cluster is, whether it is alive or not."""
        return self._owners[shard_of(cluster, SHARES)]

    def place(self, cluster: str) -> Place:
        """See `Ownership`. A worker that is begun anew has its clusters again in a moment: until then, nobody has."""
        owner = self.owner(cluster)
        return self._places[owner] if owner in self._alive else _NOBODY

    @property
    def leading(self) -> bool:
        """See `Ownership`."""
        return self._me == self._workers[0].identity

    def leader(self) -> str:
        """See `Ownership`."""
        first = self._workers[0].identity
        return first if first in self._alive else ""

    def replicas(self) -> tuple[Replica, ...]:
        """See `Ownership`."""
        return tuple(one for one in self._workers if one.identity in self._alive)

    def others(self) -> Collection[str]:
        """The workers besides this one that are alive."""
        return [one.identity for one in self.replicas() if one.identity != self._me]

    def subscribe(self, changed: Callable[[], None]) -> Callable[[], None]:
        """See `Ownership`."""
        self._subscribers.append(changed)
        return lambda: self._subscribers.remove(changed)

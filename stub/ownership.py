"""Which replica has a cluster's agents, and whether it is this one: asked for each request, answered from memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Place:
    """Where a cluster is served. `epoch` numbers the holding: agents refuse what a lower one than theirs says."""

    replica: str
    """Identity of the replica that holds it; empty: nobody at present, which seconds will change."""
    mine: bool
    """This process holds it, and its time to say so has not run out."""
    epoch: int = 0


@dataclass(frozen=True, slots=True)
class Replica:
    """Another (or this) server process of the same installation, as its own record tells of it."""

    identity: str
    peer_address: str
    """HOST:PORT where other replicas reach it."""
    agents_address: str = ""
    """https://HOST:PORT where agents reach this very replica, if they can."""
    hint: str = ""
    """The further ALPN entry with which an agent reaches this very worker at the address of all."""


class Ownership(Protocol):
    """Answers at once. What it says changes by itself as time runs out: never keep it over an await."""

    def place(self, cluster: str) -> Place:
        """Who serves this cluster now."""
        ...

    @property
    def leading(self) -> bool:
        """Whether this process is the one that writes what there is once for the whole installation."""
        ...

    def leader(self) -> str:
        """Identity of that one; empty: nobody at present."""
        ...

    def replicas(self) -> tuple[Replica, ...]:
        """All that are alive, as far as known, this one included."""
        ...

    def subscribe(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Calls back, from the loop, when any of this has changed. The returned function ends that."""
        ...


class Alone:
    """The `Ownership` of a single server: everything is its own, for as long as it runs."""

    def __init__(self, identity: str, epoch: int) -> None:
        self._place = Place(identity, True, epoch)

    def place(self, cluster: str) -> Place:
        """See `Ownership`."""
        return self._place

    @property
    def leading(self) -> bool:
        """See `Ownership`."""
        return True

    def leader(self) -> str:
        """See `Ownership`."""
        return self._place.replica

    def replicas(self) -> tuple[Replica, ...]:
        """See `Ownership`."""
        return (Replica(self._place.replica, ""),)

    def subscribe(self, changed: Callable[[], None]) -> Callable[[], None]:
        """See `Ownership`."""
        return lambda: None

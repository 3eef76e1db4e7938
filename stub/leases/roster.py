"""The replicas, by their own Leases as this one has seen them, each in one incarnation.

The epoch of a replica's Lease is its incarnation: it is new for each process, and for one that had lost its Lease.
Whatever an incarnation holds counts for as long as its replica Lease does. One whose time has run out is first
*fenced*: its Lease is released in its place, by the version that did not change for its duration. Then it can never be
renewed, and what it held is free; while it was not fenced, nothing of it was taken, and it may wake and go on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from stub.leases.lease import Lease
from stub.leases.observed import Sighting, sight

PEER: Final = "peer-address"
AGENTS: Final = "agents-address"
LEAVING: Final = "leaving"
"""Notes of a replica's Lease. One that leaves takes nothing any more."""
SHARDS: Final = "shards"
"""Into how many shards it deals clusters; 0: it does not (mode standby). Those who differ must not share any."""


class Standing(Enum):
    """Of one incarnation of a replica."""

    COUNTS = "it may hold, and is heard of"
    OVER = "it cannot hold any more, and is to be fenced"
    FREE = "it cannot hold any more, for ever"


@dataclass(frozen=True, slots=True)
class Peer:
    """A replica that is alive."""

    lease: Lease
    identity: str
    since: float
    """When this incarnation was first seen."""
    renewed: float
    """When its last renewal was seen."""

    @property
    def incarnation(self) -> int:
        """See above."""
        return self.lease.epoch

    @property
    def takes(self) -> bool:
        """It may be given shards."""
        return LEAVING not in self.lease.notes


class Roster:
    """All Leases below `prefix` but the own. `least`: the duration of one that was never seen."""

    def __init__(self, prefix: str, identity: str, least: float) -> None:
        self._prefix = prefix
        self._own = prefix + identity
        self._least = least
        self._seen: dict[str, Sighting] = {}
        self._since: dict[str, tuple[int, float]] = {}

    def see(self, leases: Iterable[Lease], named: Iterable[str], now: float, blind: bool) -> None:
        """What a list has shown; `named` are identities that hold something, whether or not they are listed."""
        found = {one.name: one for one in leases if one.name.startswith(self._prefix) and one.name != self._own}
        wanted = {self._prefix + identity for identity in named} - {self._own}
        fresh = {name for name, old in self._seen.items() if not old.over(now)}
        self._seen = {
            name: sight(self._seen.get(name), found.get(name), now, self._least, blind)
            for name in found.keys() | wanted | fresh
        }
        self._since = {name: self._first(name, now) for name in found}

    def glimpse(self, lease: Lease, now: float) -> None:
        """One of them was seen otherwise, or written: sooner than the next list."""
        if lease.name.startswith(self._prefix) and lease.name != self._own and lease.name in self._seen:
            self._seen[lease.name] = sight(self._seen[lease.name], lease, now, self._least)
            self._since[lease.name] = self._first(lease.name, now)

    def _first(self, name: str, now: float) -> tuple[int, float]:
        lease, known = self._seen[name].lease, self._since.get(name)
        epoch = lease.epoch if lease is not None else 0
        return known if known is not None and known[0] == epoch else (epoch, now)

    # ---

    def standing(self, identity: str, incarnation: int, now: float) -> Standing:
        """Of something that says that it is held by this incarnation of another replica."""
        seen = self._seen.get(self._prefix + identity)
        if seen is None:
            return Standing.COUNTS  # not looked for yet
        if seen.lease is None:
            return Standing.FREE if seen.over(now) else Standing.COUNTS
        if seen.released or seen.lease.epoch != incarnation:
            return Standing.FREE
        return Standing.OVER if seen.over(now) else Standing.COUNTS

    def alive(self, now: float) -> dict[str, Peer]:
        """By identity."""
        return {
            peer.identity: peer
            for name, seen in self._seen.items()
            if (peer := self._peer(name, seen, now)) is not None
        }

    def _peer(self, name: str, seen: Sighting, now: float) -> Peer | None:
        identity = name.removeprefix(self._prefix)
        if seen.lease is None or seen.lease.holder != identity or seen.over(now):
            return None
        return Peer(seen.lease, identity, self._since[name][1], seen.since)

    def over(self, now: float) -> list[Lease]:
        """Those to be fenced."""
        held = (seen for seen in self._seen.values() if seen.lease is not None and seen.lease.holder)
        return [seen.lease for seen in held if seen.lease is not None and seen.over(now)]

    def old(self, now: float, tidy: float, keep: Callable[[Lease], bool]) -> list[Lease]:
        """Those of nobody for `tidy` seconds, and not kept for another reason."""
        nobodys = [seen for seen in self._seen.values() if seen.over(now) and now >= seen.since + tidy]
        return [seen.lease for seen in nobodys if seen.lease is not None and not keep(seen.lease)]

    def next(self, now: float) -> float:
        """When the next one may be over."""
        times = (seen.since + seen.duration for seen in self._seen.values() if not seen.over(now))
        return min(times, default=float("inf"))

    @property
    def empty(self) -> bool:
        """Nobody else was ever there, as far as it can be known."""
        return not self._seen

    def discord(self, shards: int, incarnation: int) -> str | None:
        """A replica that was there before the own incarnation and deals clusters out otherwise, in another number of
        shards or another mode: nothing may be shared with it, until its Lease is released.
        """
        held = (seen.lease for seen in self._seen.values() if seen.lease is not None and not seen.released)
        others = (one for one in held if one.notes.get(SHARDS, str(shards)) != str(shards))
        return next((one.holder for one in others if one.epoch < incarnation), None)

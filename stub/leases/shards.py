"""Who owns which shard, as decisions with the time passed in.

A shard's Lease is written only when its owner changes. It names a replica and that replica's incarnation, and counts
for as long as that one's own Lease does (stub/leases/roster.py). Each write replaces the version that was seen, so that
of two who want a shard one gets it. A shard is mine only

- where the last look has shown my identity and my present incarnation, or an own write said so and was answered;
- while my replica Lease holds and my last look is not older than its deadline (the caller's part: `Sharded`);
- and where no write of mine that gave it away may still be under way: after one without an answer, only a further
  write of my own makes it mine again, because it replaces the version that the lost one was for.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from stub.leases.election import released, risen
from stub.leases.lease import Lease
from stub.leases.observed import Sighting, sight
from stub.leases.rendezvous import best, ranked
from stub.leases.roster import SHARDS, Peer, Roster, Standing
from stub.leases.settings import LeaseSettings

INCARNATION: Final = "incarnation"
"""Note of a shard's Lease: the epoch of the replica Lease that it hangs on."""


@dataclass(frozen=True, slots=True)
class Deeds:
    """What to write: all at once, each by itself. `give` are shards that stop being mine before they are written."""

    fence: Sequence[Lease] = ()
    claim: Sequence[Lease] = ()
    give: Sequence[Lease] = ()

    def __bool__(self) -> bool:
        return bool(self.fence or self.claim or self.give)


class Shards:
    """One replica's view. `incarnation` in what follows is the own one; 0: there is none, and nothing is mine."""

    def __init__(self, identity: str, settings: LeaseSettings) -> None:
        self._identity = identity
        self._settings = settings
        self._blind = settings.replica.deadline
        self.roster = Roster(settings.replica_prefix, identity, settings.replica.duration)
        self._seen: list[Sighting] = []
        self._had: dict[int, int] = {}
        """Shards whose Leases have vanished under that incarnation of mine."""
        self._free: set[int] = set()
        """Those that nobody ever had."""
        self._unsure: set[int] = set()
        self._stale: set[int] = set()
        self._free_since: dict[int, float] = {}
        self._gave = float("-inf")
        self._looked = float("-inf")
        self.highest = 0
        """The highest epoch that was seen anywhere."""

    # --- what was seen

    def see(self, listed: Sequence[Lease], now: float) -> None:
        """A list, begun after all own writes were answered or given up."""
        blind, first = now - self._looked > self._blind, not self._seen
        found = {one.name: one for one in listed}
        leases = [found.get(f"{self._settings.shard_prefix}{n}") for n in range(self._settings.shards)]
        named = {one.holder for one in leases if one is not None and one.holder}
        self.roster.see(listed, named, now, blind)
        if first and self.roster.empty and not any(leases):
            self._free.update(range(len(leases)))
        before: Sequence[Sighting | None] = self._seen or [None] * len(leases)
        self._vanished(before, leases)
        least = self._settings.replica.duration
        self._seen = [sight(old, one, now, least, blind) for old, one in zip(before, leases, strict=True)]
        self._stale.clear()
        self._unsure = {n for n in self._unsure if (one := leases[n]) is not None and one.holder == self._identity}
        self._looked = now
        self.highest = max(self.highest, max((one.epoch for one in listed), default=0))

    def _vanished(self, before: Sequence[Sighting | None], leases: Sequence[Lease | None]) -> None:
        """What was deleted by hand is made anew at once by who had it, and cannot be another's meanwhile."""
        for n, (old, lease) in enumerate(zip(before, leases, strict=True)):
            was = old.lease if old is not None else None
            if lease is not None:
                self._free.discard(n)
                self._had.pop(n, None)
            elif was is not None and was.holder == self._identity and n not in self._unsure:
                self._had[n] = self._says(was)[1]

    def wrote(self, lease: Lease, now: float) -> None:
        """An own write of a shard was answered: it is so."""
        n = self.number(lease)
        self._seen[n] = sight(self._seen[n], lease, now, self._settings.replica.duration)
        self._unsure.discard(n)
        self.highest = max(self.highest, lease.epoch)

    def giving(self, lease: Lease) -> None:
        """It is about to be written to another: not mine any more, whatever the answer."""
        self._unsure.add(self.number(lease))

    def refused(self, lease: Lease) -> None:
        """That write will never take effect, since somebody else's did; the next look tells whose."""
        n = self.number(lease)
        self._unsure.discard(n)
        self._stale.add(n)

    def number(self, lease: Lease) -> int:
        """Of a shard's Lease."""
        return int(lease.name.removeprefix(self._settings.shard_prefix))

    # --- what is so

    def mine(self, n: int, incarnation: int) -> bool:
        """Whether it is, as long as the own time has not run out."""
        return n not in self._unsure and n not in self._stale and self._own(n, incarnation)

    def _own(self, n: int, incarnation: int) -> bool:
        lease = self._seen[n].lease if self._seen else None
        return lease is not None and incarnation > 0 and self._says(lease) == (self._identity, incarnation)

    def holders(self, now: float) -> Iterable[tuple[str, int]]:
        """For each shard the (identity, epoch) of another that holds it as far as known; an empty identity: nobody who
        could be asked.
        """
        alive = self.roster.alive(now)
        for lease in [one.lease for one in self._seen] or [None] * self._settings.shards:
            holder, of = self._says(lease) if lease is not None else ("", 0)
            peer = alive.get(holder)
            there = peer is not None and peer.incarnation == of
            yield (holder if there else ""), (lease.epoch if lease is not None else 0)

    def names(self, replica: Lease) -> bool:
        """Whether a shard still hangs on this replica's Lease, which therefore has to tell that it is over."""
        identity = replica.name.removeprefix(self._settings.replica_prefix)
        told = (self._says(one.lease) for one in self._seen if one.lease is not None)
        return (identity, replica.epoch) in told

    @staticmethod
    def _says(lease: Lease) -> tuple[str, int]:
        told = lease.notes.get(INCARNATION, "")
        return lease.holder, int(told) if told.isascii() and told.isdigit() and len(told) < 20 else 0

    def _standing(self, n: int, incarnation: int, now: float) -> Standing:
        """FREE: it may be claimed. My own counts as mine, and what a former process of my name had is free."""
        seen = self._seen[n]
        if seen.lease is None:
            known = n in self._free or (incarnation > 0 and self._had.get(n) == incarnation)
            return Standing.FREE if known or seen.over(now) else Standing.COUNTS
        holder, of = self._says(seen.lease)
        if not holder:
            return Standing.FREE
        if holder == self._identity:
            return Standing.COUNTS if self.mine(n, incarnation) else Standing.FREE
        return self.roster.standing(holder, of, now)

    # --- what to do

    def decide(self, now: float, wall: float, incarnation: int) -> Deeds:
        """For a replica whose own Lease holds."""
        if not self._seen or now - self._looked > self._blind:
            return Deeds()
        fence = [released(one, wall) for one in self.roster.over(now)]
        if self.roster.discord(self._settings.shards, incarnation) is not None:
            return Deeds(fence)
        claim = list(self._claims(now, wall, incarnation))
        return Deeds(fence, claim, () if claim else list(self._gifts(now, wall, incarnation)))

    def _claims(self, now: float, wall: float, incarnation: int) -> Iterable[Lease]:
        candidates = [self._identity, *(one for one, peer in self._peers(now).items() if peer.takes)]
        for n in range(len(self._seen)):
            if n in self._stale or self._standing(n, incarnation, now) is not Standing.FREE:
                self._free_since.pop(n, None)
                continue
            since = self._free_since.setdefault(n, now)
            lease = self._seen[n].lease
            again = lease is not None and lease.holder == self._identity
            turn = 0 if again else ranked(n, candidates).index(self._identity)
            if now >= since + turn * self._settings.patience:
                yield self._written(n, self._identity, incarnation, wall)

    def _peers(self, now: float) -> dict[str, Peer]:
        """Those alive that count shards as this one does."""
        own = str(self._settings.shards)
        return {one: peer for one, peer in self.roster.alive(now).items() if peer.lease.notes.get(SHARDS, own) == own}

    def _gifts(self, now: float, wall: float, incarnation: int) -> Iterable[Lease]:
        if now < self._gave + self._settings.step:
            return
        there = self._peers(now)
        settled = {one: peer for one, peer in there.items() if peer.takes and self._settled(peer, now)}
        left = self._settings.moving
        for n in range(len(self._seen)):
            better = best(n, [self._identity, *settled]) if left and self.mine(n, incarnation) else self._identity
            if better != self._identity:
                left, self._gave = left - 1, now
                yield self._written(n, better, settled[better].incarnation, wall)

    def _settled(self, peer: Peer, now: float) -> bool:
        """It has been there for a while, and was heard of just now."""
        return now >= peer.since + self._settings.settle and now <= peer.renewed + 2 * self._settings.replica.retry

    def parting(self, wanted: Collection[int] | None, now: float, wall: float, incarnation: int) -> Iterable[Lease]:
        """What a leaving replica writes: each of its shards to the best of the others, or to nobody. None: all."""
        others = {one: peer for one, peer in self._peers(now).items() if peer.takes}
        for n in range(len(self._seen)):
            if (wanted is not None and n not in wanted) or not self._own(n, incarnation):
                continue
            if others:
                heir = best(n, others)
                yield self._written(n, heir, others[heir].incarnation, wall)
            else:
                lease = self._seen[n].lease
                assert lease is not None
                yield released(lease, wall)

    def _written(self, n: int, holder: str, incarnation: int, wall: float) -> Lease:
        lease = self._seen[n].lease
        before = lease or Lease(f"{self._settings.shard_prefix}{n}", holder)
        return replace(
            before,
            holder=holder,
            duration=int(self._settings.replica.duration),
            acquired=wall,
            renewed=wall,
            transitions=before.transitions + (before.holder != holder),
            epoch=risen(max(before.epoch, self.highest if lease is None else 0), wall),
            notes={INCARNATION: str(incarnation)},
        )

    def next(self, now: float) -> float:
        """When, without any news, something is to be done again at the latest."""
        turns = [since + k * self._settings.patience for since in self._free_since.values() for k in range(1, 5)]
        later = [one for one in turns if one > now]
        return min([self.roster.next(now), *later])

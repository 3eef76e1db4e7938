"""Who holds one Lease: client-go's leader election as decisions, with the time passed in.

`now` is a steady clock of this process alone, `wall` the time for the record. A holder stops at its deadline, counted
from the *start* of its last successful renewal; others wait the (longer) duration from when they *saw* the last change.
A write whose answer was lost may take effect late, or may have: the version that each write replaces settles it.

A holding outlives its deadline: while the record still says this very holding, nobody else has had it, and renewing
goes on in it, with its epoch. The record's holder and epoch together say "this very holding": the same identity with
another epoch is a former process of the same name, and its holding is over.

Source: client-go, tools/leaderelection/leaderelection.go; where this differs (epochs, versions instead of times, going
on after the deadline, waiting after a deletion), it is on the safer side.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from stub.leases.lease import Lease
from stub.leases.observed import Sighting, sight
from stub.leases.settings import Timing

HASTE: Final = 0.1
"""A free Lease is taken within this part of the retry period: at once, but not by all in the same moment."""
RELEASED: Final = 1
"""`leaseDurationSeconds` of a released one, as client-go writes it."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do before `until` (infinite: before something is seen)."""

    until: float


@dataclass(frozen=True, slots=True)
class Look:
    """Read the Lease, and tell `looked`."""


@dataclass(frozen=True, slots=True)
class Write:
    """Put this; then tell `renewed`, `conflicted` or `failed`."""

    lease: Lease


Step = Wait | Look | Write


class Election:
    """One candidate for one Lease. `contested` False: it is this identity's own, and nobody else's to hold."""

    def __init__(
        self, name: str, identity: str, timing: Timing, randomness: Callable[[], float], *, contested: bool = True
    ) -> None:
        self.name = name
        self.notes: Mapping[str, str] = {}
        """What the record is to say besides, from the next write on."""
        self.transitions = 0
        """How often this candidate began to hold."""
        self._identity = identity
        self._timing = timing
        self._randomness = randomness
        self._contested = contested
        self._held: Lease | None = None
        self._last: Lease | None = None
        self._started = -math.inf
        self._seen: Sighting | None = None
        self.free = math.inf
        """When it may be taken, if nothing is seen to change before."""
        self._looked = -math.inf
        self._unsure = False
        self._next = -math.inf
        self._highest = 0
        self._resigned = False

    # --- what is so

    def holds(self, now: float) -> bool:
        """Whether this process may act as the holder."""
        return self._held is not None and now < self.until

    @property
    def until(self) -> float:
        """The end of its time, unless it renews."""
        return self._started + self._timing.deadline if self._held is not None else -math.inf

    @property
    def epoch(self) -> int:
        """Of the own holding, which may have run out of time; 0: there is none."""
        return self._held.epoch if self._held is not None else 0

    @property
    def acquired(self) -> float:
        """When the own holding began, by the wall clock."""
        return self._held.acquired if self._held is not None else 0.0

    def holder(self, now: float) -> tuple[str, int]:
        """(identity, epoch) of who holds it as far as known; an empty identity: nobody who could be asked."""
        if self._held is not None:
            return (self._identity if self.holds(now) else "", self._held.epoch)
        seen = self._seen
        if seen is None or seen.lease is None:
            return "", self._highest
        lost = seen.over(now) or seen.lease.holder == self._identity
        return ("" if lost else seen.lease.holder), seen.lease.epoch

    # --- what was seen

    def observe(self, lease: Lease | None, now: float, *, untouched: bool = False) -> None:
        """What a list has shown: nothing that a holder needs, who hears of a change by its own renewal.
        `untouched`: nobody was ever here, so that a missing Lease is not one that was deleted under its holder.
        """
        if self._held is None:
            self._sight(lease, now, untouched)

    def glimpse(self, lease: Lease, now: float) -> None:
        """A watch has shown another version of what was seen: its duration runs anew."""
        if self._held is None and self._seen is not None and self._seen.lease != lease:
            self._sight(lease, now, False)

    def looked(self, lease: Lease | None, now: float) -> None:
        """The answer to `Look`."""
        self._unsure, held = False, self._held
        if held is not None:
            if lease is not None and (lease.holder, lease.epoch) == (self._identity, held.epoch):
                self._held = lease
                return
            gone = lease is None and self.holds(now)  # nobody can have made it anew: they all wait longer
            self._held = None
            self._sight(lease, now, gone)
            return
        self._sight(lease, now, False)

    def _sight(self, lease: Lease | None, now: float, untouched: bool) -> None:
        before, blind = self._seen, now - self._looked > self._timing.deadline
        self._seen, self._looked = sight(before, lease, now, self._timing.duration, blind), now
        self._highest = max(self._highest, lease.epoch if lease is not None else 0)
        if self._seen is not before:
            self.free = self._free_at(self._seen, untouched)

    def known(self, epoch: int) -> None:
        """An epoch that was seen anywhere: the next holding's is above it."""
        self._highest = max(self._highest, epoch)

    def _free_at(self, seen: Sighting, untouched: bool) -> float:
        if not self._contested or (seen.lease is not None and seen.lease.holder == self._identity):
            return seen.since
        if seen.released or (seen.lease is None and untouched):
            return seen.since + HASTE * self._timing.retry * self._randomness()
        return seen.since + seen.duration

    # --- what to do

    def decide(self, now: float, wall: float) -> Step:
        """The next step; each `Write` is to be told of before this is asked again."""
        if self._resigned:
            return Wait(math.inf)
        if now < self._next:
            return Wait(self._next)
        if self._unsure:
            return Look()
        if self._held is not None:
            return Write(replace(self._held, renewed=wall, duration=int(self._timing.duration), notes=dict(self.notes)))
        if now < self.free:
            return Wait(self.free)
        if self._contested and now - self._looked > self._timing.deadline:
            return Wait(math.inf)  # the hub was away: its holder comes back first, if it lives
        return Write(self._taken(wall))

    def _taken(self, wall: float) -> Lease:
        seen = self._seen.lease if self._seen is not None else None
        before = seen or Lease(self.name, self._identity)
        return replace(
            before,
            holder=self._identity,
            duration=int(self._timing.duration),
            acquired=wall,
            renewed=wall,
            transitions=before.transitions + (before.holder != self._identity),
            epoch=risen(self._highest, wall),
            notes=dict(self.notes),
        )

    def renewed(self, lease: Lease, started: float) -> None:
        """A write that began at `started` has succeeded."""
        if self._resigned:
            return
        if self._held is None:
            self.transitions += 1
        self._held, self._started, self._unsure = lease, started, False
        self._seen = None
        self.free, self._highest = math.inf, max(self._highest, lease.epoch)
        self._next = started + self._timing.retry

    def conflicted(self, now: float) -> None:
        """Somebody else wrote it, or it is gone, or an own write took effect whose answer was lost."""
        self._unsure, self._next = True, now

    def failed(self, started: float, now: float) -> None:
        """No answer, or none that tells. The write may have taken effect, or may yet."""
        self._next = max(started + self._timing.retry * (0.5 + self._randomness() / 2), now)

    def hurry(self, now: float) -> None:
        """The next renewal at once: the notes have changed."""
        self._next = min(self._next, now)

    def give_up(self) -> None:
        """As a process that has ended and begins again: what it held is not renewed. The next holding is a new one."""
        self._held, self._seen, self._unsure = None, None, False
        self.free = math.inf

    def resign(self, wall: float) -> Lease | None:
        """Holds no longer, and never again. What to put so that another need not wait; None: there is nothing to."""
        self._last, self._held, self._resigned = self._held, None, True
        return released(self._last, wall) if self._last is not None else None

    def released(self, found: Lease, wall: float) -> Lease | None:
        """After `resign`: the same for what is in its place by now, where that is still the same holding."""
        last = self._last
        same = last is not None and (found.holder, found.epoch) == (last.holder, last.epoch)
        return released(found, wall) if same else None

    def taken_late(self, lease: Lease, wall: float) -> Lease:
        """After `resign`: the same for what was taken by a write that was under way then."""
        self._last = lease
        return released(lease, wall)


def released(lease: Lease, wall: float) -> Lease:
    """As client-go releases; the epoch stays, for the next holding to be above it."""
    return replace(lease, holder="", duration=RELEASED, acquired=wall, renewed=wall)


def risen(highest: int, wall: float) -> int:
    """The epoch of a new holding: above each that is known, and above those of a Lease that was deleted."""
    return max(highest + 1, int(wall * 1000))

"""What an observer knows of a Lease: how it looked last, and since when, by the observer's own clock.

Nobody compares another's clock with his own: a Lease is over when it has not changed for its duration (client-go's
rule). Whatever changes its version counts: a holder whose wall clock stands still renews all the same. One that has
vanished counts for as long again from when that was seen: its holder may not know yet. And who could not look for a
while begins to count anew: a hub that was away was away for the holder, too.
"""

from __future__ import annotations

from dataclasses import dataclass

from stub.leases.lease import Lease


@dataclass(frozen=True, slots=True)
class Sighting:
    """`lease` is None where there is none."""

    lease: Lease | None
    since: float
    """When it was first seen like this."""
    duration: float
    """For how long its holder may go on after `since`."""

    def over(self, now: float) -> bool:
        """Nobody can hold it any more, by time or because it was released."""
        return self.released or now >= self.since + self.duration

    @property
    def released(self) -> bool:
        """It says itself that nobody holds it."""
        return self.lease is not None and not self.lease.holder


def sight(before: Sighting | None, lease: Lease | None, now: float, least: float, blind: bool = False) -> Sighting:
    """What is known after a look at `now`. `least` is the duration where no record tells one; `blind`: the look before
    was long ago.
    """
    if before is not None and before.lease == lease and not blind:
        return before
    if lease is not None:
        return Sighting(lease, now, float(max(lease.duration, 1)))
    return Sighting(None, now, max(least, before.duration if before is not None else 0.0))

"""Mode standby: the holder of one Lease has all clusters, the others stand by."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence

from stub.leases.calls import answered
from stub.leases.election import released
from stub.leases.lease import Lease, LeaseConflict, LeaseStore, LeasesUnavailable
from stub.leases.member import Member
from stub.leases.myself import Myself
from stub.leases.roster import Roster
from stub.leases.settings import LeaseSettings
from stub.ownership import Place


class Elected(Member):
    """`Ownership` by leader election."""

    def __init__(self, me: Myself, settings: LeaseSettings, store: LeaseStore) -> None:
        timing = settings.leader
        roster = Roster(settings.replica_prefix, me.identity, timing.duration)
        super().__init__(me, settings, timing, store, roster, 0)
        self._until = -math.inf
        self._mine = Place(me.identity, True)
        self._others = Place("", False)
        self._seen_at = -math.inf

    def place(self, cluster: str) -> Place:
        """See `stub.ownership.Ownership`."""
        return self._mine if self._clock() < self._until else self._others

    @property
    def held(self) -> int:
        """See `Member`."""
        return int(self.place("").mine)

    @property
    def shards(self) -> int:
        """See `Member`."""
        return 1

    async def resign(self) -> None:
        """For an orderly end: nothing is mine from this call on, and another may have it at once. `run` may then be
        cancelled.
        """
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._leader.resign(), name="release the leader's lease")
            tasks.create_task(self._replica.resign(delete=True), name="delete the replica's lease")

    def _refresh(self, now: float) -> object:
        election = self._leader.election
        self._until = -math.inf if self._over else election.until
        self._mine = Place(self._me.identity, True, election.epoch)
        holder, epoch = election.holder(now)
        self._others = Place(holder if holder != self._me.identity else "", False, epoch)
        return self.place("")

    def _see(self, listed: Sequence[Lease], now: float) -> None:
        blind = now - self._seen_at > self._timing.deadline
        self._roster.see(listed, (), now, blind)
        self._seen_at = now

    async def _act(self) -> None:
        """The keeper of the leader's Lease acts. What was in another mode and fell silent must not wake up any more."""
        for lease in self._roster.over(self._clock()) if self._discord() is not None else ():
            try:
                await answered(self._store.put(released(lease, self._me.wall())), self._timing.patience)
            except (LeaseConflict, LeasesUnavailable):
                self.nudge()

    def _due(self, now: float) -> float:
        return math.inf

    def _kept(self, lease: Lease) -> bool:
        return False

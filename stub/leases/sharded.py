"""Mode sharded: all replicas are active, each for the shards whose Leases name it."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Sequence
from typing import Any, Final

from stub.leases.calls import answered
from stub.leases.lease import Lease, LeaseConflict, LeaseStore, LeasesUnavailable
from stub.leases.member import Member
from stub.leases.myself import Myself
from stub.leases.rendezvous import shard_of
from stub.leases.roster import LEAVING
from stub.leases.settings import LeaseSettings
from stub.leases.shards import Shards
from stub.ownership import Place

_log = logging.getLogger(__name__)
_KNOWN: Final = 65_536
"""Clusters whose shard is remembered; what does not fit is computed."""
_AT_ONCE: Final = 8
"""Writes under way."""
_ROUNDS: Final = 3
"""What a fence has freed is claimed in the same turn."""
GiveUp = Callable[[Collection[int]], Awaitable[None]]


class Sharded(Member):
    """`Ownership` by shards. `on_give_up` is called with shards that were given to another, once that is written: their
    agents are to be sent there. It may take its time.
    """

    def __init__(
        self, me: Myself, settings: LeaseSettings, store: LeaseStore, on_give_up: GiveUp | None = None
    ) -> None:
        self._shards = Shards(me.identity, settings)
        super().__init__(me, settings, settings.replica, store, self._shards.roster, settings.shards)
        self._on_give_up = on_give_up
        self._giving: set[asyncio.Task[None]] = set()
        self._parting: set[int] = set()
        self._leaving = False
        self._resigned = False
        self._writing = asyncio.Semaphore(_AT_ONCE)
        self._until = -math.inf
        self._places = self._late = tuple(Place("", False) for _ in range(settings.shards))
        self._known: dict[str, int] = {}

    # --- what it says

    def place(self, cluster: str) -> Place:
        """See `stub.ownership.Ownership`."""
        shard = self._known.get(cluster)
        if shard is None:
            shard = self.shard(cluster)
        return self._places[shard] if self._clock() < self._until else self._late[shard]

    def shard(self, cluster: str) -> int:
        """The cluster's."""
        found = shard_of(cluster, self._settings.shards)
        if len(self._known) < _KNOWN:
            self._known[cluster] = found
        return found

    def mine(self) -> frozenset[int]:
        """The shards that this replica holds now."""
        places = self._places if self._clock() < self._until else ()
        return frozenset(n for n, place in enumerate(places) if place.mine)

    @property
    def held(self) -> int:
        """See `Member`."""
        return len(self.mine())

    @property
    def shards(self) -> int:
        """See `Member`."""
        return self._settings.shards

    # --- what it does

    async def run(self) -> None:
        """See `Member.run`."""
        try:
            await super().run()
        finally:
            for task in self._giving:
                task.cancel()
            await asyncio.gather(*self._giving, return_exceptions=True)

    async def resign(self, shards: Collection[int] | None = None) -> None:
        """For an orderly end: these shards, or all, are not mine from this call on, and go to the best of the others.
        With some, the replica is one that leaves, and takes none any more; with all, nothing of it is left, and `run`
        may be cancelled. Where the hub does not answer, this ends all the same, and time does the rest. After all,
        there is nothing left to resign: a further call asks the hub nothing.
        """
        if self._resigned:
            return
        self._resigned = shards is None
        self._parting.update(range(self._settings.shards) if shards is None else shards)
        self._leaving = True
        self._replica.election.notes = {**self._replica.election.notes, LEAVING: "true"}
        self._replica.hurry()
        self._changed()
        leader = (
            asyncio.create_task(self._leader.resign(), name="release the leader's lease") if shards is None else None
        )
        try:
            async with self._turn:
                await self._look()
                await self._part()
        finally:
            if leader is not None:
                await leader
        if shards is None:
            await self._replica.resign()

    # --- a round

    def _see(self, listed: Sequence[Lease], now: float) -> None:
        self._shards.see(listed, now)

    async def _act(self) -> None:
        if self._leaving:
            await self._part()
            return
        for _ in range(_ROUNDS):
            now = self._clock()
            if not self._replica.election.holds(now):
                return
            deeds = self._shards.decide(now, self._me.wall(), self._replica.election.epoch)
            if not deeds:
                return
            await self._all(self._write(one, self._shards.wrote, self._shards.refused) for one in deeds.claim)
            await self._all(self._write(one, self._shards.roster.glimpse, self._look_again) for one in deeds.fence)
            await self._give(deeds.give)
            if not deeds.fence:
                return

    async def _part(self) -> None:
        now, incarnation = self._clock(), self._replica.election.epoch
        await self._give(list(self._shards.parting(self._parting, now, self._me.wall(), incarnation)))

    async def _give(self, leases: Sequence[Lease]) -> None:
        """First they are not mine, then they are written, then their agents are told."""
        for lease in leases:
            self._shards.giving(lease)
        self._changed()
        given: list[int] = []

        def wrote(lease: Lease, now: float) -> None:
            self._shards.wrote(lease, now)
            given.append(self._shards.number(lease))

        await self._all(self._write(one, wrote, self._shards.refused) for one in leases)
        if given and self._on_give_up is not None:
            task = asyncio.create_task(self._given(self._on_give_up, given), name="shards given up")
            self._giving.add(task)
            task.add_done_callback(self._giving.discard)

    async def _given(self, tell: GiveUp, shards: Collection[int]) -> None:
        try:
            await tell(shards)
        except Exception:
            _log.exception("the agents of shards that were given up could not be sent on")

    async def _all(self, writes: Iterable[Coroutine[Any, Any, None]]) -> None:
        async with asyncio.TaskGroup() as tasks:
            for write in writes:
                tasks.create_task(write, name="write a lease")
        self._changed()

    async def _write(
        self, lease: Lease, wrote: Callable[[Lease, float], None], refused: Callable[[Lease], None]
    ) -> None:
        try:
            async with self._writing:
                written = await answered(self._store.put(lease), self._timing.patience)
        except LeaseConflict:
            refused(lease)
            self.nudge()
        except LeasesUnavailable as error:
            self._list_problem = f"the Leases cannot be written: {error}"
        else:
            wrote(written, self._clock())

    def _look_again(self, lease: Lease) -> None:
        """Another was faster, or the replica woke."""

    def _due(self, now: float) -> float:
        return self._shards.next(now)

    def _kept(self, lease: Lease) -> bool:
        return self._shards.names(lease)

    # --- what place reads

    def _refresh(self, now: float) -> object:
        election = self._replica.election
        self._until = -math.inf if self._over else min(election.until, self._listed + self._timing.deadline)
        self._late = tuple(Place(holder, False, epoch) for holder, epoch in self._shards.holders(now))
        self._places = tuple(
            Place(self._me.identity, True, late.epoch) if self._holds(n) else late for n, late in enumerate(self._late)
        )
        return self._places if now < self._until else self._late

    def _holds(self, n: int) -> bool:
        return n not in self._parting and self._shards.mine(n, self._replica.election.epoch)

    def _ends(self) -> Iterable[float]:
        return (*super()._ends(), self._until)

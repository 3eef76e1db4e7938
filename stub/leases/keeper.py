"""Does what an Election decides: the task that takes and renews one Lease."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Final

from stub.leases.calls import answered
from stub.leases.election import Election, Look, Wait
from stub.leases.lease import Lease, LeaseConflict, LeaseStore, LeasesUnavailable
from stub.leases.settings import Timing

_TRIES: Final = 3


class Keeper:
    """`changed` is called whenever what the election says may have changed. While this process is not `fit`, it lets
    its Lease run out. `run` is its life.
    """

    def __init__(
        self,
        election: Election,
        store: LeaseStore,
        timing: Timing,
        clock: Callable[[], float],
        wall: Callable[[], float],
        changed: Callable[[], None],
        fit: Callable[[], bool] = lambda: True,
    ) -> None:
        self.election = election
        self.latency: float | None = None
        """Seconds that the last successful write took."""
        self.renewed: float | None = None
        """When the last successful write began, by the clock; it stays when the Lease is lost."""
        self.failures = 0
        """Calls that the hub did not answer."""
        self.problem: str | None = None
        """Why the last call failed."""
        self._store = store
        self._timing = timing
        self._clock = clock
        self._wall = wall
        self._changed = changed
        self._fit = fit
        self._news = asyncio.Event()
        self._writes = asyncio.Lock()
        self._late: Lease | None = None
        """Written by the call that was under way when this resigned."""

    def wake(self) -> None:
        """The election was told something."""
        self._news.set()

    def hurry(self) -> None:
        """Write at once: the notes have changed."""
        self.election.hurry(self._clock())
        self.wake()

    async def run(self) -> None:
        """Until it is cancelled. What it holds then runs out by itself, unless `resign` was called."""
        while True:
            now = self._clock()
            step = self.election.decide(now, self._wall()) if self._fit() else Wait(math.inf)
            if isinstance(step, Wait):
                await self._rest(step.until - now)
            elif isinstance(step, Look):
                await self._look()
            else:
                await self._write(step.lease)

    async def _rest(self, seconds: float) -> None:
        self._news.clear()
        try:
            async with asyncio.timeout(seconds if seconds < math.inf else None):
                await self._news.wait()
        except TimeoutError:
            pass

    async def _look(self) -> None:
        started = self._clock()
        try:
            lease = await answered(self._store.get(self.election.name), self._timing.patience)
        except LeasesUnavailable as error:
            self._failed(error, started)
        else:
            self.election.looked(lease, self._clock())
        self._changed()

    async def _write(self, lease: Lease) -> None:
        async with self._writes:
            await self._put(lease)
        self._changed()

    async def _put(self, lease: Lease) -> None:
        started = self._clock()
        try:
            written = await answered(self._store.put(lease), self._timing.patience)
        except LeaseConflict:
            self.problem = None
            self.election.conflicted(self._clock())
        except LeasesUnavailable as error:
            self._failed(error, started)
        else:
            self.latency, self.renewed, self.problem = self._clock() - started, started, None
            self.election.renewed(written, started)
            self._late = written

    def _failed(self, error: LeasesUnavailable, started: float) -> None:
        self.problem, self.failures = str(error), self.failures + 1
        self.election.failed(started, self._clock())

    async def resign(self, *, delete: bool = False) -> None:
        """Holds no longer from this call on, and says so in the record, if that can be reached: or time does."""
        lease = self.election.resign(self._wall())
        self._changed()
        if lease is None:
            lease = await self._first()
        for _ in range(_TRIES if lease is not None else 0):
            assert lease is not None
            try:
                call = self._store.delete(lease) if delete else self._store.put(lease)
                await answered(call, self._timing.patience)
            except LeasesUnavailable:
                return
            except LeaseConflict:
                lease = await self._again(lease)
                if lease is not None:
                    continue
            return

    async def _first(self) -> Lease | None:
        """What to put where this process resigned in the midst of its first write: it holds what it never knew of."""
        if not self._writes.locked():
            return None
        self._late = None
        async with self._writes:
            return self.election.taken_late(self._late, self._wall()) if self._late is not None else None

    async def _again(self, lease: Lease) -> Lease | None:
        """The same in place of what is there: a renewal was under way. None: it is not ours any more."""
        try:
            found = await answered(self._store.get(lease.name), self._timing.patience)
        except LeasesUnavailable:
            return None
        return self.election.released(found, self._wall()) if found is not None else None

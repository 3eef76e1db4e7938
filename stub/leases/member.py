"""What each of several replicas does, in either mode: keeps a Lease of its own, looks at all of them, may lead.

One look shows everything (`LeaseStore.list`), each retry period, or sooner when it is told (`nudge`, `noticed`).
"""

from __future__ import annotations

import asyncio
import logging
import math
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from stub.leases.board import Board
from stub.leases.calls import answered
from stub.leases.election import Election
from stub.leases.keeper import Keeper
from stub.leases.lease import Lease, LeaseConflict, LeaseStore, LeasesUnavailable
from stub.leases.myself import Myself
from stub.leases.roster import AGENTS, PEER, SHARDS, Roster
from stub.leases.settings import LeaseSettings, Timing, identity_problem
from stub.ownership import Replica

_log = logging.getLogger(__name__)
_SPACING: Final = 0.05
"""Seconds between two looks, however often it is told to look."""


class Member(ABC):
    """The common part of `Elected` and `Sharded`."""

    def __init__(
        self, me: Myself, settings: LeaseSettings, timing: Timing, store: LeaseStore, roster: Roster, shards: int
    ) -> None:
        problems = [*settings.problems(), identity_problem(me.identity)]
        if wrong := next((one for one in problems if one), None):
            raise ValueError(wrong)
        self._me = me
        self._settings = settings
        self._timing = timing
        self._store = store
        self._roster = roster
        self._clock = me.clock
        self._shared = shards
        own = Election(settings.replica_prefix + me.identity, me.identity, timing, me.randomness, contested=False)
        own.notes = me.notes | {SHARDS: str(shards)}
        self._replica = self._keeper(own, timing, self._sees)
        leader = Election(settings.lease, me.identity, settings.leader, me.randomness)
        self._leader = self._keeper(leader, settings.leader, self._may_lead)
        self._incarnation = 0
        self._board = Board()
        self._news = asyncio.Event()
        self._turn = asyncio.Lock()
        self._alarm: asyncio.TimerHandle | None = None
        self._listed = -math.inf
        self._list_problem: str | None = "the Leases were not read yet"
        self._told: object = None
        self._glimpsed: frozenset[tuple[str, str, int]] = frozenset()
        self._over = False
        self._said: tuple[str | None, bool] = (self._list_problem, False)

    def _keeper(self, election: Election, timing: Timing, fit: Callable[[], bool]) -> Keeper:
        return Keeper(election, self._store, timing, self._me.clock, self._me.wall, self._changed, fit)

    def _sees(self) -> bool:
        """Who cannot look does not know what is his, and leaves it to others."""
        return self._clock() < self._listed + self._timing.deadline

    def _may_lead(self) -> bool:
        return self._replica.election.epoch > 0 and self._discord() is None

    def _discord(self) -> str | None:
        return self._roster.discord(self._shared, self._replica.election.epoch or sys.maxsize)

    # --- what it says

    @property
    def leading(self) -> bool:
        """See `stub.ownership.Ownership`."""
        return not self._over and self._leader.election.holds(self._clock())

    def leader(self) -> str:
        """See `stub.ownership.Ownership`."""
        return self._leader.election.holder(self._clock())[0]

    def replicas(self) -> tuple[Replica, ...]:
        """See `stub.ownership.Ownership`."""
        me = Replica(self._me.identity, self._me.peer_address, self._me.agents_address)
        others = self._roster.alive(self._clock()).items()
        return (me, *(Replica(one, *_addresses(peer.lease)) for one, peer in sorted(others)))

    def subscribe(self, changed: Callable[[], None]) -> Callable[[], None]:
        """See `stub.ownership.Ownership`."""
        return self._board.subscribe(changed)

    @property
    def problem(self) -> str | None:
        """Why this replica cannot do its part at present; for readiness and people."""
        if (other := self._discord()) is not None:
            return f"replica {other} deals clusters out otherwise (mode, shards): this one waits until it ends"
        led = self._leader.problem if self._leader.election.epoch else None
        return self._list_problem or self._replica.problem or led

    @property
    def sees(self) -> bool:
        """Whether it has looked at the Leases of late."""
        return self._sees()

    @property
    def blind(self) -> bool:
        """Whether it could not look at the Leases for longer than they last: others may hold what it held."""
        return self._clock() > self._listed + self._timing.duration

    @property
    def leading_since(self) -> float | None:
        """Since when this process leads, in seconds since the epoch; None: it does not."""
        return self._leader.election.acquired if self.leading else None

    @property
    def transitions(self) -> int:
        """How often this process began to lead."""
        return self._leader.election.transitions

    @property
    def renewal_latency(self) -> float | None:
        """Seconds that the last renewal of its own Lease took."""
        return self._replica.latency

    @property
    def renewal_age(self) -> float | None:
        """Seconds since the last successful renewal of its own Lease began; None before the first."""
        renewed = self._replica.renewed
        return None if renewed is None else self._clock() - renewed

    @property
    def renewal_failures(self) -> int:
        """How often the hub did not answer when a Lease was to be renewed: its own, or the leader's."""
        return self._replica.failures + self._leader.failures

    # --- what it does

    async def run(self) -> None:
        """Until it is cancelled; then nothing is this process's any more, and what it held runs out. It may be begun
        again after a failure: as if the process had ended, with holdings of other epochs.
        """
        self._over = False
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._replica.run(), name="lease of this replica")
                tasks.create_task(self._leader.run(), name="lease of the leader")
                tasks.create_task(self._rounds(), name="look at the leases")
        except Exception:
            self._replica.election.give_up()
            self._leader.election.give_up()
            raise
        finally:
            self._over = True
            self._changed()

    def nudge(self) -> None:
        """Look now: something has changed there."""
        self._news.set()

    def noticed(self, leases: Sequence[Lease]) -> None:
        """What a watch shows: whose times run anew, and whether there is a reason to look. No more: it may be late."""
        now = self._clock()
        for lease in leases:
            self._roster.glimpse(lease, now)
            if lease.name == self._settings.lease:
                self._leader.election.glimpse(lease, now)
        told = frozenset((one.name, one.holder, one.epoch) for one in leases)
        if told != self._glimpsed:
            self._glimpsed = told
            self.nudge()

    async def _rounds(self) -> None:
        while True:
            started = self._clock()
            async with self._turn:
                if await self._look() and not self._over:
                    await self._act()
                    await self._tidy()
            await self._pause(started)

    async def _look(self) -> bool:
        started = self._clock()
        try:
            listed = await answered(self._store.list(), self._timing.patience)
        except LeasesUnavailable as error:
            self._list_problem = f"the Leases cannot be read: {error}"
            self._changed()
            return False
        first, self._list_problem = self._listed == -math.inf, None
        self._listed = started
        self._see(listed, self._clock())
        self._show(listed, self._clock(), first and self._roster.empty)
        self._changed()
        return True

    def _show(self, listed: Sequence[Lease], now: float, untouched: bool) -> None:
        highest = max((one.epoch for one in listed), default=0)
        found = {one.name: one for one in listed}
        for keeper in (self._replica, self._leader):
            keeper.election.known(highest)
            keeper.election.observe(found.get(keeper.election.name), now, untouched=untouched)
            keeper.wake()

    async def _pause(self, started: float) -> None:
        """Until the next look: all the time that nobody nudges, or something is due."""
        now = self._clock()
        due = min(started + self._timing.retry, max(self._due(now), now))
        try:
            async with asyncio.timeout(max(due - now, 0)):
                await self._news.wait()
        except TimeoutError:
            pass
        await asyncio.sleep(max(started + _SPACING - self._clock(), 0))
        self._news.clear()

    async def _tidy(self) -> None:
        """The leader deletes Leases of replicas that are long gone."""
        if not self.leading:
            return
        for lease in self._roster.old(self._clock(), self._settings.tidy, self._kept):
            try:
                await answered(self._store.delete(lease), self._timing.patience)
            except (LeaseConflict, LeasesUnavailable):
                return

    def _changed(self) -> None:
        """Makes what `place` reads anew, and tells those who listen if anything differs."""
        now = self._clock()
        if self._replica.election.epoch != self._incarnation:
            self._incarnation = self._replica.election.epoch
            self._leader.wake()
            self.nudge()
        told = (self._refresh(now), self.leading, self.leader(), self.replicas())
        self._rearm(now)
        self._say()
        if told != self._told:
            self._told = told
            self._board.tell()

    def _say(self) -> None:
        before, self._said = self._said, (self.problem, self.leading)
        if self._said[0] != before[0]:
            (_log.warning if self._said[0] else _log.info)("leases: %s", self._said[0] or "as they should be")
        if self._said[1] != before[1]:
            _log.info("this replica %s", "leads" if self._said[1] else "leads no longer")

    def _rearm(self, now: float) -> None:
        """Time alone changes things, too."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        times = [one for one in self._ends() if now < one < math.inf]
        if times and not self._over:
            self._alarm = asyncio.get_running_loop().call_later(min(times) - now + 0.001, self._changed)

    def _ends(self) -> Iterable[float]:
        mine = (self._replica.election.until, self._leader.election.until)
        return (*mine, self._leader.election.free, self._roster.next(self._clock()))

    # --- the mode's part

    @property
    @abstractmethod
    def held(self) -> int:
        """How many shards this replica holds now."""

    @property
    @abstractmethod
    def shards(self) -> int:
        """How many there are. In mode standby all clusters are one."""

    @abstractmethod
    def _refresh(self, now: float) -> object:
        """Makes what `place` reads anew, and gives something that differs where that does."""

    @abstractmethod
    def _see(self, listed: Sequence[Lease], now: float) -> None:
        """A list was read."""

    @abstractmethod
    async def _act(self) -> None:
        """What is to be done about it."""

    @abstractmethod
    def _due(self, now: float) -> float:
        """When to look at the latest."""

    @abstractmethod
    def _kept(self, lease: Lease) -> bool:
        """Whether a replica's old Lease must stay."""


def _addresses(lease: Lease) -> tuple[str, str]:
    return lease.notes.get(PEER, ""), lease.notes.get(AGENTS, "")

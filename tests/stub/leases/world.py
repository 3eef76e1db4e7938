"""Several replicas in one made-up time: each has a loop, a steady clock and a wall clock of its own.

A paused one (SIGSTOP) is not run while its clock goes on; a crashed one is gone, with what it had written under way.
"""

from __future__ import annotations

import asyncio
import heapq
import random
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Generic, TypeVar

from stub.leases.elected import Elected
from stub.leases.myself import Myself
from stub.leases.rendezvous import shard_of
from stub.leases.settings import LeaseSettings
from stub.leases.sharded import Sharded
from stub.ownership import Place
from tests.support.leasestore import MemoryLeases, Records

TICK = 0.05
SHARDED = LeaseSettings(shards=6, moving=1, step=0.5, settle=2.0, patience=4.0, tidy=20.0)
STANDBY = LeaseSettings(duration=4, renew_deadline=3, retry_period=1, tidy=20.0)
Kind = TypeVar("Kind", bound=Elected | Sharded)


class OwnLoop(asyncio.SelectorEventLoop):
    """Its time is its replica's."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        super().__init__()

    def time(self) -> float:
        return self._now()

    def turn(self) -> None:
        """What is ready, once."""
        self.call_soon(self.stop)
        self.run_forever()


class Process(Generic[Kind]):
    """One life of a replica."""

    def __init__(self, world: World[Kind], identity: str, offset: float, rate: float) -> None:
        self.world = world
        self.identity = identity
        self.rate = rate
        self.offset = offset
        self.skew = 0.0
        self.paused = False
        self.gave: list[int] = []
        self.store = MemoryLeases(world.records, world.later)
        self.store.before = self.store.after = 0.01
        self.loop = OwnLoop(self.clock)
        self.me = Myself(identity, f"{identity}:1", "", self.clock, self.wall, world.random.random)
        self.owner: Kind = world.made(self.me, self.store, self)
        self.life: asyncio.Task[None] = self.loop.create_task(self.owner.run())
        self.other: asyncio.Task[None] | None = None

    def clock(self) -> float:
        return self.offset + self.rate * self.world.now

    def wall(self) -> float:
        return 1_000_000 + self.world.now + self.skew

    def turn(self) -> None:
        for _ in range(3):
            self.loop.turn()
        assert not self.life.done() or self.life.cancelled(), self.life

    async def give(self, shards: Collection[int]) -> None:
        self.gave.extend(shards)

    def resign(self) -> None:
        self.other = self.loop.create_task(self.owner.resign())

    def end(self) -> None:
        """Killed: what is under way takes effect, or not, as it may; nothing more is written."""
        self.store.down = True
        for task in (self.life, self.other):
            if task is not None:
                task.cancel()
        for _ in range(20):
            self.loop.turn()
        self.loop.close()


class World(Generic[Kind]):
    """True time, what the API server has, and who lives. What may never be is looked for in each tick."""

    def __init__(self, kind: type[Kind], settings: LeaseSettings, seed: int = 1) -> None:
        self.kind = kind
        self.settings = settings
        self.random = random.Random(seed)
        self.now = 0.0
        self.records = Records()
        self.processes: dict[str, Process[Kind]] = {}
        self._events: list[tuple[float, int, Callable[[], object]]] = []
        self._ids = count()
        self.clusters = [self._cluster(n) for n in range(settings.shards if kind is Sharded else 1)]
        self.last: dict[str, tuple[object, int]] = {}
        """By cluster: the process and the epoch that held it last."""
        self.wrong: list[str] = []

    def made(self, me: Myself, store: MemoryLeases, process: Process[Kind]) -> Kind:
        if self.kind is Sharded:
            return Sharded(me, self.settings, store, process.give)  # type: ignore[return-value]  # it is that kind
        return self.kind(me, self.settings, store)

    def _cluster(self, shard: int) -> str:
        names = (f"edge-{n}" for n in count())
        return next(name for name in names if shard_of(name, self.settings.shards) == shard)

    # ---

    def later(self, seconds: float, call: Callable[[], object]) -> None:
        heapq.heappush(self._events, (self.now + seconds, next(self._ids), call))

    def start(self, identity: str, offset: float = 0.0, rate: float = 1.0) -> Process[Kind]:
        assert identity not in self.processes
        process = self.processes[identity] = Process(self, identity, offset, rate)
        return process

    def crash(self, identity: str) -> None:
        self.processes.pop(identity).end()

    def run(self, seconds: float, until: Callable[[], bool] = lambda: False) -> float:
        """How long it took."""
        started = self.now
        while self.now < started + seconds and not until():
            self.tick()
        return self.now - started

    def tick(self) -> None:
        self.now += TICK
        self._settle()
        running = [one for one in self.processes.values() if not one.paused]
        self.random.shuffle(running)
        for process in running:
            process.turn()
            self._settle()
            process.turn()
        self.check()

    def _settle(self) -> None:
        while self._events and self._events[0][0] <= self.now:
            heapq.heappop(self._events)[2]()

    # ---

    def owners(self, cluster: str) -> dict[str, Place]:
        """Whoever says that it is his, paused ones included."""
        said = {name: one.owner.place(cluster) for name, one in self.processes.items()}
        return {name: place for name, place in said.items() if place.mine}

    def check(self) -> None:
        for cluster in self.clusters:
            owners = self.owners(cluster)
            assert len(owners) <= 1, f"at {self.now:.2f} {cluster} is held by {owners}"
            for name, place in owners.items():
                self._holding(cluster, self.processes[name], place)
        leading = [name for name, one in self.processes.items() if one.owner.leading]
        assert len(leading) <= 1, f"at {self.now:.2f} {leading} lead"

    def _holding(self, cluster: str, process: Process[Kind], place: Place) -> None:
        before, now = self.last.get(cluster), (process, place.epoch)
        if before is not None and before != now:
            assert place.epoch > before[1], f"at {self.now:.2f} {cluster}: {before[1]} and then {place.epoch}"
        self.last[cluster] = now

    def owner(self, cluster: str) -> str:
        """Who holds it, or ""."""
        return next(iter(self.owners(cluster)), "")

    def all_owned(self) -> bool:
        return all(self.owner(cluster) for cluster in self.clusters)


@contextmanager
def world(kind: type[Kind], settings: LeaseSettings, seed: int = 1) -> Iterator[World[Kind]]:
    made = World(kind, settings, seed)
    try:
        yield made
    finally:
        for name in list(made.processes):
            made.crash(name)

"""Leases in memory, as an API server keeps them; clients of it can be cut off, slow, or robbed of an answer."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

from stub.leases.lease import Lease, LeaseConflict, LeasesUnavailable

T = TypeVar("T")
Schedule = Callable[[float, Callable[[], object]], object]
"""Calls in so many seconds, whatever becomes of who asked."""


class Records:
    """What there is. Each write is one moment, and replaces the version that it names."""

    def __init__(self) -> None:
        self.leases: dict[str, Lease] = {}
        self.calls: Counter[str] = Counter()
        self.wrote: list[Lease] = []
        """All writes in their order (a deletion is none)."""
        self._version = 0

    def get(self, name: str) -> Lease | None:
        self.calls["get"] += 1
        return self.leases.get(name)

    def list(self) -> Sequence[Lease]:
        self.calls["list"] += 1
        return list(self.leases.values())

    def put(self, lease: Lease) -> Lease:
        self.calls["put"] += 1
        self._exact(lease)
        self._version += 1
        made = self.leases[lease.name] = replace(lease, version=str(self._version))
        self.wrote.append(made)
        return made

    def delete(self, lease: Lease) -> None:
        self.calls["delete"] += 1
        if lease.name in self.leases:
            self._exact(lease)
            del self.leases[lease.name]

    def _exact(self, lease: Lease) -> None:
        found = self.leases.get(lease.name)
        if lease.version != (found.version if found is not None else ""):
            raise LeaseConflict(lease.name)

    @property
    def writes(self) -> int:
        """That were asked for, refused ones included."""
        return self.calls["put"] + self.calls["delete"]


class MemoryLeases:
    """One client: a `LeaseStore`. Its faults are set at any time, and count for calls from then on."""

    def __init__(self, records: Records | None = None, schedule: Schedule | None = None) -> None:
        self.records = records if records is not None else Records()
        self.down = False
        """Every call fails at once."""
        self.before = 0.0
        """Seconds until a call takes effect: also when nobody waits for it any more."""
        self.after = 0.0
        """Seconds from then until its answer."""
        self.losing = False
        """Calls take effect, and are never answered."""
        self.late: tuple[str, float] = ("", 0.0)
        """Writes of Leases with this in their names take effect so many seconds later still."""
        self._schedule = schedule

    async def get(self, name: str) -> Lease | None:
        return await self._call(lambda: self.records.get(name))

    async def list(self) -> Sequence[Lease]:
        return await self._call(self.records.list)

    async def put(self, lease: Lease) -> Lease:
        late = self.late[1] if self.late[0] in lease.name else 0.0
        return await self._call(lambda: self.records.put(lease), late)

    async def delete(self, lease: Lease) -> None:
        return await self._call(lambda: self.records.delete(lease))

    async def _call(self, effect: Callable[[], T], late: float = 0.0) -> T:
        if self.down:
            raise LeasesUnavailable("the store is cut off")
        if self._schedule is None and not (self.before or self.after or self.losing or late):
            return effect()
        return await self._far(effect, late)

    async def _far(self, effect: Callable[[], T], late: float) -> T:
        loop = asyncio.get_running_loop()
        schedule, after, losing = self._schedule or loop.call_later, self.after, self.losing
        answer: asyncio.Future[T] = loop.create_future()

        def reach() -> None:
            try:
                told = partial(answer.set_result, effect())
            except LeaseConflict as conflict:
                told = partial(answer.set_exception, conflict)
            if not losing:
                schedule(after, lambda: None if answer.done() or loop.is_closed() else told())

        schedule(self.before + late, reach)
        return await answer

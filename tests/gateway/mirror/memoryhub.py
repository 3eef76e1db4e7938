"""A hub in memory, as far as the mirror knows one: records with versions, and who watches them, with their troubles."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from gateway.mirror.records import Record, RecordConflict, RecordsUnavailable
from gateway.mirror.thread import Bell

T = TypeVar("T")


@dataclass(frozen=True)
class Delta:
    key: str
    before: Record | None
    after: Record | None


class MemoryHub:
    """`log` has each change: the record, or the name of what is gone."""

    def __init__(self) -> None:
        self.records: dict[str, Record] = {}
        self.tables: dict[str, str] = {}
        self.log: list[Record | str] = []
        self.version = 100
        self.changed = Bell()

    def put(self, name: str, table: str, content: bytes) -> str:
        self.version += 1
        self.records[name] = Record(name, str(self.version), content)
        self.tables[name] = table
        self._tell(self.records[name])
        return str(self.version)

    def drop(self, name: str) -> None:
        self.version += 1
        del self.records[name]
        self._tell(name)

    def _tell(self, change: Record | str) -> None:
        self.log.append(change)
        self.changed.ring()


@dataclass
class Troubles:
    """Of one replica's way to the hub. Chances are between 0 and 1."""

    down: bool = False
    lost_question: float = 0.0
    lost_answer: float = 0.0
    slow: float = 0.0
    """Seconds, at most, that each question takes, and each piece of news."""
    rng: random.Random = field(default_factory=lambda: random.Random(1))


class MemoryRecords:
    """Implements `gateway.mirror.records.Records`."""

    def __init__(self, hub: MemoryHub, troubles: Troubles | None = None) -> None:
        self.hub = hub
        self.troubles = troubles or Troubles()
        self.asked: list[tuple[str, str]] = []

    async def get(self, name: str) -> Record | None:
        return await self._ask("GET", name, lambda: self.hub.records.get(name))

    async def create(self, name: str, table: str, content: bytes) -> str:
        def create() -> str:
            if name in self.hub.records:
                raise RecordConflict
            return self.hub.put(name, table, content)

        return await self._ask("POST", name, create)

    async def replace(self, name: str, table: str, content: bytes, version: str) -> str:
        def replace() -> str:
            self._check(name, version)
            return self.hub.put(name, table, content)

        return await self._ask("PUT", name, replace)

    async def delete(self, name: str, version: str) -> None:
        def delete() -> None:
            self._check(name, version)
            self.hub.drop(name)

        await self._ask("DELETE", name, delete)

    def _check(self, name: str, version: str) -> None:
        there = self.hub.records.get(name)
        if there is None or there.version != version:
            raise RecordConflict

    async def _ask(self, method: str, name: str, work: Callable[[], T]) -> T:
        self.asked.append((method, name))
        troubles = self.troubles
        await asyncio.sleep(troubles.slow * troubles.rng.random())
        if troubles.down:
            raise RecordsUnavailable("the hub cannot be reached")
        if troubles.rng.random() < troubles.lost_question:
            raise RecordsUnavailable("the hub does not answer", unsure=True)
        answer = work()
        await asyncio.sleep(troubles.slow * troubles.rng.random())
        if troubles.rng.random() < troubles.lost_answer:
            raise RecordsUnavailable("the hub does not answer", unsure=True)
        return answer


class MemoryInformer:
    """Like `gateway.hub.informer.Informer`: a list, then each change; after an outage, sometimes a list again."""

    def __init__(self, hub: MemoryHub, troubles: Troubles | None = None) -> None:
        self._hub = hub
        self._troubles = troubles or Troubles()
        self._hear: list[Callable[[Sequence[Delta]], None]] = []
        self._items: dict[str, Record] = {}
        self._at = 0
        self.items: Mapping[str, Record] = self._items
        self.synced = asyncio.Event()
        self.problem: str | None = None

    def subscribe(self, hear: Callable[[Sequence[Delta]], None]) -> Callable[[], None]:
        self._hear.append(hear)
        if self.synced.is_set():
            hear([Delta(f"ns/{name}", None, record) for name, record in self._items.items()])
        return lambda: self._hear.remove(hear)

    async def run(self) -> None:
        again = True
        while True:
            await asyncio.sleep(self._troubles.slow * self._troubles.rng.random())
            if self._troubles.down:
                again = self._troubles.rng.random() < 0.5
                await asyncio.sleep(0.1)
            elif again or not self.synced.is_set():
                self._list()
                again = False
            elif self._at < len(self._hub.log):
                self._follow()
            else:
                await self._hub.changed.heard()

    def _list(self) -> None:
        there, self._at = dict(self._hub.records), len(self._hub.log)
        self._become([(name, there.get(name)) for name in self._items.keys() | there.keys()])
        self.synced.set()

    def _follow(self) -> None:
        change = self._hub.log[self._at]
        self._at += 1
        self._become([(change, None) if isinstance(change, str) else (change.name, change)])

    def _become(self, changes: Sequence[tuple[str, Record | None]]) -> None:
        deltas = []
        for name, after in changes:
            before = self._items.pop(name, None)
            if after is not None:
                self._items[name] = after
            if before != after:
                deltas.append(Delta(f"ns/{name}", before, after))
        if deltas or not self.synced.is_set():
            for hear in tuple(self._hear):
                hear(deltas)

"""A replica as far as its stores and its mirror go, in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from gateway.granting.store import GrantStore
from gateway.issuing.store import RevocationStore
from gateway.membership.clusterkeys import ClusterKeys
from gateway.membership.stores import Stores
from gateway.mirror.file import MirrorFile
from gateway.mirror.journal import MirrorJournal
from gateway.mirror.kinds import KINDS
from gateway.mirror.mirror import Informing, Member, Mirror
from gateway.mirror.records import Records
from gateway.mirror.schema import MirrorTables
from gateway.mirror.shipping import MirrorTiming
from gateway.mirror.thread import FileThread
from gateway.serviceaccounts.store import ServiceAccountStore

T = TypeVar("T")


class DirectFile(FileThread):
    """Without a thread: what happens is the same each time."""

    def __init__(self, file: MirrorFile) -> None:
        self.file = file

    async def __call__(self, use: Callable[[MirrorFile], T]) -> T:
        await asyncio.sleep(0)
        return use(self.file)

    async def close(self) -> None:
        self.file.close()


class Replica:
    """`start` opens its file and runs its mirror, `crash` ends it without a word, at whatever it is doing."""

    def __init__(
        self,
        name: str,
        directory: Path,
        records: Records,
        informer: Callable[[], Informing],
        thread: type[FileThread] = DirectFile,
        timing: MirrorTiming | None = None,
    ) -> None:
        self.name = name
        self.path = directory / f"{name}.db"
        self._records = records
        self._informer = informer
        self._thread = thread
        self._timing = timing
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self.stores = Stores.open(self.path)
        database = self.stores.registry.database
        self.credentials, self.grants = RevocationStore(database), GrantStore(database)
        self.keys, self.accounts = ClusterKeys(database), ServiceAccountStore(database)
        database.open(MirrorTables())
        self.file = self._thread(MirrorFile(self.path, "kulvert"))
        member = Member("kulvert", self.name, self.path.with_suffix(".before-hub"))
        self.mirror = Mirror(
            self.file, self._records, self._informer(), member, database.poll, lambda: 0.5, self._timing
        )
        database.follow(MirrorJournal())
        database.on_write(self.mirror.wake)
        self._task = asyncio.get_running_loop().create_task(self.mirror.run(), name=self.name)

    async def begin(self, patience: float = 20.0) -> None:
        await self.start()
        async with asyncio.timeout(patience):
            await self.mirror.synced.wait()

    async def run_again(self) -> None:
        """As a task that has failed is begun again."""
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._task = asyncio.get_running_loop().create_task(self.mirror.run(), name=self.name)

    @property
    def failed(self) -> BaseException | None:
        """What its mirror ended of, which it never may."""
        return self._task.exception() if self._task is not None and self._task.done() else None

    async def crash(self, *, lost: bool = False) -> None:
        assert self._task is not None
        assert not self._task.done(), self.failed
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self.mirror.close()
        self.stores.close()
        if lost:
            for suffix in ("", "-wal", "-shm"):
                Path(f"{self.path}{suffix}").unlink(missing_ok=True)

    def rows(self) -> dict[str, list[tuple[Any, ...]]]:
        """All that is shared."""
        with self.stores.registry.database.reading() as database:
            return {
                table.name: sorted(database.execute(f"SELECT * FROM {table.name}").fetchall(), key=repr)  # noqa: S608
                for kind in KINDS
                for table in kind.tables
            }

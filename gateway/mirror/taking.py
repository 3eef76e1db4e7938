"""Takes over what others have brought to the hub, as an informer tells it. News that comes late, or says that something
is gone, is not believed by itself: then the hub is asked.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping

from gateway.database import RegistryError
from gateway.mirror.applying import Applied
from gateway.mirror.records import Record, Records, RecordsUnavailable
from gateway.mirror.shipping import MirrorTiming
from gateway.mirror.thread import Bell, FileThread

_log = logging.getLogger(__name__)


class Taking:
    """`busy` are documents that are being written, and are left alone for so long; `took` hears of each batch."""

    def __init__(
        self,
        file: FileThread,
        records: Records,
        busy: set[str],
        took: Callable[[Applied], None],
        timing: MirrorTiming,
    ) -> None:
        self._file = file
        self._records = records
        self._busy = busy
        self._took = took
        self._timing = timing
        self._pending: dict[str, Record | None] = {}
        self._now: set[str] = set()
        self._done = Bell()
        self.news = asyncio.Event()
        self.paused = False
        self.problem: str | None = None

    def hear(self, news: Mapping[str, Record | None]) -> None:
        """None is gone."""
        self._pending |= news
        self.news.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self.news.wait()
            self.news.clear()
            while not self.paused and self._pending.keys() - self._busy:
                await self._take_some(self._timing.taken)

    async def all(self) -> None:
        """Takes what was heard so far; while nothing else runs, so that batches may be larger."""
        while self._pending:
            await self._take_some(10 * self._timing.taken)

    async def caught_up(self) -> None:
        """What was heard before is taken, while it runs."""
        ahead = self._pending.keys() | self._now
        while ahead & (self._pending.keys() | self._now):
            await self._done.heard()

    async def _take_some(self, most: int) -> None:
        """One batch. What fails is tried again, after a while."""
        free = [name for name in self._pending if name not in self._busy][:most]
        batch = {name: self._pending.pop(name) for name in free}
        self._now = set(batch)
        try:
            await self._take(batch)
            self.problem = None
        except (RegistryError, RecordsUnavailable) as error:
            self.problem = f"the hub's records are not taken over: {error}"
            self._pending = batch | self._pending  # later news of the same is newer
            await asyncio.sleep(self._timing.look)
        finally:
            self._now = set()
            self._done.ring()

    async def _take(self, batch: Mapping[str, Record | None]) -> None:
        records = [record for record in batch.values() if record is not None]
        applied = await self._file(lambda file: file.take(records)) if records else Applied()
        self._took(applied)
        await self.ask(applied.doubtful)
        await self.ask((name for name, record in batch.items() if record is None), heard=True)

    async def ask(self, names: Iterable[str], *, heard: bool = False) -> None:
        """What the hub itself says of documents; `heard`: news came that they are gone.

        Raises RecordsUnavailable, RegistryError.
        """
        wanted, answers = set(names), dict[str, Record | None]()
        for name in wanted & self._busy:
            self._pending.setdefault(name, None)
        wanted -= self._busy
        limit = asyncio.Semaphore(self._timing.at_once)

        async def ask(name: str) -> None:
            async with limit:
                answers[name] = await self._records.get(name)

        self._busy |= wanted
        try:
            async with asyncio.TaskGroup() as group:
                for name in wanted:
                    group.create_task(ask(name), name="ask the hub for a record")
            if answers:
                self._took(await self._file(lambda file: file.told(answers, heard=heard)))
        except* RecordsUnavailable as failed:
            raise RecordsUnavailable(str(failed.exceptions[0])) from None
        finally:
            self._busy -= wanted

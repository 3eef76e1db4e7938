"""Brings what was written here to the hub: some documents at a time, each over exactly what was known of it."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

from gateway.database import RegistryError
from gateway.mirror.applying import Applied
from gateway.mirror.backlog import Backlog
from gateway.mirror.file import Draft, Outcome, Result
from gateway.mirror.records import Record, RecordConflict, Records, RecordsUnavailable
from gateway.mirror.thread import FileThread

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class MirrorTiming:
    """Seconds, but for the numbers of documents: `at_once` are written (or asked for) at a time, `picked` taken from
    the file for that, `taken` over in one transaction, for which other writers wait. A look for what another process
    wrote comes each `look`; what fails comes again after `least` to `most`, doubling.
    """

    at_once: int = 8
    picked: int = 32
    taken: int = 100
    look: float = 1.0
    least: float = 0.25
    most: float = 5.0


class Shipping:
    """`busy` names the documents that are being written: nobody else may touch what is known of them. `took` hears of
    what came back, `progressed` is called after each step.
    """

    def __init__(
        self,
        file: FileThread,
        records: Records,
        busy: set[str],
        took: Callable[[Applied], None],
        progressed: Callable[[], Awaitable[None]],
        randomness: Callable[[], float],
        timing: MirrorTiming,
    ) -> None:
        self._file = file
        self._records = records
        self._busy = busy
        self._took = took
        self._progressed = progressed
        self._randomness = randomness
        self._timing = timing
        self._ready: deque[Draft] = deque()
        self._outcomes: asyncio.Queue[Outcome] = asyncio.Queue()
        self._running = 0
        self._delay = 0.0
        self._stuck: dict[str, float] = {}
        self._problems: dict[str, str] = {}
        self._trouble = ""
        self.wanted = asyncio.Event()
        self.paused = False
        self.written = 0
        self.backlog = Backlog()

    @property
    def problem(self) -> str | None:
        """What cannot be brought to the hub, and why."""
        told = sorted({*self._problems.values(), self._trouble} - {""})
        return "; ".join(told[:3]) or None

    async def run(self) -> None:
        """Until cancelled. What was begun and not recorded is looked at again after the next start."""
        self._ready.clear()
        self._running, self._outcomes = 0, asyncio.Queue()
        self.wanted.set()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._count(), name="count what waits for the hub")
            while True:
                await self._pick()
                while self._ready and self._running < self._timing.at_once:
                    self._running += 1
                    group.create_task(self._send(self._ready.popleft()), name="write a record to the hub")
                if self._running:
                    await self._record()
                elif not self._ready:
                    await self._rest()

    async def _count(self) -> None:
        """By itself: what waits grows just while the hub is hung, or may not be written to."""
        while True:
            with suppress(RegistryError):  # who picks tells of it
                documents, oldest = await self._file(lambda file: file.waiting())
                self.backlog.looked(documents, oldest, asyncio.get_running_loop().time())
            await asyncio.sleep(self._timing.look)

    async def _rest(self) -> None:
        if self.paused:
            return await asyncio.sleep(self._timing.look)
        try:
            async with asyncio.timeout(self._timing.look):
                await self.wanted.wait()
        except TimeoutError:
            self.wanted.set()

    async def _pick(self) -> None:
        if self.paused or self._ready or not self.wanted.is_set():
            return
        self.wanted.clear()
        now = asyncio.get_running_loop().time()
        self._stuck = {name: until for name, until in self._stuck.items() if until > now}
        away, most = self._busy | self._stuck.keys(), self._timing.picked
        try:
            drafts = await self._file(lambda file: file.pick(most, away))
            self._trouble = ""
        except RegistryError as error:
            self._trouble = f"the file cannot be read: {error}"
            return
        if len(drafts) >= most:
            self.wanted.set()
        self._busy |= {draft.name for draft in drafts}
        waiting = self._busy | self._stuck.keys()
        self._problems = {name: told for name, told in self._problems.items() if name in waiting}
        self._ready.extend(drafts)
        if not drafts:
            await self._progressed()

    # --- one document

    async def _send(self, draft: Draft) -> None:
        outcome = Outcome(draft, Result.UNSURE)
        try:
            outcome = await self._sent(draft)
            self._problems.pop(draft.name, None)
        except RecordsUnavailable as error:
            outcome = Outcome(draft, Result.UNSURE if error.unsure else Result.UNSENT)
            self._problems[draft.name] = str(error)
        finally:
            self._outcomes.put_nowait(outcome)

    async def _sent(self, draft: Draft) -> Outcome:
        """Raises RecordsUnavailable."""
        if draft.problem:
            raise RecordsUnavailable(f"a {draft.kind} cannot be shared: {draft.problem}")
        if draft.asks:
            return Outcome(draft, Result.ASKED, found=await self._records.get(draft.name))
        try:
            return Outcome(draft, Result.WRITTEN, await self._write(draft))
        except RecordConflict:
            return Outcome(draft, Result.OTHER, found=await self._look(draft))

    async def _look(self, draft: Draft) -> Record | None:
        """What there is instead. The write has not been done, whatever becomes of the question."""
        try:
            return await self._records.get(draft.name)
        except RecordsUnavailable as error:
            raise RecordsUnavailable(str(error)) from None

    async def _write(self, draft: Draft) -> str:
        """Gives the new version; of what was deleted, the old one."""
        if draft.content is None:
            await self._records.delete(draft.name, draft.version)
            return draft.version
        if draft.version:
            return await self._records.replace(draft.name, draft.kind, draft.content, draft.version)
        return await self._records.create(draft.name, draft.kind, draft.content)

    # --- what became of it

    async def _record(self) -> None:
        """Waits for an outcome, and writes all down that there are."""
        outcomes = [await self._outcomes.get()]
        while not self._outcomes.empty():
            outcomes.append(self._outcomes.get_nowait())
        applied = await self._recorded(outcomes)
        self._running -= len(outcomes)
        self._busy -= {one.draft.name for one in outcomes}
        self.written += sum(one.result is Result.WRITTEN for one in outcomes)
        if any(one.result in (Result.OTHER, Result.ASKED) for one in outcomes):
            self.wanted.set()
        self._took(applied)
        failed = [one.draft.name for one in outcomes if one.result in (Result.UNSENT, Result.UNSURE)]
        failed += [one.draft.name for one in outcomes if one.draft.name in applied.refused]
        self._put_off(failed, len(failed) >= len(outcomes))
        await self._progressed()

    async def _recorded(self, outcomes: list[Outcome]) -> Applied:
        """For as long as it takes: what is not written down would have to be asked for."""
        while True:
            try:
                return await self._file(lambda file: file.record(outcomes))
            except RegistryError as error:
                self._trouble = f"the file cannot be written: {error}"
                await asyncio.sleep(self._timing.look)

    def _put_off(self, failed: list[str], all_of_them: bool) -> None:
        timing = self._timing
        if not all_of_them:
            self._delay = 0.0
        if not failed:
            return
        self._delay = min(max(2 * self._delay, timing.least), timing.most)
        pause = self._delay * (0.5 + self._randomness() / 2)
        loop = asyncio.get_running_loop()
        self._stuck |= dict.fromkeys(failed, loop.time() + pause)
        loop.call_later(pause, self.wanted.set)
        _log.debug("records are not written to the hub yet", extra={"documents": len(failed)})

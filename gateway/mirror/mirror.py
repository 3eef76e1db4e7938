"""Keeps this replica's file and the hub's records alike: what is written here goes there, what others write comes here.

    begin: whose mirror? ──► the hub is empty: bring all there, then `ready`
                         └─► else: wait until it is ready, take all, drop what it does not have
    then, for ever:  the file's outbox ──► the hub        an informer's news ──► the file, over a second connection

The request path reads the stores' memory and waits for none of this. Whoever must not answer before a change counts for
all replicas awaits `settled`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from gateway.database import Database, RegistryError
from gateway.mirror import marker as markers
from gateway.mirror.applying import Applied
from gateway.mirror.backlog import Backlog
from gateway.mirror.belonging import Belonging
from gateway.mirror.errors import MirrorConflict, MirrorUnavailable
from gateway.mirror.file import Pending
from gateway.mirror.journal import MirrorJournal
from gateway.mirror.losses import Losses, Since
from gateway.mirror.marker import BadMarker, Marker
from gateway.mirror.records import Record, RecordConflict, Records, RecordsUnavailable
from gateway.mirror.shipping import MirrorTiming, Shipping
from gateway.mirror.taking import Taking
from gateway.mirror.thread import Bell, FileThread

_log = logging.getLogger(__name__)
_TOLD: Final = 10


class Change(Protocol):
    """`gateway.hub.informer.Delta`."""

    @property
    def before(self) -> Record | None: ...
    @property
    def after(self) -> Record | None: ...


class Informing(Protocol):
    """`gateway.hub.informer.Informer`, of `gateway.mirror.records.view`."""

    items: Mapping[str, Record]
    synced: asyncio.Event

    @property
    def problem(self) -> str | None: ...
    def subscribe(self, hear: Callable[[Sequence[Any]], None]) -> Callable[[], None]: ...
    async def run(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Member:
    """Which replica of which installation. `aside` is where a file is kept that was none of it, when it joins."""

    installation: str
    identity: str
    aside: Path


@dataclass(slots=True)
class Counts:
    """Since the beginning. `applied` are documents that others changed, `conflicts` those in which others have
    overruled us.
    """

    applied: int = 0
    conflicts: int = 0


class Mirror:
    """`run` is its life, `close` its end. `synced`: what the hub had at the beginning is in the file. `applied` is
    called from the loop after each batch of others' changes: `gateway.database.Database.poll` belongs there.
    """

    def __init__(
        self,
        file: FileThread,
        records: Records,
        informer: Informing,
        member: Member,
        applied: Callable[[], object],
        randomness: Callable[[], float],
        timing: MirrorTiming | None = None,
    ) -> None:
        timing = timing or MirrorTiming()
        self._records = records
        self._informer = informer
        self._member = member
        self._marker_name = markers.name_of(member.installation)
        self._applied = applied
        self._file = file
        self._progress, self._marked = Bell(), Bell()
        self._awaited: set[Pending] = set()
        self._losses = Losses()
        self._turn = 0
        self._marker: Record | None = None
        self._refused: dict[str, str] = {}
        self._later: set[str] = set()
        self._busy: set[str] = set()
        self._shipping = Shipping(self._file, records, self._busy, self._took, self._progressed, randomness, timing)
        self._taking = Taking(self._file, records, self._busy, self._took, timing)
        self._belonging = Belonging(self._file, records, member.installation, member.identity, member.aside)
        self.synced = asyncio.Event()
        self.counts = Counts()
        self._merged: float | None = None

    # --- what others see

    @property
    def problem(self) -> str | None:
        """For people; None where all is well."""
        told = (self._not_begun(), self._gone(), self._shipping.problem, self._taking.problem, self._refusals())
        return "; ".join(one for one in (*told, self._ahead(), self._informer.problem) if one) or None

    @property
    def written(self) -> int:
        """How many documents were brought to the hub."""
        return self._shipping.written

    @property
    def backlog(self) -> Backlog:
        """What is still to be brought there, looked at each second while the file can be read."""
        return self._shipping.backlog

    @property
    def merge_age(self) -> float | None:
        """Seconds since others' changes were last taken over; None: never yet."""
        return None if self._merged is None else asyncio.get_running_loop().time() - self._merged

    def wake(self) -> None:
        """Something was written to the file: without it, a look comes each second."""
        self._shipping.wanted.set()

    def now(self, database: Database | None) -> Since:
        """This moment, for `settled`: a look into our own file, of whose stores this is the connection. Where there is
        none, or it cannot be read, what waits already counts as later.
        """
        number = 0
        if database is not None:
            with suppress(RegistryError), database.reading() as connection:
                number = MirrorJournal().position(connection)
        return Since(number, self._losses.count)

    async def settled(self, timeout: float, since: Since | None = None, until: Since | None = None) -> None:
        """Returns when all is at the hub that was written to the file after `since` (None: ever) and before `until`
        (None: this call). What else the hub refuses, or has overruled, concerns nobody.

        :raises MirrorConflict: another replica's change counts in the place of one of these.
        :raises MirrorUnavailable: it is not there in time.
        """
        since, until = since or self.now(None), until or self.now(None)
        try:
            async with asyncio.timeout(timeout):
                pending = await self._file(lambda file: file.pending(since.number, until.number))
                await self._arrival(pending, since)
        except TimeoutError:
            raise MirrorUnavailable(f"the hub does not have it yet: {self.problem or 'it is slow'}") from None
        except RegistryError as error:
            raise MirrorUnavailable(str(error)) from None
        if self._overruled(pending, since):
            raise MirrorConflict("another replica has changed the same at the same time: try again")

    async def _arrival(self, pending: Pending, since: Since) -> None:
        """Returns when all of it is at the hub, or something of it was overruled."""
        if pending.rows:
            self._awaited.add(pending)
        self._shipping.wanted.set()
        try:
            while (self._taking.paused or pending in self._awaited) and not self._overruled(pending, since):
                await self._progress.heard()
        finally:
            self._awaited.discard(pending)

    def _overruled(self, pending: Pending, since: Since) -> bool:
        return self._losses.among(since, pending.names)

    async def caught_up(self, timeout: float) -> None:
        """Returns when all that any replica had brought to the hub before this call is in the file: for who has just
        become the leader, and decides by it.

        :raises MirrorUnavailable: not in time.
        """
        try:
            async with asyncio.timeout(timeout):
                await self.synced.wait()
                version = await self._mark()
                while self._marker is None or int(self._marker.version) < version:
                    await self._marked.heard()
                await self._taking.caught_up()
        except (TimeoutError, RecordsUnavailable, BadMarker) as error:
            raise MirrorUnavailable(f"the hub's records are not read in time: {self.problem or error}") from None

    async def _mark(self) -> int:
        """Writes a record of our own, behind all that was written before. Raises RecordsUnavailable, BadMarker."""
        while True:
            found = await self._records.get(self._marker_name)
            if found is None:
                raise RecordsUnavailable(f"Secret {self._marker_name} is gone")
            there = Marker.read(found.content)
            self._turn += 1
            mine = Marker(there.id, there.ready, self._member.identity, self._turn)
            try:
                return int(await self._records.replace(found.name, markers.TABLE, mine.dumped(), found.version))
            except RecordConflict:
                continue

    def _not_begun(self) -> str:
        return "" if self.synced.is_set() else f"not in step with the hub yet: {self._belonging.trouble}"

    def _gone(self) -> str:
        if not self._taking.paused:
            return ""
        return f"Secret {self._marker_name} of the hub is gone, or another's: nothing is shared until a restart"

    def _refusals(self) -> str:
        if not self._refused:
            return ""
        first, why = next(iter(self._refused.items()))
        return f"{len(self._refused)} records of the hub cannot be taken; {first}: {why}"

    def _ahead(self) -> str:
        stores = ", ".join(sorted(self._later))
        return f"a later Kulvert has written {stores}: upgrade this replica" if stores else ""

    # --- life

    async def run(self) -> None:
        """Until it is cancelled."""
        end = self._informer.subscribe(self._hear)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._informer.run(), name="records of the hub")
                filling = await self._belonging.begin(self._take_all)
                self._check_marker()
                group.create_task(self._shipping.run(), name="bring records to the hub")
                if filling:
                    await self._belonging.fill(self.settled)
                self.synced.set()
                await self._taking.run()
        finally:
            end()
            self._busy.clear()

    async def close(self) -> None:
        """After `run` has ended."""
        await self._file.close()

    async def _take_all(self) -> None:
        """What the hub has, once nobody fills it any more, is what there is. Raises RecordsUnavailable, BadMarker."""
        await self._informer.synced.wait()
        while self._marker is None or not Marker.read(self._marker.content).ready:
            await self._marked.heard()
        there = {record.name for record in self._informer.items.values()}
        await self._taking.all()
        gone = await self._file(lambda file: file.unknown(there))
        await self._taking.ask(gone)
        self._poll()

    def _hear(self, changes: Sequence[Change]) -> None:
        news: dict[str, Record | None] = {}
        for change in changes:
            one = change.after or change.before
            assert one is not None, "a change from nothing to nothing"
            if one.name == self._marker_name:
                self._marker = change.after
                self._check_marker()
                self._marked.ring()
            else:
                news[one.name] = change.after
        self._taking.hear(news)

    def _check_marker(self) -> None:
        """Where the hub's records are not this installation's any more, they are left alone."""
        self._taking.paused = self.synced.is_set() and not self._belonging.owns(self._marker)
        self._shipping.paused = self._taking.paused

    def _took(self, applied: Applied) -> None:
        self._later |= applied.later
        for name in applied.accepted:
            self._refused.pop(name, None)
        for name, why in applied.refused.items():
            if self._refused.get(name) != why:
                _log.error("a record of the hub is not taken", extra={"record": name, "problem": why})
            self._refused[name] = why
        if applied.lost:
            self._losses.add(applied.lost)
            self.counts.conflicts += len(applied.lost)
            records = list(applied.lost)[:_TOLD]
            _log.warning("other replicas' changes count in the place of ours", extra={"records": records})
        if applied.documents:
            self.counts.applied += applied.documents
            self._merged = asyncio.get_running_loop().time()
            if self.synced.is_set():
                self._poll()

    def _poll(self) -> None:
        try:
            self._applied()
        except RegistryError as error:
            _log.warning("what others changed is in the file, but not in force yet: %s", error)

    async def _progressed(self) -> None:
        """Whoever waits for something that is at the hub now is told."""
        asked = tuple(self._awaited)
        try:
            there = await self._file(lambda file: file.arrived(asked)) if asked else []
        except RegistryError:
            return
        self._awaited.difference_update(there)
        self._progress.ring()
        self._taking.news.set()

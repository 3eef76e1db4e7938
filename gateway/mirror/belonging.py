"""Whether a replica's file and the hub's records are of one installation, and what becomes of them if not."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from gateway.database import RegistryError
from gateway.mirror import marker as markers
from gateway.mirror.errors import MirrorUnavailable
from gateway.mirror.file import MirrorFile
from gateway.mirror.marker import BadMarker, Marker
from gateway.mirror.records import Record, RecordConflict, Records, RecordsUnavailable
from gateway.mirror.thread import FileThread

_log = logging.getLogger(__name__)
PAUSE: Final = 0.5
"""Seconds until what the file or the hub refused is tried again."""
PATIENCE: Final = 60.0


class Belonging:
    """`begin`, then `fill` where that says so."""

    def __init__(self, file: FileThread, records: Records, installation: str, identity: str, aside: Path) -> None:
        self._file = file
        self._records = records
        self._name = markers.name_of(installation)
        self._identity = identity
        self._aside = aside
        self._id = ""
        self.trouble = "the hub was not asked yet"

    def owns(self, record: Record | None) -> bool:
        """Whether this record of the hub is the mark of our own installation."""
        try:
            return record is not None and Marker.read(record.content).id == self._id
        except BadMarker:
            return False

    async def begin(self, take_all: Callable[[], Awaitable[None]]) -> bool:
        """Until the two belong together. True: what is here has to be brought to the hub; otherwise the hub's records
        are here, by `take_all`.
        """
        while True:
            try:
                filling = await self._belongs()
                if filling is False:
                    self.trouble = "the hub's records are not read yet, or another replica still brings them there"
                    await take_all()
                if filling is not None:
                    return filling
            except (RecordsUnavailable, RegistryError, BadMarker) as error:
                self.trouble = str(error)
                _log.warning("this replica is not in step with the hub yet: %s", error)
            await asyncio.sleep(PAUSE)

    async def _belongs(self) -> bool | None:
        """Whether this replica fills the hub; None: look again."""
        await self._file(MirrorFile.install)
        found = await self._records.get(self._name)
        self._id, filling = await self._file(MirrorFile.sharing)
        if found is None:
            return await self._offer(filling)
        there = Marker.read(found.content)
        if there.id != self._id:
            await self._adopt(there.id)
            return False
        if filling and there.ready:
            await self._file(MirrorFile.filled)
            return False
        return filling

    async def _offer(self, again: bool) -> bool | None:
        """The hub has nothing: what is here goes there, if nobody else is first."""
        if not again:
            self._id = os.urandom(16).hex()
            await self._file(lambda file: file.offer(self._id))
        try:
            await self._records.create(self._name, markers.TABLE, Marker(self._id, False, self._identity).dumped())
        except RecordConflict:
            return None
        return True

    async def _adopt(self, sharing: str) -> None:
        aside = self._aside.with_name(f"{self._aside.name}.{sharing[:8]}")
        if await self._file(lambda file: file.adopt(sharing, aside)):
            _log.warning("the hub's records count in the place of what was here", extra={"kept": str(aside)})
        self._id = sharing

    async def fill(self, settled: Callable[[float], Awaitable[None]]) -> None:
        """Until all that is here is there, and others may take it. `settled` is the mirror's."""
        while True:
            self.trouble = "what is here is still being brought to the hub"
            try:
                await settled(PATIENCE)
                found = await self._records.get(self._name)
                if found is not None and self.owns(found):
                    ready = Marker(self._id, True, self._identity).dumped()
                    await self._records.replace(self._name, markers.TABLE, ready, found.version)
                    return await self._file(MirrorFile.filled)
            except RecordConflict:
                continue
            except (MirrorUnavailable, RecordsUnavailable, RegistryError, BadMarker) as error:
                self.trouble = f"what is here is still being brought to the hub: {error}"
                _log.warning("%s", self.trouble)
            await asyncio.sleep(PAUSE)

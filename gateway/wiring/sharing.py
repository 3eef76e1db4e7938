"""What replicas share by way of the hub: keys and stores. The order is what counts: nothing is made here before it is
known that there is none there.
"""

from __future__ import annotations

import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

from gateway.config import ServerConfig
from gateway.database import Database
from gateway.failures import Refused
from gateway.hub.client import Hub
from gateway.hub.informer import Informer, jitter
from gateway.hub.informermetrics import InformersCollector
from gateway.hub.objects import HubObjects
from gateway.mirror import keysecret
from gateway.mirror.errors import MirrorConflict, MirrorUnavailable
from gateway.mirror.file import MirrorFile
from gateway.mirror.journal import MirrorJournal
from gateway.mirror.keys import KeyMirror
from gateway.mirror.keysecret import KeySecret
from gateway.mirror.mirror import Member, Mirror
from gateway.mirror.mirrormetrics import MirrorCollector
from gateway.mirror.records import SecretRecords
from gateway.mirror.records import view as record_of
from gateway.mirror.tables import make_tables
from gateway.mirror.thread import FileThread
from gateway.replicas.keeping import Kept
from gateway.state import State
from gateway.status import NOT_KEPT, OVERRULED
from gateway.wiring.part import Part
from gateway.wiring.tasks import Tasks

KEPT: Final = 5.0
"""Seconds for a change to reach the hub, before who has asked for it is told that nobody knows."""
CAUGHT_UP: Final = 10.0


class Sharing:
    """`mirror` and `keys` run until the end of the stack that they were started on."""

    def __init__(self, config: ServerConfig, state: State, hub: Hub, informers: InformersCollector) -> None:
        self._state = state
        self._hub = hub
        self._informers = informers
        self._objects = HubObjects(hub.api)
        self._namespace = config.replicas.own_namespace()
        self._installation = config.leases.lease
        self._identity = config.replicas.own_identity()
        self._database: Database | None = None
        self._keys: KeyMirror
        self.mirror: Mirror

    async def start(self, stack: AsyncExitStack) -> None:
        """Have the keys and the stores of the installation. Raises what keeps this replica from serving."""
        files = FileThread(MirrorFile(self._prepared(), self._installation))
        self.mirror = self._mirror(files)
        stack.push_async_callback(self.mirror.close)
        tasks = await stack.enter_async_context(Tasks())
        store = KeySecret(self._objects, self._namespace, self._installation)
        self._keys = KeyMirror(store, self._state, time.time)
        await self._keys.start()
        informer = Informer(self._hub.api, store.source, keysecret.view, jitter())
        informer.subscribe(self._keys.hear)
        self._informers.add("keys", informer)
        runs = {"shared keys": self._keys.run, "Secret with keys": informer.run, "shared stores": self.mirror.run}
        for name, run in runs.items():
            tasks.start(name, run)
        await self.mirror.synced.wait()

    def _prepared(self) -> Path:
        make_tables(self._state.registry)
        return self._state.registry

    def _mirror(self, files: FileThread) -> Mirror:
        records = SecretRecords(self._objects, self._namespace, self._installation)
        informer = Informer(self._hub.api, records.source, record_of, jitter())
        self._informers.add("records", informer)
        member = Member(self._installation, self._identity, self._state.directory / "clusters.db.before-hub")
        return Mirror(files, records, informer, member, self._applied, jitter())

    def follow(self, database: Database) -> None:
        """The stores are open: what others change comes into memory, and what is changed here goes to the others."""
        self._database = database
        database.follow(MirrorJournal())
        database.on_write(self.mirror.wake)

    def forget(self) -> None:
        """The stores are about to be closed."""
        self._database = None

    def _applied(self) -> None:
        if self._database is not None:
            self._database.poll()

    # --- for who writes

    def keeping(self) -> Kept:
        """See `gateway.replicas.keeping`."""
        since = self.mirror.now(self._database)

        async def kept() -> None:
            until = self.mirror.now(self._database)
            try:
                await self.mirror.settled(KEPT, since, until)
            except MirrorConflict as error:
                raise Refused(OVERRULED, str(error)) from None
            except MirrorUnavailable as error:
                raise Refused(NOT_KEPT, str(error)) from None

        return kept

    async def caught_up(self) -> bool:
        """Whether all that others have written is here: for a new leader. It takes `CAUGHT_UP` seconds at most."""
        try:
            await self.mirror.caught_up(CAUGHT_UP)
        except MirrorUnavailable:
            return False
        return True

    @property
    def part(self) -> Part:
        """See `gateway.wiring.part`."""
        return Part(
            warnings={"mirror": lambda: self.mirror.problem, "shared-keys": lambda: self._keys.problem},
            collectors=[MirrorCollector(self.mirror)],
        )

"""Who may reach which cluster, for what, and as whom: the sources of grants, and the hub's own RBAC."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping

from auth.grants.accessreview import AccessReviews, Either
from auth.grants.delegation import is_administrator, owned
from auth.grants.file import GrantsFile
from auth.grants.sources import GrantSources
from auth.identity import Identity
from gateway.access import Decide
from gateway.audit.log import AuditLogs
from gateway.config import ServerConfig
from gateway.database import Database
from gateway.granting.accessapi import AccessApi
from gateway.granting.api import GrantsApi
from gateway.granting.journal import GrantJournal
from gateway.granting.store import GrantStore
from gateway.handover import Caller
from gateway.hub.client import Hub
from gateway.hub.grants import GRANTS, HubGrants, read
from gateway.hub.informer import Informer, jitter
from gateway.hub.informermetrics import InformersCollector
from gateway.membership.registry import Cluster, ClusterRegistry
from gateway.settling import settled
from gateway.state import State
from gateway.wiring.part import Part
from gateway.wiring.tasks import Tasks

FILE, STORE, HUB = "file", "store", "hub"


class Authorization:
    """`decide` is what a request asks."""

    def __init__(
        self, config: ServerConfig, state: State, database: Database, registry: ClusterRegistry, hub: Hub | None
    ) -> None:
        self._config = config
        self._hub = hub
        self._registry = registry
        self._file = GrantsFile(config.grants or state.grants)
        self.store = GrantStore(database)
        names = (FILE, STORE, HUB) if self._reads_hub else (FILE, STORE)
        self.sources = GrantSources(*names)
        self._admins = frozenset(config.admin_groups)
        self._hub_grants: HubGrants | None = None
        self.decider: Decide = self._decider()
        self._take_file()
        self._take_store()
        self.store.subscribe(self._take_store)
        self.part = self._part()

    @property
    def _reads_hub(self) -> bool:
        return self._hub is not None and self._config.hub.grants

    def start(self, tasks: Tasks, audit: AuditLogs, new_id: Callable[[], str], informers: InformersCollector) -> None:
        """Begin to read the hub's grants, and to record what the command does to the store's."""
        self.store.subscribe(GrantJournal(self.store, audit, new_id, time.time).look)
        if self._hub is None or not self._reads_hub:
            return
        self._hub_grants = HubGrants(self.sources, Informer(self._hub.api, GRANTS, read, jitter()))
        informers.add("grants", self._hub_grants.informer)
        tasks.start("grants of the hub", self._hub_grants.run)

    async def reaches(self, identity: Identity, cluster: Cluster) -> bool:
        """Whether a user may reach a cluster for anything."""
        now = time.time()
        return (await settled(lambda: self.decider.decide(identity, cluster.name, now, None, cluster.labels))).allowed

    def owns(self, identity: Identity, name: str) -> bool:
        """Whether a user manages a cluster: as an administrator, who manages all (an empty name), or as its owner by a
        grant for everything there. Who has a part of a cluster may grant of that part, and has no say over the whole.
        """
        if not name or is_administrator(identity, self._admins):
            return is_administrator(identity, self._admins)
        cluster = self._registry.get(name)
        mine = [one for one in owned(identity, self.sources.grants, time.time()) if one.access is None]
        if cluster is None:  # nobody knows which labels it will have: no selector speaks of it, not even one of absence
            return any(one.selector is None and one.covers(name) for one in mine)
        return any(one.covers(name, cluster.labels) for one in mine)

    async def manages(self, identity: Identity, name: str) -> bool:
        """As `owns`."""
        return self.owns(identity, name)

    def _decider(self) -> Decide:
        if self._hub is None or not self._config.hub.access_review:
            return self.sources
        return Either(self.sources, AccessReviews(self._hub.review_access, time.monotonic))

    # --- what others see of it

    def _part(self) -> Part:
        wall: Callable[[], float] = time.time
        part = Part(
            looks={"grants": self._look_at_file},
            checks={"grants": self._problem},
            warnings={"grants": lambda: self.sources.problem},
            routes=[
                *GrantsApi(self.store, self.sources, self._registry, wall, self._admins, _note).routes(),
                *AccessApi(self.sources, self._registry, wall, self._admins).routes(),
            ],
        )
        if self._reads_hub:
            part.warnings["hub-grants"] = lambda: self._hub_grants.informer.problem if self._hub_grants else None
        return part

    def _problem(self) -> str | None:
        """Until the hub's grants were read once, nobody is let in. A file that is wrong now takes no replica out, or a
        typing error would take all of them: those read before are in force, and the warning says that they are old.
        """
        if self._hub_grants is not None and not self._hub_grants.informer.synced.is_set():
            return "the hub's grants were not read yet"
        return None

    async def _look_at_file(self) -> None:
        """In a thread: thousands of grants take a while to parse, in which nobody would be served."""
        if self._file.take(await asyncio.to_thread(self._file.look)):
            self._take_file()
        self.sources.failed(FILE, self._file.problem)

    def _take_file(self) -> None:
        self.sources.changed(FILE, self._file.grants, time.time(), self._file.problem)

    def _take_store(self) -> None:
        self.sources.changed(STORE, self.store.grants(), time.time(), self.store.problem)


def _note(caller: Caller, notes: Mapping[str, str]) -> None:
    """A change of a grant stands in the audit record of its request."""
    caller.notes.update(notes)

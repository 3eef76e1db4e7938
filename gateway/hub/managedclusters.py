"""What a server does with the hub's ManagedClusters, composed: read by an informer, kept alike with the registry
(hub.clusters), joined by kubeconfigs (autoJoin), and told of in their status.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass

from gateway.hub.autojoin import Installer
from gateway.hub.clusters import LEASE, Declared
from gateway.hub.informer import Informer
from gateway.hub.join import HubJoin
from gateway.hub.managedstatus import Told
from gateway.hub.objects import HubObjects
from gateway.hub.registrationkeeper import RegistrationKeeper
from gateway.hub.statuskeeper import StatusKeeper
from gateway.membership.stores import Stores


@dataclass(frozen=True, slots=True)
class Clocks:
    """`clock` measures, `wall` tells the time for people."""

    clock: Callable[[], float]
    wall: Callable[[], float]


class ManagedClusters:
    """`informer` reads `clusters.SOURCE` by the view `clusters.declared`. `registers`: hub.clusters. `installer` is
    autoJoin's, and `namespaces` its Secrets'; None: it is off.
    """

    def __init__(
        self,
        hub: HubObjects,
        informer: Informer[Declared],
        stores: Stores,
        clocks: Clocks,
        leading: Callable[[], bool],
        registers: bool,
        installer: Installer | None = None,
        namespaces: Collection[str] = (),
    ) -> None:
        items: Callable[[], Mapping[str, Declared]] = lambda: informer.items  # noqa: E731 -- it may be another mapping later
        self.informer = informer
        self._stores = stores
        self._all = registers
        self._statuses = StatusKeeper(hub, items, self._told, leading, clocks.clock, clocks.wall)
        said = self._statuses.ask
        self._join = HubJoin(namespaces, installer, hub, items, clocks.wall, said, leading) if installer else None
        synced = informer.synced.is_set
        kept = (hub, items, synced, stores, leading, clocks.clock, clocks.wall, said)
        self._registration = RegistrationKeeper(*kept) if registers else None

    def begin(self) -> list[Callable[[], object]]:
        """Hears of both sides from now on; the functions that it gives end that."""
        keepers = [one for one in (self._statuses, self._registration) if one is not None]
        ends = [self.informer.subscribe(one.hear) for one in keepers]
        return [*ends, *(self._stores.registry.subscribe(one.changed) for one in keepers)]

    def tasks(self) -> dict[str, Callable[[], Awaitable[None]]]:
        """What has to run, by name."""
        made: dict[str, Callable[[], Awaitable[None]]] = {
            "ManagedClusters of the hub": self.informer.run,
            "status of ManagedClusters": self._statuses.run,
        }
        if self._join is not None:
            made["clusters that join"] = self._join.run
        if self._registration is not None:
            made["registration of clusters"] = self._registration.run
        return made

    @property
    def problem(self) -> str | None:
        """For the readiness' details."""
        return self.informer.problem

    def keeps(self, name: str) -> bool:
        """See `gateway.membership.lifecycle.Shared`."""
        return self._registration is not None and self._registration.keeps(name)

    def lease_duration(self, name: str) -> int:
        """Seconds for which its heartbeat counts."""
        found = self.informer.items.get(name)
        return found.lease if found is not None else LEASE

    def _told(self, found: Declared) -> Told | None:
        """What its status is to say; None where that is nobody's affair here."""
        if not (self._all or found.secret):
            return None
        name = found.name
        cluster, removal = self._stores.registry.get(name), self._stores.removals.get(name)
        removing = removal.waiting or "under way" if removal is not None and removal.finished is None else ""
        problem = self._registration.problem(name) if self._registration is not None else ""
        failure = self._join.failure(name) if self._join is not None else ""
        return Told.of(found.accepts, cluster, failure, removing, problem)

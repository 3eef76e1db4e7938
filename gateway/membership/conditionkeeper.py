"""Keeps what Kulvert finds out of clusters: looked at once a second, and written where something has changed, so that
the command, which is another process, and other replicas see it as well. Where there are several, one alone writes it.

A look costs some microseconds a cluster, so it takes a part of them in turn where there are very many.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import TypeAlias

from gateway.management import Attached
from gateway.membership.conditions import AVAILABLE, TRUE, Condition, Facts, availability, found
from gateway.membership.heartbeats import Pulse, Renewal
from gateway.membership.inventory import Inventory
from gateway.membership.registry import Cluster
from gateway.membership.stores import Stores

SETTLED = 30.0
"""Seconds after it begins for which a server takes no cluster for gone: all its agents come again in these."""
PART = 500
"""Clusters in a look: some milliseconds, in which nobody is served."""
INVENTORY = 60.0
"""Seconds between two writes of what is in one cluster: nodes come and go, and each write is an fsync."""
_Seen: TypeAlias = tuple[Cluster, Facts, Inventory, bool]


@dataclass(frozen=True, slots=True)
class Sources:
    """`attached` is what this process's stub says of a cluster's agents, `pulse` what they say. `elsewhere` is None
    where the cluster is this process's own, and otherwise its heartbeat's Lease. `leading`: this process writes.
    """

    attached: Callable[[str], Attached]
    pulse: Callable[[str], Pulse | None] = lambda _cluster: None
    elsewhere: Callable[[str], Renewal | None] = lambda _cluster: None
    leading: Callable[[], bool] = lambda: True


class ConditionKeeper:
    """`began` and the times of `look` are of the clock of `Renewal.seen`, `wall` tells the time for people."""

    def __init__(self, stores: Stores, sources: Sources, wall: Callable[[], float]) -> None:
        self._stores = stores
        self._sources = sources
        self._wall = wall
        self._settled: float | None = None
        """None: this process does not lead."""
        self._turn: list[str] = []
        self._seen: dict[str, _Seen] = {}
        self._written: dict[str, float] = {}

    def look(self, now: float) -> None:
        """One write for all changes. :raises RegistryError: it cannot be written just now; a later look will."""
        if not self._sources.leading():
            self._settled, self._seen, self._turn = None, {}, []
            return
        if self._settled is None:
            self._settled = now + SETTLED
        conditions: dict[str, list[Condition]] = {}
        inventories: dict[str, Inventory] = {}
        asking = self._stores.enrolments.asking()
        for cluster in self._part():
            made, inventory = self._news(cluster, asking.get(cluster.name, ()), now)
            if made:
                conditions[cluster.name] = made
            if inventory is not None:
                inventories[cluster.name] = inventory
        self._stores.registry.set_conditions(conditions, inventories)
        self._written |= dict.fromkeys(inventories, now)

    def _part(self) -> list[Cluster]:
        """Those whose turn it is."""
        if not self._turn:
            self._turn = [cluster.name for cluster in self._stores.registry.list()]
            self._seen = {name: self._seen[name] for name in self._turn if name in self._seen}
            self._written = {name: self._written[name] for name in self._turn if name in self._written}
        part, self._turn = self._turn[:PART], self._turn[PART:]
        known = [self._stores.registry.get(name) for name in part]
        return [cluster for cluster in known if cluster is not None]

    def _news(self, cluster: Cluster, asking: tuple[str, ...], now: float) -> tuple[list[Condition], Inventory | None]:
        """Cheap where nothing has changed since the last look at it."""
        before = {one.type: one for one in cluster.conditions}
        facts, inventory = self._facts(cluster, before.get(AVAILABLE), asking, now)
        settled = self._settled is not None and now >= self._settled
        seen = cluster, facts, inventory, settled
        if self._seen.get(cluster.name) == seen:
            return [], None
        made = found(cluster, facts, self._wall())
        news = [one for one in made if self._is_news(before.get(one.type), one, settled)]
        changed = inventory.known and inventory != cluster.inventory
        due = now >= self._written.get(cluster.name, float("-inf")) + INVENTORY
        if not news and not changed:
            self._seen[cluster.name] = seen
        return news, inventory if changed and due else None

    def _facts(
        self, cluster: Cluster, before: Condition | None, asking: tuple[str, ...], now: float
    ) -> tuple[Facts, Inventory]:
        name, sources = cluster.name, self._sources
        attached, renewal = sources.attached(name), sources.elsewhere(name)
        certified = cluster.uid is not None and self._stores.certificates.certified(name, cluster.uid, self._wall())
        told = availability(renewal, before, now) if renewal is not None else None
        pulse = renewal.pulse if renewal is not None else sources.pulse(name)
        some = tuple(islice(asking, 4))
        facts = Facts(certified, attached.agents, attached.ready, attached.message, some, told)
        return facts, pulse.inventory if pulse is not None else Inventory()

    def _is_news(self, before: Condition | None, after: Condition, settled: bool) -> bool:
        if before == after:
            return False
        lost = before is not None and after.type == AVAILABLE and before.status == TRUE != after.status
        return settled or not lost

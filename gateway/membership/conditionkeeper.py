"""Keeps the conditions that Kulvert finds out: looked at once a second, and written where one has changed, so that the
command, which is another process, sees them as well.

A look costs some microseconds a cluster, so it takes a part of them in turn where there are very many.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import TypeAlias

from gateway.management import Attached
from gateway.membership.conditions import AVAILABLE, TRUE, Condition, Facts, found
from gateway.membership.registry import Cluster
from gateway.membership.stores import Stores

SETTLED = 30.0
"""Seconds after its start for which a server takes no cluster for gone: all its agents come again in these."""
PART = 500
"""Clusters in a look: some milliseconds, in which nobody is served."""
_Seen: TypeAlias = tuple[Cluster, Facts, bool]


class ConditionKeeper:
    """`attached` is what the stub says of a cluster's agents."""

    def __init__(self, stores: Stores, attached: Callable[[str], Attached], began: float) -> None:
        self._stores = stores
        self._attached = attached
        self._settled = began + SETTLED
        self._turn: list[str] = []
        self._seen: dict[str, _Seen] = {}

    def look(self, now: float) -> None:
        """One write for all changes. :raises RegistryError: it cannot be written just now; a later look will."""
        if not self._turn:
            self._turn = [cluster.name for cluster in self._stores.registry.list()]
            self._seen = {name: self._seen[name] for name in self._turn if name in self._seen}
        part, self._turn = self._turn[:PART], self._turn[PART:]
        asking, changed = self._stores.enrolments.asking(), {}
        for name in part:
            cluster = self._stores.registry.get(name)
            if cluster is not None and (news := self._news(cluster, asking.get(name, ()), now)):
                changed[name] = news
        self._stores.registry.set_conditions(changed)

    def _news(self, cluster: Cluster, asking: tuple[str, ...], now: float) -> list[Condition]:
        """Cheap where nothing has changed since the last look at it."""
        attached, uid = self._attached(cluster.name), cluster.uid
        certified = uid is not None and self._stores.certificates.certified(cluster.name, uid, now)
        facts = Facts(certified, attached.agents, attached.ready, attached.message, tuple(islice(asking, 4)))
        seen = cluster, facts, now < self._settled
        if self._seen.get(cluster.name) == seen:
            return []
        before = {one.type: one for one in cluster.conditions}
        news = [one for one in found(cluster, facts, now) if self._is_news(before.get(one.type), one, now)]
        if not news:
            self._seen[cluster.name] = seen
        return news

    def _is_news(self, before: Condition | None, after: Condition, now: float) -> bool:
        if before == after:
            return False
        lost = before is not None and after.type == AVAILABLE and before.status == TRUE != after.status
        return not (lost and now < self._settled)

"""Which clusters there are: the port, and its store for a single server, in the server's SQLite file."""

from __future__ import annotations

import enum
import logging
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Protocol, TypeAlias

from gateway.database import Database
from gateway.database import RegistryError as RegistryError
from gateway.membership import rows as clusterrows
from gateway.membership.cluster import MARKS, TERMINATING, Mark, checked_mark, marked, marks_of
from gateway.membership.cluster import Cluster as Cluster
from gateway.membership.conditions import Condition
from gateway.membership.inventory import Inventory

_log = logging.getLogger(__name__)


class Change(enum.Enum):
    """What happened to a cluster."""

    ADDED = "added"
    REMOVED = "removed"
    UPDATED = "updated"


Subscriber: TypeAlias = Callable[[Change, Cluster], None]


class ClusterRegistry(Protocol):
    """The port that the request path and the management API share; an informer fills the same one."""

    def get(self, name: str) -> Cluster | None:
        """A cluster by name, from memory."""
        ...

    def list(self) -> tuple[Cluster, ...]:
        """All clusters, by name."""
        ...

    def add(self, cluster: Cluster) -> None:
        """:raises RegistryError: there is one of this name."""
        ...

    def remove(self, name: str) -> None:
        """:raises RegistryError: there is none of this name."""
        ...

    def pin(self, name: str, uid: str) -> Cluster:
        """Ties a name to a cluster for good. :raises RegistryError: it is tied to another one, or unknown."""
        ...

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Calls back after each change. The returned function ends that."""
        ...


_SWITCH = "`kulvert cluster switch {} --to ID` gives the name to another one"


class SqliteRegistry:
    """`ClusterRegistry` in one SQLite file that its owner alone can read."""

    name = "clusters"
    migrations = clusterrows.MIGRATIONS

    def __init__(self, path: Path, *, patience: float = 2.0) -> None:
        """Opens or makes the file: see `gateway.database.Database`. :raises RegistryError: it cannot be used."""
        self._clusters: dict[str, Cluster] = {}
        self._subscribers: dict[int, Subscriber] = {}
        self._next = 0
        self.database = Database(path, patience=patience)
        try:
            self.database.open(self)
        except BaseException:
            self.database.close()
            raise

    def close(self) -> None:
        """Closes the file; the registry is of no use afterwards."""
        self.database.close()

    def poll(self) -> bool:
        """See `Database.poll`."""
        return self.database.poll()

    def get(self, name: str) -> Cluster | None:
        """See `ClusterRegistry`."""
        return self._clusters.get(name)

    def list(self) -> tuple[Cluster, ...]:
        """See `ClusterRegistry`."""
        return tuple(self._clusters[name] for name in sorted(self._clusters))

    def add(self, cluster: Cluster) -> None:
        """See `ClusterRegistry`. Of a new one, what others put on it is not written."""
        with self.database.writing(f"there is a cluster {cluster.name!r} already") as database:
            clusterrows.insert(database, cluster)
        self._clusters[cluster.name] = cluster
        self._tell(Change.ADDED, cluster)

    def remove(self, name: str) -> None:
        """See `ClusterRegistry`."""
        cluster = self._known(name)
        with self.database.writing() as database:
            clusterrows.delete(database, name)
        del self._clusters[name]
        self._tell(Change.REMOVED, cluster)

    def pin(self, name: str, uid: str, now: float = 0.0) -> Cluster:
        """See `ClusterRegistry`. The database decides, so that of two processes one wins; what it decided stays."""
        cluster = self._known(name)
        if not uid:
            raise RegistryError("a cluster's uid is not empty")
        if cluster.uid == uid:
            return cluster  # nothing to write
        with self.database.writing() as database:
            database.execute(
                "UPDATE cluster SET uid = ?, accepted = ? WHERE name = ? AND uid IS NULL", (uid, now, name)
            )
            row = database.execute("SELECT uid FROM cluster WHERE name = ?", (name,)).fetchone()
        if row is None or row[0] != uid:
            raise RegistryError(f"cluster {name!r} is pinned to another cluster: {_SWITCH.format(name)}")
        return self._put(cluster, replace(cluster, uid=uid, accepted=now))

    def switch(self, name: str, before: str | None, uid: str, now: float) -> Cluster:
        """Gives the name to another cluster than `before`, which must have it.

        :raises RegistryError: it is another one's meanwhile, or unknown.
        """
        cluster = self._known(name)
        with self.database.writing() as database:
            query = "UPDATE cluster SET uid = ?, accepted = ? WHERE name = ? AND uid IS ?"
            changed = database.execute(query, (uid, now, name, before)).rowcount
        if changed != 1:
            raise RegistryError(f"cluster {name!r} has been given to another cluster meanwhile: look again")
        return self._put(cluster, replace(cluster, uid=uid, accepted=now))

    def terminate(self, name: str) -> Cluster:
        """From now on users are not let through. :raises RegistryError: there is none of this name."""
        cluster = self._known(name)
        if cluster.phase == TERMINATING:
            return cluster
        with self.database.writing() as database:
            database.execute("UPDATE cluster SET phase = ? WHERE name = ?", (TERMINATING, name))
        return self._put(cluster, replace(cluster, phase=TERMINATING))

    def relabel(self, name: str, labels: Iterable[tuple[str, str]]) -> Cluster:
        """Other labels, by which grants and join tokens select it. :raises RegistryError: there is no such cluster."""
        cluster, after = self._known(name), tuple(labels)
        if dict(cluster.labels) == dict(after):
            return cluster
        with self.database.writing() as database:
            clusterrows.put_labels(database, name, after)
        return self._put(cluster, replace(cluster, labels=after))

    def deny(self, name: str, denied: bool) -> Cluster:
        """Neither agents nor users come in, until it is taken back. :raises RegistryError: there is no such cluster."""
        cluster = self._known(name)
        if cluster.denied == denied:
            return cluster
        with self.database.writing() as database:
            clusterrows.put_denied(database, name, denied)
        return self._put(cluster, replace(cluster, denied=denied, hub_accepted=""))

    def hub_has_accepted(self, name: str, uid: str) -> Cluster:
        """Remembers it, until the hub takes it back. :raises RegistryError: there is no such cluster."""
        cluster = self._known(name)
        if cluster.hub_accepted == uid:
            return cluster
        with self.database.writing() as database:
            clusterrows.put_hub_accepted(database, name, uid)
        return self._put(cluster, replace(cluster, hub_accepted=uid))

    def mark(self, name: str, kind: Mark, value: str) -> Cluster:
        """Puts a gate or finalizer on it; harmless where it is there. :raises RegistryError: it cannot be."""
        cluster = self._known(name)
        there = marks_of(cluster, kind)
        checked_mark(kind, value)
        if kind is Mark.FINALIZER and cluster.phase:
            raise RegistryError(f"cluster {name!r} is being removed: it takes no new finalizer")
        if len(there | {value}) > MARKS:
            raise RegistryError(f"cluster {name!r} has {MARKS} {kind.value}s already")
        with self.database.writing() as database:
            database.execute("INSERT OR IGNORE INTO cluster_mark VALUES (?, ?, ?)", (name, kind.value, value))
        return self._put(cluster, marked(cluster, kind, there | {value}))

    def unmark(self, name: str, kind: Mark, value: str) -> bool:
        """Whether there was such a gate or finalizer. :raises RegistryError: there is no cluster of this name."""
        cluster = self._known(name)
        there = marks_of(cluster, kind)
        with self.database.writing() as database:
            query = "DELETE FROM cluster_mark WHERE cluster = ? AND kind = ? AND value = ?"
            removed = database.execute(query, (name, kind.value, value)).rowcount == 1
        self._put(cluster, marked(cluster, kind, there - {value}))
        return removed

    def set_conditions(
        self, made: Mapping[str, Sequence[Condition]], inventories: Mapping[str, Inventory] = MappingProxyType({})
    ) -> None:
        """What was found of several clusters at once, in one write. Names that are gone meanwhile are passed over."""
        known = {name: made.get(name, ()) for name in (*made, *inventories) if name in self._clusters}
        if not known:
            return
        with self.database.writing() as database:
            for name, conditions in known.items():
                clusterrows.put_conditions(database, name, conditions)
                if name in inventories:
                    clusterrows.put_inventory(database, name, inventories[name])
        for name, conditions in known.items():
            cluster = self._clusters[name]
            after = {one.type: one for one in cluster.conditions} | {one.type: one for one in conditions}
            found = tuple(after[key] for key in sorted(after))
            self._put(cluster, replace(cluster, conditions=found, inventory=inventories.get(name, cluster.inventory)))

    def set_condition(self, name: str, condition: Condition) -> Cluster:
        """One that somebody else has found. :raises RegistryError: there is no such cluster, or it has too many."""
        cluster = self._known(name)
        if len({one.type for one in cluster.conditions} | {condition.type}) > MARKS:
            raise RegistryError(f"cluster {name!r} has {MARKS} conditions already")
        self.set_conditions({name: [condition]})
        return self._clusters[name]

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """See `ClusterRegistry`."""
        number = self._next = self._next + 1
        self._subscribers[number] = subscriber
        return lambda: self._subscribers.pop(number, None) and None

    def _put(self, before: Cluster, after: Cluster) -> Cluster:
        self._clusters[after.name] = after
        self._compare(before, after)
        return after

    def _known(self, name: str) -> Cluster:
        if (cluster := self._clusters.get(name)) is None:
            raise RegistryError(f"there is no cluster {name!r}")
        return cluster

    def _tell(self, change: Change, cluster: Cluster) -> None:
        for subscriber in tuple(self._subscribers.values()):
            try:
                subscriber(change, cluster)
            except Exception:  # the others must hear of it all the same
                _log.exception("a subscriber of the registry failed", extra={"cluster": cluster.name})

    def take(self, content: dict[str, Cluster]) -> None:
        """See `gateway.database.Store`."""
        before, self._clusters = self._clusters, content
        for name in sorted(before.keys() | content.keys()):
            self._compare(before.get(name), content.get(name))

    def _compare(self, before: Cluster | None, after: Cluster | None) -> None:
        if before is not None and after is not None and not _replaced(before, after):
            if before != after:
                self._tell(Change.UPDATED, after)
            return
        if before is not None:
            self._tell(Change.REMOVED, before)
        if after is not None:
            self._tell(Change.ADDED, after)

    def read(self, database: sqlite3.Connection) -> dict[str, Cluster]:
        """See `gateway.database.Store`."""
        return clusterrows.read(database)

    def read_part(self, database: sqlite3.Connection, names: frozenset[str]) -> dict[str, Cluster]:
        """See `gateway.database.PartialStore`."""
        return clusterrows.read(database, names)

    def take_part(self, names: frozenset[str], content: dict[str, Cluster]) -> None:
        """See `gateway.database.PartialStore`."""
        before = {name: self._clusters.pop(name, None) for name in names}
        self._clusters |= content
        for name in sorted(names):
            self._compare(before[name], content.get(name))


def _replaced(before: Cluster, after: Cluster) -> bool:
    """Whether a name stands for another cluster now: it was removed and added again between two looks."""
    return before.created != after.created or (before.uid is not None and before.uid != after.uid)

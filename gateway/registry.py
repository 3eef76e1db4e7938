"""Which clusters there are: the port, and its store for a single server, an SQLite file.

A request reads a dictionary and nothing else. The file is read when the registry opens, and again when
`poll` sees that another process (the `kulvert` command) wrote to it; a write of our own goes through to the
disk before it counts. All calls come from one thread; a write blocks it for one fsync, which an
administrator's action may cost.
"""

from __future__ import annotations

import enum
import json
import os
import re
import sqlite3
import stat
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, TypeAlias

from auth.jointoken import StoredJoinToken

NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_MIGRATIONS = (
    """
    CREATE TABLE cluster (name TEXT PRIMARY KEY, uid TEXT, created REAL NOT NULL, labels TEXT NOT NULL)
    STRICT; CREATE TABLE join_token (
        id TEXT PRIMARY KEY, key BLOB NOT NULL, cluster TEXT NOT NULL, expires REAL NOT NULL
    ) STRICT;
    """,
)


class RegistryError(Exception):
    """The registry refuses a change, or its file; the text says why."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """A managed cluster. `uid` is None until the first agent's cluster has been pinned.

    :raises RegistryError: the name is no DNS-1123 label (RFC 1123, at most 63 characters).
    """

    name: str
    uid: str | None = None
    created: float = 0.0
    labels: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise RegistryError(f"{self.name!r} is no cluster name: use a-z, 0-9 and -, at most 63 characters")


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


class SqliteRegistry:
    """`ClusterRegistry`, and the join tokens, in one SQLite file that its owner alone can read."""

    def __init__(self, path: Path) -> None:
        """Opens or makes the file. :raises RegistryError: it is open to others, or of a later version."""
        _make_private(path)
        self._database = sqlite3.connect(path, isolation_level=None)
        try:
            _prepare(self._database)
            self._clusters = self._read()
            self._version = self._data_version()
        except BaseException:
            self._database.close()
            raise
        self._subscribers: dict[int, Subscriber] = {}
        self._next = 0

    def close(self) -> None:
        """Closes the file; the registry is of no use afterwards."""
        self._database.close()

    def get(self, name: str) -> Cluster | None:
        """See `ClusterRegistry`."""
        return self._clusters.get(name)

    def list(self) -> tuple[Cluster, ...]:
        """See `ClusterRegistry`."""
        return tuple(self._clusters[name] for name in sorted(self._clusters))

    def add(self, cluster: Cluster) -> None:
        """See `ClusterRegistry`."""
        row = (cluster.name, cluster.uid, cluster.created, json.dumps(dict(cluster.labels)))
        try:
            self._database.execute("INSERT INTO cluster VALUES (?, ?, ?, ?)", row)
        except sqlite3.IntegrityError:
            raise RegistryError(f"there is a cluster {cluster.name!r} already") from None
        self._clusters[cluster.name] = cluster
        self._tell(Change.ADDED, cluster)

    def remove(self, name: str) -> None:
        """See `ClusterRegistry`. Its join tokens go with it."""
        cluster = self._known(name)
        with self._database:
            self._database.execute("BEGIN IMMEDIATE")
            self._database.execute("DELETE FROM join_token WHERE cluster = ?", (name,))
            self._database.execute("DELETE FROM cluster WHERE name = ?", (name,))
        del self._clusters[name]
        self._tell(Change.REMOVED, cluster)

    def pin(self, name: str, uid: str) -> Cluster:
        """See `ClusterRegistry`. The database decides, so that of two processes one wins."""
        cluster = self._known(name)
        if not uid:
            raise RegistryError("a cluster's uid is not empty")
        self._database.execute("UPDATE cluster SET uid = ? WHERE name = ? AND uid IS NULL", (uid, name))
        row = self._database.execute("SELECT uid FROM cluster WHERE name = ?", (name,)).fetchone()
        if row is None or row[0] != uid:
            raise RegistryError(
                f"cluster {name!r} is pinned to another cluster: remove it and add it again to change that"
            )
        pinned = replace(cluster, uid=uid)
        self._clusters[name] = pinned
        if cluster != pinned:
            self._tell(Change.UPDATED, pinned)
        return pinned

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """See `ClusterRegistry`."""
        number = self._next = self._next + 1
        self._subscribers[number] = subscriber
        return lambda: self._subscribers.pop(number, None) and None

    def poll(self) -> bool:
        """Takes over what another process wrote, and tells subscribers. True where there was something."""
        version = self._data_version()
        if version == self._version:
            return False
        self._version = version
        before, self._clusters = self._clusters, self._read()
        for name in sorted(before.keys() | self._clusters.keys()):
            self._compare(before.get(name), self._clusters.get(name))
        return True

    def add_join_token(self, token: StoredJoinToken) -> None:
        """Keeps a token for a cluster that may be added later. :raises RegistryError: its id is taken."""
        row = (token.id, token.key, token.cluster, token.expires)
        try:
            self._database.execute("INSERT INTO join_token VALUES (?, ?, ?, ?)", row)
        except sqlite3.IntegrityError:
            raise RegistryError("there is a join token of this id already") from None

    def join_token(self, token_id: str) -> StoredJoinToken | None:
        """A token by id, from the file: enrolment is rare, and a revoked token must not linger in memory."""
        row = self._database.execute("SELECT id, key, cluster, expires FROM join_token WHERE id = ?", (token_id,))
        found = row.fetchone()
        return StoredJoinToken(*found) if found else None

    def join_tokens(self) -> tuple[StoredJoinToken, ...]:
        """All tokens, the soonest to expire first."""
        rows = self._database.execute("SELECT id, key, cluster, expires FROM join_token ORDER BY expires, id")
        return tuple(StoredJoinToken(*row) for row in rows)

    def remove_join_token(self, token_id: str) -> bool:
        """Whether there was such a token; afterwards there is none. Of two callers, one is told True."""
        return self._database.execute("DELETE FROM join_token WHERE id = ?", (token_id,)).rowcount == 1

    def drop_expired(self, now: float) -> int:
        """Removes tokens that have expired, and says how many."""
        return self._database.execute("DELETE FROM join_token WHERE expires <= ?", (now,)).rowcount

    def _known(self, name: str) -> Cluster:
        if (cluster := self._clusters.get(name)) is None:
            raise RegistryError(f"there is no cluster {name!r}")
        return cluster

    def _tell(self, change: Change, cluster: Cluster) -> None:
        for subscriber in tuple(self._subscribers.values()):
            subscriber(change, cluster)

    def _compare(self, before: Cluster | None, after: Cluster | None) -> None:
        if before is None and after is not None:
            self._tell(Change.ADDED, after)
        elif before is not None and after is None:
            self._tell(Change.REMOVED, before)
        elif after is not None and before != after:
            self._tell(Change.UPDATED, after)

    def _read(self) -> dict[str, Cluster]:
        rows = self._database.execute("SELECT name, uid, created, labels FROM cluster")
        return {
            name: Cluster(name, uid, created, tuple(json.loads(labels).items())) for name, uid, created, labels in rows
        }

    def _data_version(self) -> int:
        return int(self._database.execute("PRAGMA data_version").fetchone()[0])


def _make_private(path: Path) -> None:
    """SQLite gives its -wal and -shm files the mode of the database, so this one mode covers all three."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
    os.close(descriptor)
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise RegistryError(f"{path} is open to others than its owner: chmod 600 it")


def _prepare(database: sqlite3.Connection) -> None:
    """synchronous=FULL: a cluster or token that was removed must not come back after a power cut."""
    try:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        database.execute("PRAGMA busy_timeout = 2000")
        with database:
            database.execute("BEGIN IMMEDIATE")
            _migrate(database)
    except sqlite3.DatabaseError as error:
        raise RegistryError(f"the registry's file cannot be used: {error}") from None


def _migrate(database: sqlite3.Connection) -> None:
    database.execute("CREATE TABLE IF NOT EXISTS schema_version (version INTEGER NOT NULL) STRICT")
    row = database.execute("SELECT version FROM schema_version").fetchone()
    version = row[0] if row else 0
    if version > len(_MIGRATIONS):
        raise RegistryError(f"the registry's file is of a later Kulvert (schema {version}): use that one")
    for script in _MIGRATIONS[version:]:
        for statement in filter(str.strip, script.split(";")):
            database.execute(statement)
    database.execute("DELETE FROM schema_version")
    database.execute("INSERT INTO schema_version VALUES (?)", (len(_MIGRATIONS),))

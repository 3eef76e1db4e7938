"""Which clusters there are: the port, and its store for a single server, an SQLite file.

A request reads a dictionary and nothing else. The file is read when the registry opens, and again when
`poll` sees that another process (the `kulvert` command) wrote to it; a write of our own goes through to the
disk before it counts. All calls come from one thread; a write blocks it for one fsync, which an
administrator's action may cost, and for `patience` where another process is writing.
"""

from __future__ import annotations

import enum
import json
import logging
import os
import re
import sqlite3
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, TypeAlias

from auth.jointoken import StoredJoinToken
from auth.watched import Watched

_log = logging.getLogger(__name__)
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


@dataclass(frozen=True, slots=True)
class _Content:
    """All that the file holds."""

    clusters: dict[str, Cluster]
    tokens: dict[str, StoredJoinToken]


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

    def __init__(self, path: Path, *, patience: float = 2.0) -> None:
        """Opens or makes the file. `patience` is for another process's write; a server has little, since all wait
        with it.

        :raises RegistryError: the file is open to others, or of a later version.
        """
        _make_private(path)
        self._database = sqlite3.connect(path, isolation_level=None)
        try:
            _prepare(self._database, patience)
            with _refusing():
                version = self._data_version()
                content = self._read()
        except BaseException:
            self._database.close()
            raise
        self._clusters, self._tokens = content.clusters, content.tokens
        self._watched = Watched(self._data_version, self._read, self._take, known=version)
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
        with _refusing(f"there is a cluster {cluster.name!r} already"):
            self._database.execute("INSERT INTO cluster VALUES (?, ?, ?, ?)", row)
        self._clusters[cluster.name] = cluster
        self._tell(Change.ADDED, cluster)

    def remove(self, name: str) -> None:
        """See `ClusterRegistry`. Its join tokens go with it."""
        cluster = self._known(name)
        with _refusing(), self._database:
            self._database.execute("BEGIN IMMEDIATE")
            self._database.execute("DELETE FROM join_token WHERE cluster = ?", (name,))
            self._database.execute("DELETE FROM cluster WHERE name = ?", (name,))
        del self._clusters[name]
        self._tokens = {token_id: token for token_id, token in self._tokens.items() if token.cluster != name}
        self._tell(Change.REMOVED, cluster)

    def pin(self, name: str, uid: str) -> Cluster:
        """See `ClusterRegistry`. The database decides, so that of two processes one wins; what it decided stays."""
        cluster = self._known(name)
        if not uid:
            raise RegistryError("a cluster's uid is not empty")
        if cluster.uid == uid:
            return cluster  # as for every agent that attaches again: nothing to write
        with _refusing():
            self._database.execute("UPDATE cluster SET uid = ? WHERE name = ? AND uid IS NULL", (uid, name))
            row = self._database.execute("SELECT uid FROM cluster WHERE name = ?", (name,)).fetchone()
        if row is None or row[0] != uid:
            raise RegistryError(
                f"cluster {name!r} is pinned to another cluster: remove it and add it again to change that"
            )
        pinned = replace(cluster, uid=uid)
        self._clusters[name] = pinned
        self._tell(Change.UPDATED, pinned)
        return pinned

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """See `ClusterRegistry`."""
        number = self._next = self._next + 1
        self._subscribers[number] = subscriber
        return lambda: self._subscribers.pop(number, None) and None

    def poll(self) -> bool:
        """Takes over what another process wrote, and tells subscribers. True where there was something.

        :raises RegistryError: the file cannot be read just now. The next poll will see what this one has missed.
        """
        with _refusing():
            return self._watched.poll()

    def add_join_token(self, token: StoredJoinToken) -> None:
        """Keeps a token for a cluster that may be added later. :raises RegistryError: its id is taken."""
        row = (token.id, token.key, token.cluster, token.expires)
        with _refusing("there is a join token of this id already"):
            self._database.execute("INSERT INTO join_token VALUES (?, ?, ?, ?)", row)
        self._tokens[token.id] = token

    def join_token(self, token_id: str) -> StoredJoinToken | None:
        """A token by id, from memory: one that another process revoked is gone with the next poll."""
        return self._tokens.get(token_id)

    def join_tokens(self) -> tuple[StoredJoinToken, ...]:
        """All tokens, the soonest to expire first."""
        return tuple(sorted(self._tokens.values(), key=lambda token: (token.expires, token.id)))

    def remove_join_token(self, token_id: str) -> bool:
        """Whether there was such a token; afterwards there is none. Of two callers, one is told True."""
        with _refusing():
            removed = self._database.execute("DELETE FROM join_token WHERE id = ?", (token_id,)).rowcount == 1
        self._tokens.pop(token_id, None)
        return removed

    def drop_expired(self, now: float) -> int:
        """Removes tokens that have expired, and says how many."""
        with _refusing():
            count = self._database.execute("DELETE FROM join_token WHERE expires <= ?", (now,)).rowcount
        self._tokens = {token_id: token for token_id, token in self._tokens.items() if token.expires > now}
        return count

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

    def _take(self, content: _Content) -> None:
        before, self._clusters = self._clusters, content.clusters
        self._tokens = content.tokens
        for name in sorted(before.keys() | content.clusters.keys()):
            self._compare(before.get(name), content.clusters.get(name))

    def _compare(self, before: Cluster | None, after: Cluster | None) -> None:
        if before is not None and after is not None and not _replaced(before, after):
            if before != after:
                self._tell(Change.UPDATED, after)
            return
        if before is not None:
            self._tell(Change.REMOVED, before)
        if after is not None:
            self._tell(Change.ADDED, after)

    def _read(self) -> _Content:
        clusters = self._database.execute("SELECT name, uid, created, labels FROM cluster").fetchall()
        tokens = self._database.execute("SELECT id, key, cluster, expires FROM join_token").fetchall()
        return _Content(
            {
                name: Cluster(name, uid, created, tuple(json.loads(labels).items()))
                for name, uid, created, labels in clusters
            },
            {row[0]: StoredJoinToken(*row) for row in tokens},
        )

    def _data_version(self) -> int:
        return int(self._database.execute("PRAGMA data_version").fetchone()[0])


def _replaced(before: Cluster, after: Cluster) -> bool:
    """Whether a name stands for another cluster now: it was removed and added again between two looks."""
    return before.created != after.created or (before.uid is not None and before.uid != after.uid)


@contextmanager
def _refusing(taken: str = "") -> Iterator[None]:
    """SQLite's errors in our callers' terms; `taken` is for a key that is there already."""
    try:
        yield
    except sqlite3.Error as error:
        if taken and isinstance(error, sqlite3.IntegrityError):
            raise RegistryError(taken) from None
        raise RegistryError(f"the registry's file cannot be used just now ({error}): try again") from error


def _make_private(path: Path) -> None:
    """SQLite gives its -wal and -shm files the mode of the database, so this one mode covers all three."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
    os.close(descriptor)
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise RegistryError(f"{path} is open to others than its owner: chmod 600 it")


def _prepare(database: sqlite3.Connection, patience: float) -> None:
    """synchronous=FULL: a cluster or token that was removed must not come back after a power cut."""
    try:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        database.execute("PRAGMA busy_timeout = 2000")
        with database:
            database.execute("BEGIN IMMEDIATE")
            _migrate(database)
        database.execute(f"PRAGMA busy_timeout = {int(patience * 1000)}")
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

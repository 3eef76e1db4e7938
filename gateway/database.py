"""The server's SQLite file, shared by several stores: each has tables of its own, and what it needs of them in memory.

A request reads memory and nothing else. A store reads its tables when it is opened, and again when `poll` sees that
another process (the `kulvert` command) wrote to the file; a write of our own goes through to the disk before it
counts. All calls come from one thread; a write blocks it for one fsync, which an administrator's action may cost, and
for `patience` where another process is writing.
"""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from auth.watched import Watched


class RegistryError(Exception):
    """A store refuses a change, or its file; the text says why."""


class Store(Protocol):
    """Some tables of the file. `migrations` are scripts, of which each file has run the first few; they only grow."""

    name: str
    migrations: tuple[str, ...]

    def read(self, database: sqlite3.Connection) -> Any:
        """All of it. Changes nothing of the store's, since another store may fail to read."""
        ...

    def take(self, content: Any) -> None:
        """What `read` gave counts from now on; subscribers are told what it changed."""
        ...


class Database:
    """One file that its owner alone can read."""

    def __init__(self, path: Path, *, patience: float = 2.0) -> None:
        """Opens or makes the file. `patience` is for another process's write; a server has little, since all wait
        with it.

        :raises RegistryError: the file is open to others, or no database.
        """
        _make_private(path)
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._stores: list[Store] = []
        try:
            _prepare(self._connection, patience)
            with refusing():
                version = self._version()
        except BaseException:
            self._connection.close()
            raise
        self._watched = Watched(self._version, self._read, self._take, known=version)

    def close(self) -> None:
        """Closes the file; its stores are of no use afterwards."""
        self._connection.close()

    def open(self, store: Store) -> None:
        """Makes a store's tables, and gives it what is in them.

        :raises RegistryError: the file is of a later version than the store.
        """
        with self.writing() as connection:
            _migrate(connection, store)
        with refusing():
            store.take(store.read(self._connection))
        self._stores.append(store)

    @contextmanager
    def writing(self, taken: str = "") -> Iterator[sqlite3.Connection]:
        """A transaction: all of it counts, or nothing. `taken` is what to say of a key that is there already.

        :raises RegistryError: from within as well, where SQLite fails.
        """
        with refusing(taken), self._connection as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield connection

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """For a question that memory does not answer; it waits for no writer. :raises RegistryError: SQLite fails."""
        with refusing():
            yield self._connection

    def poll(self) -> bool:
        """Takes over what another process wrote, and tells subscribers. True where there was something.

        :raises RegistryError: the file cannot be read just now. The next poll will see what this one has missed.
        """
        with refusing():
            return self._watched.poll()

    def _version(self) -> int:
        return int(self._connection.execute("PRAGMA data_version").fetchone()[0])

    def _read(self) -> list[tuple[Store, Any]]:
        """Of one moment, whatever others write meanwhile."""
        with self._connection as connection:
            connection.execute("BEGIN")
            return [(store, store.read(connection)) for store in self._stores]

    def _take(self, contents: list[tuple[Store, Any]]) -> None:
        """The registry, which is opened first, comes last: whom it tells of a cluster has all of the same moment."""
        for store, content in reversed(contents):
            store.take(content)


@contextmanager
def refusing(taken: str = "") -> Iterator[None]:
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
        database.execute("PRAGMA busy_timeout = 2000")
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        database.execute(
            "CREATE TABLE IF NOT EXISTS store_version (store TEXT PRIMARY KEY, version INTEGER NOT NULL) STRICT"
        )
        database.execute(f"PRAGMA busy_timeout = {int(patience * 1000)}")
    except sqlite3.DatabaseError as error:
        raise RegistryError(f"the registry's file cannot be used: {error}") from None


def _migrate(database: sqlite3.Connection, store: Store) -> None:
    row = database.execute("SELECT version FROM store_version WHERE store = ?", (store.name,)).fetchone()
    version = row[0] if row else 0
    if version > len(store.migrations):
        raise RegistryError(f"the registry's file is of a later Kulvert ({store.name} {version}): use that one")
    if version == len(store.migrations):
        return
    for script in store.migrations[version:]:
        for statement in filter(str.strip, script.split(";")):
            database.execute(statement)
    database.execute("INSERT OR REPLACE INTO store_version VALUES (?, ?)", (store.name, len(store.migrations)))

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
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

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


@runtime_checkable
class PartialStore(Protocol):
    """A `Store` that can read what belongs to some names alone, since it is large."""

    def read_part(self, database: sqlite3.Connection, names: frozenset[str]) -> Any:
        """All of these."""
        ...

    def take_part(self, names: frozenset[str], content: Any) -> None:
        """What `read_part` gave counts from now on, of these names."""
        ...


@dataclass(frozen=True, slots=True)
class Changed:
    """Up to `position`, in each of these stores, something of these names."""

    position: int
    names: Mapping[str, frozenset[str]]


class Journal(Protocol):
    """Knows what was written to the file, by whomever: then a poll reads that alone."""

    def position(self, database: sqlite3.Connection) -> int:
        """A number that rises with each write."""
        ...

    def since(self, database: sqlite3.Connection, position: int) -> Changed | None:
        """What was changed after that; None where it cannot say, and all has to be read."""
        ...


@dataclass(frozen=True, slots=True)
class _Read:
    """What is to be taken: all of a store, or the part of some names."""

    store: Store
    content: Any
    names: frozenset[str] | None = None

    def take(self) -> None:
        if self.names is not None and isinstance(self.store, PartialStore):
            self.store.take_part(self.names, self.content)
        else:
            self.store.take(self.content)


@dataclass(frozen=True, slots=True)
class _Look:
    """What a poll has read, and up to where of the journal."""

    position: int
    contents: list[_Read]


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
        self._journal: Journal | None = None
        self._position = 0
        self._written: list[Callable[[], None]] = []
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

    def follow(self, journal: Journal) -> None:
        """From now on a poll reads what this one says was changed. All stores are open, and it knows of all.

        :raises RegistryError: the file cannot be read just now.
        """
        with self.reading() as connection:
            connection.execute("BEGIN")
            try:
                self._position = journal.position(connection)
                for store in self._stores:
                    store.take(store.read(connection))
            finally:
                connection.execute("COMMIT")
        self._journal = journal

    def on_write(self, written: Callable[[], None]) -> None:
        """Calls back after each of our own writes: whoever brings it elsewhere need not look for it."""
        self._written.append(written)

    @contextmanager
    def writing(self, taken: str = "") -> Iterator[sqlite3.Connection]:
        """A transaction: all of it counts, or nothing. `taken` is what to say of a key that is there already.

        :raises RegistryError: from within as well, where SQLite fails.
        """
        with refusing(taken), self._connection as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield connection
        for written in self._written:
            written()

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

    def _read(self) -> _Look:
        """Of one moment, whatever others write meanwhile."""
        with self._connection as connection:
            connection.execute("BEGIN")
            journal, position = self._journal, self._position
            changed = journal.since(connection, position) if journal is not None else None
            if journal is not None:
                position = changed.position if changed is not None else journal.position(connection)
            stores = [store for store in self._stores if changed is None or store.name in changed.names]
            return _Look(position, [self._read_one(connection, store, changed) for store in stores])

    def _read_one(self, connection: sqlite3.Connection, store: Store, changed: Changed | None) -> _Read:
        if changed is None or not isinstance(store, PartialStore):
            return _Read(store, store.read(connection))
        names = changed.names[store.name]
        return _Read(store, store.read_part(connection, names), names)

    def _take(self, look: _Look) -> None:
        """The registry, which is opened first, comes last: whom it tells of a cluster has all of the same moment."""
        for content in reversed(look.contents):
            content.take()
        self._position = look.position


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
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    # One that is there must not be opened: closing any descriptor of a file gives up all of the process's locks on it,
    # those of its other connections too, and then another process's last close takes their -wal away from them.
    mode = path.stat().st_mode
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

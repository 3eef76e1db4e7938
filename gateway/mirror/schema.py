"""The mirror's own tables in the server's file, and the triggers that note each change of a shared row.

The triggers are in the file, so that what another process (the `kulvert` command) writes is noted as well, in the same
transaction. What the mirror itself writes is not: it sets `quiet` within its transaction, in which nobody else writes.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Any, Final

from gateway.mirror.document import Shape
from gateway.mirror.kinds import Key, Kind, Table

_NOTE: Final = """
    UPDATE mirror_state SET number = number + 1;
    UPDATE mirror_outbox SET last = (SELECT number FROM mirror_state) WHERE kind = '{kind}' AND key = {key};
    INSERT INTO mirror_outbox SELECT '{kind}', {key}, number, number FROM mirror_state
        WHERE NOT EXISTS (SELECT 1 FROM mirror_outbox WHERE kind = '{kind}' AND key = {key});
    INSERT INTO mirror_journal SELECT number, '{kind}', {key} FROM mirror_state;
"""
"""Without conflict clauses: those of the statement that fires a trigger would count instead."""


class MirrorTables:
    """A `gateway.database.Store` that keeps nothing in memory."""

    name = "mirror"
    migrations: tuple[str, ...] = (
        """
        CREATE TABLE mirror_state (
            one INTEGER PRIMARY KEY CHECK (one = 1), number INTEGER NOT NULL, quiet INTEGER NOT NULL,
            sharing TEXT NOT NULL, filling INTEGER NOT NULL
        ) STRICT;
        INSERT INTO mirror_state VALUES (1, 0, 0, '', 0);
        CREATE TABLE mirror_outbox (
            kind TEXT NOT NULL, key TEXT NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL,
            PRIMARY KEY (kind, key)
        ) STRICT;
        CREATE INDEX mirror_outbox_first ON mirror_outbox (first);
        CREATE TABLE mirror_journal (number INTEGER PRIMARY KEY, kind TEXT NOT NULL, key TEXT NOT NULL) STRICT;
        CREATE TABLE mirror_object (
            name TEXT PRIMARY KEY, kind TEXT NOT NULL, key TEXT NOT NULL, version TEXT NOT NULL, content BLOB,
            attempt BLOB
        ) STRICT;
        """,
    )

    def read(self, database: sqlite3.Connection) -> None:
        """See `gateway.database.Store`."""

    def take(self, content: Any) -> None:
        """See `gateway.database.Store`."""


def install(database: sqlite3.Connection, kinds: Iterable[Kind]) -> None:
    """Makes the triggers, within a transaction, in the place of those of another release."""
    remove(database)
    for kind in kinds:
        for table in kind.tables:
            _trigger(database, kind, table, "INSERT", "NEW")
            _trigger(database, kind, table, "UPDATE", "NEW")
            _trigger(database, kind, table, "DELETE", "OLD")
            moved = " OR ".join(f"NEW.{column} IS NOT OLD.{column}" for column in table.group)
            _trigger(database, kind, table, "UPDATE", "OLD", f" AND ({moved})", "_moved")


def _trigger(
    database: sqlite3.Connection, kind: Kind, table: Table, event: str, row: str, when: str = "", suffix: str = ""
) -> None:
    key = f"json_array({', '.join(f'{row}.{column}' for column in table.group)})"
    when = f"(SELECT quiet FROM mirror_state) = 0{when}"  # noqa: S608 -- our own schema's names, here and below
    name, note = f"mirror_{table.name}_{event.lower()}{suffix}", _NOTE.format(kind=kind.name, key=key)
    database.execute(f"CREATE TRIGGER {name} AFTER {event} ON {table.name} WHEN {when} BEGIN {note} END")


def remove(database: sqlite3.Connection) -> None:
    """Takes the triggers away: nothing is shared any more."""
    query = "SELECT name FROM sqlite_master WHERE type = 'trigger' AND name LIKE 'mirror#_%' ESCAPE '#'"
    for (name,) in database.execute(query).fetchall():
        database.execute(f"DROP TRIGGER {name}")


def shape_of(database: sqlite3.Connection, table: Table) -> Shape:
    """A table as it is."""
    rows = database.execute(f"PRAGMA table_info({table.name})").fetchall()
    assert rows, f"there is no table {table.name}: open its store before the mirror"
    columns = tuple(name for _, name, *_ in rows)
    defaults = {
        name: database.execute(f"SELECT {default or 'NULL'}").fetchone()[0]
        for _, name, _, required, default, _ in rows
        if default is not None or not required
    }
    primary = tuple(name for _, name, *_, place in sorted(rows, key=lambda row: row[5]) if place)
    return Shape(table, columns, defaults, primary)


def note(database: sqlite3.Connection, kind: str, key: Key) -> None:
    """As a trigger does, of a document that is not noted yet."""
    database.execute("UPDATE mirror_state SET number = number + 1")
    query = f"INSERT INTO mirror_outbox SELECT ?, {marks(key)}, number, number FROM mirror_state"  # noqa: S608
    database.execute(query, (kind, *key))


def journal(database: sqlite3.Connection, kind: str, key: Key) -> None:
    """A document was changed by what came from the hub."""
    database.execute("UPDATE mirror_state SET number = number + 1")
    database.execute(f"INSERT INTO mirror_journal SELECT number, ?, {marks(key)} FROM mirror_state", (kind, *key))  # noqa: S608


def marks(key: Key) -> str:
    """Places for a key's parts, which make the text that triggers make."""
    return f"json_array({', '.join('?' * len(key))})"


def select(shape: Shape) -> str:
    """All columns of a document's rows, in an order that is the same everywhere."""
    order = ", ".join(shape.primary)
    return f"SELECT {', '.join(shape.columns)} FROM {shape.table.name} WHERE {_equal(shape.group)} ORDER BY {order}"  # noqa: S608


def delete(shape: Shape) -> str:
    """One row."""
    return f"DELETE FROM {shape.table.name} WHERE {_equal(shape.primary)}"  # noqa: S608


def delete_all(shape: Shape) -> str:
    """All of a document."""
    return f"DELETE FROM {shape.table.name} WHERE {_equal(shape.group)}"  # noqa: S608


def upsert(shape: Shape) -> str:
    """One row by its columns' names; one that is another document's stays as it is."""
    name, columns = shape.table.name, shape.columns
    values, key = ", ".join(f":{one}" for one in columns), ", ".join(shape.primary)
    changes = ", ".join(f"{one} = excluded.{one}" for one in columns)
    same = " AND ".join(f"{name}.{one} = excluded.{one}" for one in shape.group)
    return (
        f"INSERT INTO {name} ({', '.join(columns)}) VALUES ({values})"  # noqa: S608 -- our own schema's names
        f" ON CONFLICT ({key}) DO UPDATE SET {changes} WHERE {same}"
    )


def _equal(columns: tuple[str, ...]) -> str:
    return " AND ".join(f"{one} = ?" for one in columns)

"""The registry's tables, and how clusters are written to and read from them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable

from gateway.membership.cluster import Cluster, Mark
from gateway.membership.conditions import Condition
from gateway.membership.inventory import Inventory

MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE IF NOT EXISTS cluster (
        name TEXT PRIMARY KEY, uid TEXT, created REAL NOT NULL, labels TEXT NOT NULL
    ) STRICT;
    """,
    """
    ALTER TABLE cluster ADD COLUMN accepted REAL NOT NULL DEFAULT 0;
    ALTER TABLE cluster ADD COLUMN phase TEXT NOT NULL DEFAULT '';
    CREATE TABLE cluster_mark (
        cluster TEXT NOT NULL, kind TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (cluster, kind, value)
    ) STRICT;
    CREATE TABLE cluster_condition (
        cluster TEXT NOT NULL, type TEXT NOT NULL, status TEXT NOT NULL, reason TEXT NOT NULL,
        message TEXT NOT NULL, changed REAL NOT NULL, PRIMARY KEY (cluster, type)
    ) STRICT;
    """,
    """
    ALTER TABLE cluster ADD COLUMN denied INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE cluster ADD COLUMN inventory TEXT NOT NULL DEFAULT '';
    """,
    """
    ALTER TABLE cluster ADD COLUMN hub_accepted TEXT NOT NULL DEFAULT '';
    """,
)


def insert(database: sqlite3.Connection, cluster: Cluster) -> None:
    """A new one. What somebody wrote late for one that had its name goes before."""
    _delete_marks(database, cluster.name)
    labels = json.dumps(dict(cluster.labels))
    row = (cluster.name, cluster.uid, cluster.created, labels, cluster.accepted)
    database.execute("INSERT INTO cluster (name, uid, created, labels, accepted) VALUES (?, ?, ?, ?, ?)", row)


def delete(database: sqlite3.Connection, name: str) -> None:
    """A cluster, with what others put on it."""
    _delete_marks(database, name)
    database.execute("DELETE FROM cluster WHERE name = ?", (name,))


def _delete_marks(database: sqlite3.Connection, name: str) -> None:
    database.execute("DELETE FROM cluster_mark WHERE cluster = ?", (name,))
    database.execute("DELETE FROM cluster_condition WHERE cluster = ?", (name,))


def put_conditions(database: sqlite3.Connection, name: str, conditions: Iterable[Condition]) -> None:
    """Conditions of one cluster, in the place of those of the same types."""
    rows = [(name, one.type, one.status, one.reason, one.message, one.changed) for one in conditions]
    database.executemany("INSERT OR REPLACE INTO cluster_condition VALUES (?, ?, ?, ?, ?, ?)", rows)


def put_labels(database: sqlite3.Connection, name: str, labels: Iterable[tuple[str, str]]) -> None:
    """Labels of one cluster, in the place of those it has."""
    database.execute("UPDATE cluster SET labels = ? WHERE name = ?", (json.dumps(dict(labels)), name))


def put_denied(database: sqlite3.Connection, name: str, denied: bool) -> None:
    """Whether the hub's administrator accepts it no more. Of who is let in again the hub has not heard yet."""
    database.execute("UPDATE cluster SET denied = ?, hub_accepted = '' WHERE name = ?", (denied, name))


def put_hub_accepted(database: sqlite3.Connection, name: str, uid: str) -> None:
    """The hub has accepted this uid, too."""
    database.execute("UPDATE cluster SET hub_accepted = ? WHERE name = ?", (uid, name))


def put_inventory(database: sqlite3.Connection, name: str, inventory: Inventory) -> None:
    """What is in it."""
    database.execute("UPDATE cluster SET inventory = ? WHERE name = ?", (inventory.text(), name))


def read(database: sqlite3.Connection, names: Iterable[str] | None = None) -> dict[str, Cluster]:
    """All clusters, or those of these names, by name."""
    marks: dict[tuple[str, str], list[str]] = {}
    query = f"SELECT cluster, kind, value FROM cluster_mark{among('cluster', names)} ORDER BY value"  # noqa: S608
    for name, kind, value in database.execute(query, listed(names)):
        marks.setdefault((name, kind), []).append(value)
    conditions: dict[str, list[Condition]] = {}
    query = "SELECT cluster, type, status, reason, message, changed FROM cluster_condition"
    for name, *fields in database.execute(f"{query}{among('cluster', names)} ORDER BY type", listed(names)):
        conditions.setdefault(name, []).append(Condition(*fields))
    query = "SELECT name, uid, created, labels, accepted, phase, denied, inventory, hub_accepted FROM cluster"
    rows = database.execute(f"{query}{among('name', names)}", listed(names)).fetchall()
    return {
        name: Cluster(
            *(name, uid, created, tuple(json.loads(labels).items()), accepted, phase),
            gates=tuple(marks.get((name, Mark.GATE.value), ())),
            finalizers=tuple(marks.get((name, Mark.FINALIZER.value), ())),
            conditions=tuple(conditions.get(name, ())),
            denied=bool(denied),
            inventory=Inventory.read(inventory),
            hub_accepted=hub_accepted,
        )
        for name, uid, created, labels, accepted, phase, denied, inventory, hub_accepted in rows
    }


def among(column: str, names: Iterable[str] | None) -> str:
    """A condition for rows of these names, or of all; with `listed` as its parameter."""
    return "" if names is None else f" WHERE {column} IN (SELECT value FROM json_each(?))"  # noqa: S608


def listed(names: Iterable[str] | None) -> tuple[str, ...]:
    """See `among`."""
    return () if names is None else (json.dumps(list(names)),)

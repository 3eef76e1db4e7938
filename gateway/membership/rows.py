"""The registry's tables, and how clusters are written to and read from them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable

from gateway.membership.cluster import Cluster, Mark
from gateway.membership.conditions import Condition

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


def read(database: sqlite3.Connection) -> dict[str, Cluster]:
    """All clusters, by name."""
    marks: dict[tuple[str, str], list[str]] = {}
    for name, kind, value in database.execute("SELECT cluster, kind, value FROM cluster_mark ORDER BY value"):
        marks.setdefault((name, kind), []).append(value)
    conditions: dict[str, list[Condition]] = {}
    query = "SELECT cluster, type, status, reason, message, changed FROM cluster_condition ORDER BY type"
    for name, *fields in database.execute(query):
        conditions.setdefault(name, []).append(Condition(*fields))
    query = "SELECT name, uid, created, labels, accepted, phase FROM cluster"
    return {
        name: Cluster(
            *(name, uid, created, tuple(json.loads(labels).items()), accepted, phase),
            gates=tuple(marks.get((name, Mark.GATE.value), ())),
            finalizers=tuple(marks.get((name, Mark.FINALIZER.value), ())),
            conditions=tuple(conditions.get(name, ())),
        )
        for name, uid, created, labels, accepted, phase in database.execute(query).fetchall()
    }

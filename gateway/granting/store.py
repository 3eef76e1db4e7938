"""Grants in the server's SQLite file, and what was changed in them by whom.

A row that cannot be read (a later Kulvert wrote it) is not in force and is named in `problem`; the others go on.
"""

from __future__ import annotations

import dataclasses
import json
import sqlite3
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

import orjson

from auth.grants.grant import Grant, Maker
from auth.grants.labelselector import Labels
from auth.grants.object import value_of
from auth.grants.spec import OPTIONAL, REQUIRED, grant_fields, read_grant
from auth.yamlnodes import YamlError
from gateway.database import Database, RegistryError

Row: TypeAlias = tuple[str, int, str, str, str | None, str, float, str, float]
ON_THE_MACHINE = " on the server's machine"
"""How the name of who changes grants by the command ends."""
MOST = 10_000
"""Grants in all: each is looked at when one changes."""
MOST_BYTES = 32_768
"""Of one grant's spec."""
HISTORY = 10_000
"""Changes that are remembered."""


class GrantConflict(RegistryError):
    """The grant is not as its writer believes: read it again."""


@dataclass(frozen=True, slots=True)
class StoredGrant:
    """A row. `grant` is None where `problem` says why it cannot be read. `version` is a number of which each change
    in the store has another. Times are epoch seconds.
    """

    name: str
    version: int
    labels: Labels
    maker: Maker | None
    created_by: str
    created: float
    updated_by: str
    updated: float
    grant: Grant | None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class GrantChange:
    """What somebody did: create, update or delete."""

    at: float
    by: str
    name: str
    change: str
    spec: str


class GrantStore:
    """A `gateway.database.Store`. `list` and `get` read memory, changes go through to the disk."""

    name = "grants"
    migrations: tuple[str, ...] = (
        """
        CREATE TABLE stored_grant (
            name TEXT PRIMARY KEY, version INTEGER NOT NULL, spec TEXT NOT NULL, labels TEXT NOT NULL, maker TEXT,
            created_by TEXT NOT NULL, created REAL NOT NULL, updated_by TEXT NOT NULL, updated REAL NOT NULL
        ) STRICT;
        CREATE TABLE grant_change (
            version INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, by TEXT NOT NULL, name TEXT NOT NULL,
            change TEXT NOT NULL, spec TEXT NOT NULL
        ) STRICT;
        """,
    )

    def __init__(self, database: Database) -> None:
        """Opens it on a database. :raises RegistryError: the file is of a later version."""
        self._database = database
        self._rows: dict[str, StoredGrant] = {}
        self._told: list[Callable[[], None]] = []
        database.open(self)

    @property
    def problem(self) -> str | None:
        """Which grants are not in force since they cannot be read."""
        bad = [one for one in self._rows.values() if one.problem]
        told = "; ".join(f"grant {one.name!r} is not in force: {one.problem}" for one in bad[:3])
        return f"{told}{f'; and {len(bad) - 3} more' if len(bad) > 3 else ''}" or None

    def grants(self) -> tuple[Grant, ...]:
        """Those that can be read, by priority and name: for `auth.grants.sources.GrantSources`."""
        found = [one.grant for one in self._rows.values() if one.grant is not None]
        return tuple(sorted(found, key=lambda grant: (grant.priority, grant.name)))

    def list(self) -> tuple[StoredGrant, ...]:
        """All, by name."""
        return tuple(self._rows[name] for name in sorted(self._rows))

    def get(self, name: str) -> StoredGrant | None:
        """One."""
        return self._rows.get(name)

    def subscribe(self, told: Callable[[], None]) -> Callable[[], None]:
        """Calls back when the grants have changed. The returned function ends that."""
        self._told.append(told)
        return lambda: self._told.remove(told)

    def create(self, grant: Grant, labels: Labels, by: str, now: float) -> StoredGrant:
        """A new grant; `by` is who does it. Its maker is in it. :raises GrantConflict: the name is taken."""
        spec, name = _spec(grant), grant.name
        with self._database.writing() as database:
            _check_free(database, name)
            version = _note(database, now, by, name, "create", spec)
            row = (name, version, spec, json.dumps(dict(labels)), _told_maker(grant.maker), by, now, by, now)
            database.execute("INSERT INTO stored_grant VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        return self._put(StoredGrant(name, version, labels, grant.maker, by, now, by, now, grant))

    def replace(self, version: int, grant: Grant, labels: Labels, by: str, now: float) -> StoredGrant:
        """Another state of the grant of this name. :raises GrantConflict: it is not of this version any more."""
        spec, old = _spec(grant), self._known(grant.name)
        with self._database.writing() as database:
            _check_version(database, grant.name, version)
            new = _note(database, now, by, grant.name, "update", spec)
            row = (new, spec, json.dumps(dict(labels)), _told_maker(grant.maker), by, now, grant.name)
            database.execute(
                "UPDATE stored_grant SET version = ?, spec = ?, labels = ?, maker = ?, updated_by = ?, updated = ?"
                " WHERE name = ?",
                row,
            )
        changed = dataclasses.replace(old, version=new, labels=labels, maker=grant.maker, updated_by=by, updated=now)
        return self._put(dataclasses.replace(changed, grant=grant, problem=""))

    def delete(self, name: str, version: int, by: str, now: float) -> None:
        """:raises GrantConflict: it is not of this version any more, or gone."""
        with self._database.writing() as database:
            _check_version(database, name, version)
            _note(database, now, by, name, "delete", "")
            database.execute("DELETE FROM stored_grant WHERE name = ?", (name,))
        self._rows.pop(name, None)
        self._tell()

    def changes(self, name: str = "", most: int = 100) -> tuple[GrantChange, ...]:
        """What was changed, the latest first; of one grant, or of all."""
        query = (
            "SELECT at, by, name, change, spec FROM grant_change WHERE ? IN ('', name) ORDER BY version DESC LIMIT ?"
        )
        with self._database.reading() as database:
            return tuple(GrantChange(*row) for row in database.execute(query, (name, most)))

    def latest(self) -> int:
        """The number of the latest change; 0 before the first."""
        with self._database.reading() as database:
            return int(database.execute("SELECT COALESCE(MAX(version), 0) FROM grant_change").fetchone()[0])

    def changes_after(self, version: int) -> tuple[tuple[int, GrantChange], ...]:
        """What was changed after a change, with its number, in order."""
        query = "SELECT version, at, by, name, change, spec FROM grant_change WHERE version > ? ORDER BY version"
        with self._database.reading() as database:
            return tuple((row[0], GrantChange(*row[1:])) for row in database.execute(query, (version,)))

    # --- gateway.database.Store

    def read(self, database: sqlite3.Connection) -> dict[str, StoredGrant]:
        """See `gateway.database.Store`. What has not changed is not parsed again."""
        found: dict[str, StoredGrant] = {}
        for row in database.execute("SELECT * FROM stored_grant"):
            known = self._rows.get(row[0])
            found[row[0]] = known if known is not None and _is_same(known, row) else _read(row)
        return found

    def take(self, content: dict[str, StoredGrant]) -> None:
        """See `gateway.database.Store`."""
        changed = content != self._rows
        self._rows = content
        if changed:
            self._tell()

    def _put(self, row: StoredGrant) -> StoredGrant:
        self._rows[row.name] = row
        self._tell()
        return row

    def _known(self, name: str) -> StoredGrant:
        if (known := self._rows.get(name)) is None:
            raise GrantConflict(f"there is no grant {name!r}")
        return known

    def _tell(self) -> None:
        for told in tuple(self._told):
            told()


def _check_free(database: sqlite3.Connection, name: str) -> None:
    if database.execute("SELECT 1 FROM stored_grant WHERE name = ?", (name,)).fetchone():
        raise GrantConflict(f"there is a grant {name!r} already")
    if database.execute("SELECT COUNT(*) FROM stored_grant").fetchone()[0] >= MOST:
        raise RegistryError(
            f"there are {MOST} stored grants, which is the most: delete some, or use groups and patterns"
        )


def _check_version(database: sqlite3.Connection, name: str, version: int) -> None:
    row = database.execute("SELECT version FROM stored_grant WHERE name = ?", (name,)).fetchone()
    if row is None:
        raise GrantConflict(f"there is no grant {name!r}")
    if row[0] != version:
        raise GrantConflict(f"grant {name!r} has been changed meanwhile: read it again")


def _note(database: sqlite3.Connection, now: float, by: str, name: str, change: str, spec: str) -> int:
    """In the same transaction as the change; gives its version, which no other change ever had."""
    insert = "INSERT INTO grant_change (at, by, name, change, spec) VALUES (?, ?, ?, ?, ?)"
    version = int(database.execute(insert, (now, by, name, change, spec)).lastrowid or 0)
    database.execute("DELETE FROM grant_change WHERE version <= ?", (version - HISTORY,))
    return version


def _spec(grant: Grant) -> str:
    spec = orjson.dumps(grant_fields(grant), option=orjson.OPT_SORT_KEYS).decode()
    if len(spec.encode()) > MOST_BYTES:
        raise RegistryError(f"grant {grant.name!r} has more than {MOST_BYTES} bytes: use groups and patterns")
    return spec


def _is_same(known: StoredGrant, row: Row) -> bool:
    """Two replicas may give a version to two changes of a grant, of which one is given up: then it is another's."""
    return (known.version, known.updated_by, known.updated) == (row[1], row[7], row[8])


def _read(row: Row) -> StoredGrant:
    name, version, spec, labels, maker, created_by, created, updated_by, updated = row
    bare = StoredGrant(name, version, (), None, created_by, created, updated_by, updated, None)
    try:
        known, by = _read_labels(labels), _read_maker(maker)
        value = value_of(orjson.loads(spec), f"grant {name}")
        fields = value.fields(required=REQUIRED, optional=OPTIONAL | {"priority"})
        grant = dataclasses.replace(read_grant(name, fields, value), maker=by)
        return dataclasses.replace(bare, labels=known, maker=by, grant=grant)
    except (YamlError, ValueError, TypeError, KeyError, AttributeError) as error:
        return dataclasses.replace(bare, problem=f"it cannot be read ({error})")


def _read_labels(text: str) -> Labels:
    return tuple(sorted((str(key), str(value)) for key, value in orjson.loads(text).items()))


def _told_maker(maker: Maker | None) -> str | None:
    if maker is None:
        return None
    return json.dumps({"user": maker.user, "groups": list(maker.groups), "source": maker.source})


def _read_maker(text: str | None) -> Maker | None:
    """A maker that cannot be read must not make an administrator's grant of it."""
    if text is None:
        return None
    told = orjson.loads(text)
    groups: Iterable[str] = told["groups"]
    return Maker(str(told["user"]), tuple(map(str, groups)), str(told["source"]))

"""Takes over what the hub has, row by row, within somebody else's transaction."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from gateway.mirror import schema
from gateway.mirror.document import BadDocument, Document, Shape, name_of, read, rows_of
from gateway.mirror.kinds import Key, Kind, Rows
from gateway.mirror.merge import Merged, merge
from gateway.mirror.records import Record

ABSENT: Final = "absent"


@dataclass(slots=True)
class Applied:
    """What a transaction did. `lost` names the documents in which others' changes have overruled some of ours, with the
    number of our latest one there; `refused` says of records why they cannot be taken.
    """

    documents: int = 0
    lost: dict[str, int] = field(default_factory=dict)
    doubtful: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    accepted: set[str] = field(default_factory=set)
    """Records that were refused before, perhaps."""
    later: set[str] = field(default_factory=set)
    """Stores of which a later Kulvert has written rows."""


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a document at the hub: `content` None with a `version` is what was deleted at that version,
    `ABSENT` if the hub said that there is none: news of it may be late.
    """

    kind: str = ""
    key: Key = ()
    version: str = ""
    content: bytes | None = field(default=None, repr=False)
    attempt: bytes | None = field(default=None, repr=False)

    @property
    def absent(self) -> bool:
        """Only the hub itself can say whether it is there again."""
        return self.version == ABSENT


class Applying:
    """On a connection; `versions` are the stores' own."""

    def __init__(
        self,
        database: sqlite3.Connection,
        kinds: Mapping[str, Kind],
        versions: Mapping[str, int],
        installation: str,
    ) -> None:
        self._database = database
        self._kinds = kinds
        self._versions = versions
        self._installation = installation
        self._shapes = {
            kind.name: {table.name: schema.shape_of(database, table) for table in kind.tables}
            for kind in kinds.values()
        }
        self._put = {name: schema.upsert(shape) for shapes in self._shapes.values() for name, shape in shapes.items()}

    # --- what there is

    def shapes_of(self, kind: Kind) -> Mapping[str, Shape]:
        """Its tables."""
        return self._shapes[kind.name]

    def versions_of(self, kind: Kind) -> dict[str, int]:
        """Of the stores that its tables belong to."""
        return {table.store: self._versions.get(table.store, 0) for table in kind.tables}

    def keys(self, kind: Kind) -> Iterator[Key]:
        """Of all its documents of which a row is here."""
        columns = [", ".join(table.group) for table in kind.tables]
        both = zip(columns, kind.tables, strict=True)
        parts = [f"SELECT {group} FROM {table.name}" for group, table in both]  # noqa: S608 -- our own names
        yield from self._database.execute(" UNION ".join(parts)).fetchall()

    def rows(self, kind: Kind, key: Key) -> Rows | None:
        """A document's, as they are in the file. None where there are none, or only such as belong to nothing."""
        made = {}
        for name, shape in self._shapes[kind.name].items():
            found = self._database.execute(schema.select(shape), key).fetchall()
            if found:
                rows = [dict(zip(shape.columns, row, strict=True)) for row in found]
                made[name] = {tuple(row[column] for column in shape.primary): row for row in rows}
        if kind.parent and kind.tables[0].name not in made:
            return None
        return made or None

    def known(self, name: str) -> Known:
        """What was last seen of a document."""
        query = "SELECT kind, key, version, content, attempt FROM mirror_object WHERE name = ?"
        row = self._database.execute(query, (name,)).fetchone()
        return Known(row[0], tuple(json.loads(row[1])), *row[2:]) if row is not None else Known()

    def know(self, name: str, kind: str, key: Key, version: str, content: bytes | None) -> None:
        """This is there now. Deleted things are remembered with the version that they had, since news may be late."""
        row = (name, kind, *key, version, content)
        query = f"INSERT OR REPLACE INTO mirror_object VALUES (?, ?, {schema.marks(key)}, ?, ?, NULL)"  # noqa: S608
        self._database.execute(query, row)

    def attempt(self, name: str, kind: str, key: Key, content: bytes | None) -> None:
        """This is being written; None: nothing is."""
        change = "UPDATE mirror_object SET attempt = ? WHERE name = ?"
        if self._database.execute(change, (content, name)).rowcount == 0 and content is not None:
            query = f"INSERT INTO mirror_object VALUES (?, ?, {schema.marks(key)}, '', NULL, ?)"  # noqa: S608
            self._database.execute(query, (name, kind, *key, content))

    def remember(self, name: str, kind: str, key: Key) -> None:
        """There is such a document, of which nothing is known at the hub."""
        query = f"INSERT OR IGNORE INTO mirror_object VALUES (?, ?, {schema.marks(key)}, '', NULL, NULL)"  # noqa: S608
        self._database.execute(query, (name, kind, *key))

    # --- what the hub has

    def has(self, record: Record) -> bool:
        """Whether it is known already."""
        query = "SELECT 1 FROM mirror_object WHERE name = ? AND version = ? AND content IS NOT NULL"
        return self._database.execute(query, (record.name, record.version)).fetchone() is not None

    def seen(self, record: Record, applied: Applied) -> None:
        """An informer's news, which may be late."""
        known = self.known(record.name)
        if known.absent or (known.version and int(record.version) <= int(known.version)):
            applied.doubtful.append(record.name)
            return
        self.told(record.name, record, applied)

    def told(self, name: str, record: Record | None, applied: Applied, *, heard: bool = False) -> None:
        """The hub's answer to a question of this moment. `heard`: news of its deletion has come, too."""
        if record is None:
            known = self.known(name)
            if known.kind:
                self.take(name, known.kind, known.key, None, applied)
                if heard:
                    self._database.execute("DELETE FROM mirror_object WHERE name = ? AND version = ?", (name, ABSENT))
            return
        try:
            document = read(record.content)
        except BadDocument as bad:
            applied.refused[name] = str(bad)
            return
        self.take(name, document.kind, document.key, record, applied)

    def take(
        self,
        name: str,
        kind_name: str,
        key: Key,
        record: Record | None,
        applied: Applied,
        *,
        filling: bool = False,
    ) -> None:
        """This is what the hub has. What cannot be taken leaves all as it was."""
        kind = self._kinds.get(kind_name)
        if kind is None:
            applied.refused[name] = "it is of an unknown kind: a later Kulvert has written it, or it is foreign"
            return
        if name_of(self._installation, kind_name, key) != name:
            applied.refused[name] = "its name is not that of what is in it"
            return
        self._database.execute("SAVEPOINT document")
        try:
            self._take(name, kind, key, record, applied, filling)
        except (BadDocument, sqlite3.IntegrityError, sqlite3.DataError, OverflowError) as bad:
            self._database.execute("ROLLBACK TO document")
            applied.refused[name] = str(bad) if isinstance(bad, BadDocument) else "its rows do not fit to those here"
        else:
            applied.accepted.add(name)
        finally:
            self._database.execute("RELEASE document")

    def _take(self, name: str, kind: Kind, key: Key, record: Record | None, applied: Applied, filling: bool) -> None:
        known, ours = self.known(name), self.rows(kind, key)
        theirs = self._rows_of(kind, key, record.content, applied) if record is not None else None
        waiting = self._waiting(kind, key)
        merged = self._merged(kind, known, ours, theirs, record, filling) if waiting is not None else Merged(theirs)
        if record is not None:
            self.know(name, kind.name, key, record.version, record.content)
        else:
            self.know(name, kind.name, key, ABSENT, None)
        changed = self._write(kind, key, ours, merged.rows)
        if waiting is not None and merged.rows == theirs:
            query = f"DELETE FROM mirror_outbox WHERE kind = ? AND key = {schema.marks(key)}"  # noqa: S608
            self._database.execute(query, (kind.name, *key))
        if waiting is not None and merged.lost:
            applied.lost[name] = waiting
        applied.documents += changed

    def _merged(
        self, kind: Kind, known: Known, ours: Rows | None, theirs: Rows | None, record: Record | None, filling: bool
    ) -> Merged:
        """An attempt of which nobody knows counts where the hub shows it, and is given up where it does not: what it
        made may have been deleted meanwhile. (Not where that could not be: nobody deletes while the hub is filled.)
        """
        content = known.content
        if known.attempt is not None and (record is None or record.version != known.version):
            if record is None and (kind.keeps or filling):
                return Merged(ours)
            content = known.attempt
        base = self._rows_of(kind, (), content, None) if content is not None else None
        merged = merge(kind, base, ours, theirs)
        given_up = content is known.attempt is not None and merged.rows != ours and ours is not None
        return Merged(merged.rows, merged.lost or given_up)

    def _rows_of(self, kind: Kind, key: Key, content: bytes, applied: Applied | None) -> Rows | None:
        document = read(content)
        if applied is not None:
            if (document.kind, document.key) != (kind.name, key):
                raise BadDocument("it is another document's")
            applied.later |= {name for name, own in self.versions_of(kind).items() if _is_later(document, name, own)}
        rows = rows_of(document, self._shapes[kind.name])
        if rows is None or (kind.parent and kind.tables[0].name not in rows):
            raise BadDocument("what its rows belong to is missing")
        return rows

    def _waiting(self, kind: Kind, key: Key) -> int | None:
        """The number of our latest change to it, where that is not at the hub."""
        query = f"SELECT last FROM mirror_outbox WHERE kind = ? AND key = {schema.marks(key)}"  # noqa: S608
        row = self._database.execute(query, (kind.name, *key)).fetchone()
        return int(row[0]) if row is not None else None

    def _write(self, kind: Kind, key: Key, before: Rows | None, after: Rows | None) -> bool:
        """Whether there was anything to change. Orphans, which belong to nothing, go with what is deleted."""
        if after is None:
            shapes = self._shapes[kind.name].values()
            changed = sum(self._database.execute(schema.delete_all(shape), key).rowcount for shape in shapes) > 0
        else:
            changed = before != after
            self._write_rows(kind, before or {}, after)
        if changed:
            schema.journal(self._database, kind.name, key)
        return changed

    def _write_rows(self, kind: Kind, before: Rows, after: Rows) -> None:
        for table in kind.tables:
            there, wanted = before.get(table.name, {}), after.get(table.name, {})
            shape = self._shapes[kind.name][table.name]
            gone = [row_key for row_key in there if row_key not in wanted]
            self._database.executemany(schema.delete(shape), gone)
            for row_key, row in wanted.items():
                if there.get(row_key) != row and self._database.execute(self._put[table.name], row).rowcount != 1:
                    raise BadDocument("a row is another document's")
            if table.counter:
                self._count(table.counter, max((row["version"] for row in wanted.values()), default=0))

    def _count(self, table: str, least: int) -> None:
        change = "UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = ?"
        if self._database.execute(change, (least, table)).rowcount == 0:
            self._database.execute("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", (table, least))


def _is_later(document: Document, store: str, own: int) -> bool:
    return document.versions.get(store, 0) > own

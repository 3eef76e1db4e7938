"""The server's file as the mirror sees it, over a connection of its own: which documents are to be written to the hub,
what the hub is known to have, and the rows.

All methods block, and are called from one thread. Each is one transaction, so that whatever happens between two of them
leaves a file that goes on: the outbox, and beside each document what the hub had last (`content`) and what is being
written there (`attempt`), of which nobody knows whether it arrived until the hub was asked.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Final

from auth.statefile import create_private
from gateway.database import RegistryError, refusing
from gateway.mirror import schema
from gateway.mirror.applying import Applied, Applying
from gateway.mirror.document import BadDocument, Document, Shape, carried, dumped, name_of, read
from gateway.mirror.kinds import KINDS, Key, Kind
from gateway.mirror.records import Record

PATIENCE: Final = 5.0
"""Seconds for another's transaction."""
JOURNAL: Final = 20_000
"""Changes of which `gateway.mirror.journal` can say what they were."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A document to be written: `content` None is to be deleted. `version` is what it replaces, empty: nothing.
    `asks`: an earlier attempt may have arrived, so look first.
    """

    name: str
    kind: str
    key: Key
    version: str
    last: int
    content: bytes | None = field(repr=False)
    asks: bool = False
    problem: str = ""
    """Why it cannot be written at all."""


@dataclass(frozen=True, slots=True, eq=False)
class Pending:
    """Changes up to `number`, and the documents (kind and key's text) in which they are, or those that are not at the
    hub yet; `names` are all that were changed, None where the journal does not say it.
    """

    number: int
    rows: tuple[tuple[str, str], ...]
    names: frozenset[str] | None


class Result(Enum):
    """What became of a draft."""

    WRITTEN = "written"
    OTHER = "somebody else has changed it"
    ASKED = "the hub was asked what it has"
    UNSENT = "nothing was done"
    UNSURE = "nobody knows"


@dataclass(frozen=True, slots=True)
class Outcome:
    """`version` is the new one of what was WRITTEN; `found` what the hub has instead, in OTHER and ASKED."""

    draft: Draft
    result: Result
    version: str = ""
    found: Record | None = None


class MirrorFile:
    """`installation` is the name that the Secrets' names begin with."""

    def __init__(self, path: Path, installation: str, kinds: Sequence[Kind] = KINDS) -> None:
        """:raises RegistryError: the file cannot be used, or a store's tables were not made yet."""
        self._installation = installation
        self._kinds = {kind.name: kind for kind in kinds}
        with refusing():
            self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            try:
                self._connection.execute(f"PRAGMA busy_timeout = {int(PATIENCE * 1000)}")
                self._connection.execute("PRAGMA synchronous = FULL")
                versions = dict(self._connection.execute("SELECT store, version FROM store_version").fetchall())
                self._applying = Applying(self._connection, self._kinds, versions, installation)
            except BaseException:
                self._connection.close()
                raise

    def close(self) -> None:
        """Closes its connection."""
        self._connection.close()

    def shapes(self, kind: Kind) -> Mapping[str, Shape]:
        """The tables of a kind, as they are here."""
        return self._applying.shapes_of(kind)

    # --- whose mirror it is

    def install(self) -> None:
        """From now on each change is noted."""
        with self._writing() as database:
            schema.install(database, self._kinds.values())

    def sharing(self) -> tuple[str, bool]:
        """The id of the installation whose mirror this file is (empty: none), and whether it is to fill the hub."""
        with refusing():
            row = self._connection.execute("SELECT sharing, filling FROM mirror_state").fetchone()
        return row[0], bool(row[1])

    def offer(self, sharing: str) -> None:
        """All that is here is to go to the hub, where there is nothing yet."""
        with self._writing() as database:
            self._forget(database, sharing, filling=True)
            for kind in self._kinds.values():
                for key in self._applying.keys(kind):
                    schema.note(database, kind.name, key)

    def adopt(self, sharing: str, aside: Path) -> bool:
        """What the hub has counts, and nothing else. What is here is kept `aside` (True), where there is anything."""
        known = any(True for kind in self._kinds.values() for _ in self._applying.keys(kind))
        if known:
            with closing(sqlite3.connect(":memory:")) as copy, refusing():
                self._connection.backup(copy)
                create_private(aside, copy.serialize())
        with self._writing() as database:
            self._forget(database, sharing, filling=False)
        return known

    def filled(self) -> None:
        """All that was offered is there."""
        with self._writing() as database:
            database.execute("UPDATE mirror_state SET filling = 0")

    def _forget(self, database: sqlite3.Connection, sharing: str, filling: bool) -> None:
        database.execute("DELETE FROM mirror_outbox")
        database.execute("DELETE FROM mirror_object")
        database.execute("UPDATE mirror_state SET sharing = ?, filling = ?", (sharing, filling))

    # --- to the hub

    def waiting(self) -> tuple[int, int | None]:
        """How many documents are to be brought there, and the number of the oldest change in them."""
        with refusing():
            row = self._connection.execute("SELECT count(*), min(first) FROM mirror_outbox").fetchone()
        return row[0], row[1]

    def pending(self, since: int, until: int = 0) -> Pending:
        """What was changed after the change of number `since` (0: ever), up to `until` (0: to this moment)."""
        with refusing():
            number = until or self._connection.execute("SELECT number FROM mirror_state").fetchone()[0]
            oldest = self._connection.execute("SELECT min(number) FROM mirror_journal").fetchone()[0]
            if not since or (number > since and (oldest is None or oldest > since + 1)):
                query = "SELECT kind, key FROM mirror_outbox WHERE last > ? AND first <= ? ORDER BY first DESC"
                return Pending(number, tuple(self._connection.execute(query, (since, number)).fetchall()), None)
            query = "SELECT DISTINCT kind, key FROM mirror_journal WHERE number > ? AND number <= ?"
            rows = self._connection.execute(query, (since, number)).fetchall()
        names = (name_of(self._installation, kind, tuple(json.loads(text))) for kind, text in rows)
        return Pending(number, tuple(rows), frozenset(names))

    def arrived(self, asked: Iterable[Pending]) -> list[Pending]:
        """Those of which all is at the hub, or was overruled there."""
        with refusing():
            return [one for one in asked if not self._waits(one)]

    def _waits(self, pending: Pending) -> bool:
        query = "SELECT 1 FROM mirror_outbox WHERE kind = ? AND key = ? AND first <= ?"
        found = (self._connection.execute(query, (*row, pending.number)) for row in pending.rows)
        return any(rows.fetchone() is not None for rows in found)

    def pick(self, most: int, busy: Collection[str]) -> list[Draft]:
        """Up to `most` documents to be written, the longest waiting first, without the `busy` ones. Until their
        outcomes are recorded they count as attempted.
        """
        with self._writing() as database:
            found: list[Draft] = []
            query = "SELECT kind, key, last FROM mirror_outbox ORDER BY first LIMIT ?"
            for kind, text, last in database.execute(query, (most + len(busy),)).fetchall():
                key = tuple(json.loads(text))
                name = name_of(self._installation, kind, key)
                if name in busy or kind not in self._kinds or len(found) >= most:
                    continue
                if (draft := self._draft(database, name, kind, key, last)) is not None:
                    found.append(draft)
            return found

    def _draft(self, database: sqlite3.Connection, name: str, kind: str, key: Key, last: int) -> Draft | None:
        """None where there is nothing to write."""
        known = self._applying.known(name)
        if known.attempt is not None:
            return Draft(name, kind, key, known.version, last, None, asks=True)
        rows = self._applying.rows(self._kinds[kind], key)
        if rows is None:
            if known.content is None:
                self._clear(database, kind, key, last)
                return None
            return Draft(name, kind, key, known.version, last, None)
        version = known.version if known.content is not None else ""
        try:
            before = read(known.content) if known.content is not None else None
            tables = {table: tuple(found.values()) for table, found in rows.items()}
            made = Document(kind, key, self._applying.versions_of(self._kinds[kind]), tables)
            content = dumped(carried(made, before, self._applying.shapes_of(self._kinds[kind])))
        except BadDocument as bad:
            return Draft(name, kind, key, version, last, None, problem=str(bad))
        if content == known.content:
            self._clear(database, kind, key, last)
            return None
        self._applying.attempt(name, kind, key, content)
        return Draft(name, kind, key, version, last, content)

    def record(self, outcomes: Iterable[Outcome]) -> Applied:
        """What became of drafts; what the hub has instead is taken over."""
        applied = Applied()
        with self._quiet() as database:
            filling = bool(database.execute("SELECT filling FROM mirror_state").fetchone()[0])
            for outcome in outcomes:
                self._record(database, outcome, filling, applied)
        return applied

    def _record(self, database: sqlite3.Connection, outcome: Outcome, filling: bool, applied: Applied) -> None:
        draft, result = outcome.draft, outcome.result
        if result is Result.WRITTEN:
            self._applying.know(draft.name, draft.kind, draft.key, outcome.version, draft.content)
            self._clear(database, draft.kind, draft.key, draft.last)
        elif result in (Result.OTHER, Result.UNSENT) and not draft.asks:
            self._applying.attempt(draft.name, draft.kind, draft.key, None)
        if result in (Result.OTHER, Result.ASKED):
            self._applying.take(draft.name, draft.kind, draft.key, outcome.found, applied, filling=filling)

    def _clear(self, database: sqlite3.Connection, kind: str, key: Key, last: int) -> None:
        """What was written at `last` is at the hub; later changes stay."""
        where = f"kind = ? AND key = {schema.marks(key)}"
        database.execute(f"DELETE FROM mirror_outbox WHERE last <= ? AND {where}", (last, kind, *key))  # noqa: S608 -- marks
        database.execute(f"UPDATE mirror_outbox SET first = ? WHERE {where}", (last + 1, kind, *key))  # noqa: S608

    # --- from the hub

    def take(self, records: Iterable[Record]) -> Applied:
        """What an informer has seen. What is not plainly newer than what is known is `doubtful`: ask the hub."""
        applied = Applied()
        with refusing():
            news = [record for record in records if not self._applying.has(record)]
        if not news:  # our own writes, mostly: no transaction for them
            return applied
        with self._quiet():
            for record in news:
                self._applying.seen(record, applied)
        return applied

    def told(self, found: Mapping[str, Record | None], *, heard: bool) -> Applied:
        """What the hub has said of documents that it was asked for. `heard`: since news came that they are gone."""
        applied = Applied()
        with self._quiet():
            for name, record in found.items():
                self._applying.told(name, record, applied, heard=heard)
        return applied

    def unknown(self, there: Collection[str]) -> list[str]:
        """Names of documents that are here, and not among `there`; those of the outbox aside. All are known then."""
        with self._writing() as database:
            for kind in self._kinds.values():
                for key in self._applying.keys(kind):
                    self._applying.remember(name_of(self._installation, kind.name, key), kind.name, key)
            found = {name for (name,) in database.execute("SELECT name FROM mirror_object").fetchall()}
            for name, text in database.execute("SELECT kind, key FROM mirror_outbox").fetchall():
                found.discard(name_of(self._installation, name, tuple(json.loads(text))))
        return sorted(found - set(there))

    # --- transactions

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with refusing(), self._connection as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield connection

    @contextmanager
    def _quiet(self) -> Iterator[sqlite3.Connection]:
        """What is written within is not noted for the hub: it came from there."""
        with self._writing() as connection:
            connection.execute("UPDATE mirror_state SET quiet = 1")
            yield connection
            connection.execute(
                "DELETE FROM mirror_journal WHERE number <= (SELECT number FROM mirror_state) - ?", (JOURNAL,)
            )
            connection.execute("UPDATE mirror_state SET quiet = 0")


__all__ = ["Draft", "MirrorFile", "Outcome", "Pending", "RegistryError", "Result"]

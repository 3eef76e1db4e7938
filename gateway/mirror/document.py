"""A document: rows that belong together, as they are in a Secret of the hub. Nothing of it is ever in a text.

What a later Kulvert put there and this one does not know (columns, tables, rows of them) is carried along: a replica of
the release before must not destroy it while an upgrade rolls.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from gateway.mirror.kinds import Key, Row, Rows, Table

FORMAT: Final = 1
MOST_BYTES: Final = 700_000
"""Of one document: a Secret has at most a MiB."""
_INTEGER: Final = 2**63


class BadDocument(ValueError):
    """A Secret holds no document that can be taken; the text says why, and holds nothing of it."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A table as it is in the file. `defaults` are of the columns that need not be given."""

    table: Table
    columns: tuple[str, ...]
    defaults: Mapping[str, Any]
    primary: tuple[str, ...]

    @property
    def group(self) -> tuple[str, ...]:
        """The columns that say to which document a row belongs."""
        return self.table.group

    def filled(self, row: Row) -> Row:
        """All columns of a row, and no others. :raises BadDocument: one is missing."""
        try:
            return {one: row[one] if one in row else self.defaults[one] for one in self.columns}
        except KeyError:
            raise BadDocument("a row lacks what this Kulvert needs: another one has written it") from None


@dataclass(frozen=True, slots=True)
class Document:
    """`tables` has all rows, those of unknown tables as well; `versions` says of each store how far the most modern
    writer's tables were (`gateway.database.Store.migrations`).
    """

    kind: str
    key: Key
    versions: Mapping[str, int]
    tables: Mapping[str, tuple[Row, ...]] = field(repr=False)


def name_of(installation: str, kind: str, key: Key) -> str:
    """The name of a document's Secret."""
    text = orjson.dumps([installation, kind, *key])
    return f"{installation}-{kind}-{hashlib.sha256(text).hexdigest()[:32]}"


def dumped(document: Document) -> bytes:
    """:raises BadDocument: it is too large."""
    rows = {
        name: [{column: _told(value) for column, value in row.items()} for row in rows]
        for name, rows in document.tables.items()
    }
    made = {
        "format": FORMAT,
        "kind": document.kind,
        "key": document.key,
        "versions": dict(document.versions),
        "rows": rows,
    }
    text = orjson.dumps(made, option=orjson.OPT_SORT_KEYS)
    if len(text) > MOST_BYTES:
        raise BadDocument(f"it has more than {MOST_BYTES} bytes")
    return text


def read(text: bytes) -> Document:
    """:raises BadDocument: it is none, or of a later form."""
    if len(text) > MOST_BYTES:
        raise BadDocument(f"it has more than {MOST_BYTES} bytes")
    try:
        found = orjson.loads(text)
        if found["format"] != FORMAT:
            raise BadDocument("a later Kulvert has written it: upgrade this replica")
        tables = {
            str(name): tuple({str(column): _value(value) for column, value in row.items()} for row in rows)
            for name, rows in found["rows"].items()
        }
        versions = {str(name): int(version) for name, version in found["versions"].items()}
        kind, key = found["kind"], tuple(_value(one) for one in found["key"])
    except BadDocument:
        raise
    except (ValueError, TypeError, KeyError, AttributeError):
        raise BadDocument("it is malformed") from None
    if not isinstance(kind, str) or not key:
        raise BadDocument("it is malformed")
    return Document(kind, key, versions, tables)


def carried(made: Document, before: Document | None, shapes: Mapping[str, Shape]) -> Document:
    """`made` with what only a later Kulvert knows of `before`."""
    if before is None:
        return made
    tables: dict[str, tuple[Row, ...]] = {name: rows for name, rows in before.tables.items() if name not in shapes}
    for name, rows in made.tables.items():
        there = keyed(before.tables.get(name, ()), shapes[name].primary)
        tables[name] = tuple({**there.get(key, {}), **row} for key, row in keyed(rows, shapes[name].primary).items())
    versions = {name: max(made.versions.get(name, 0), before.versions.get(name, 0)) for name in _both(made, before)}
    return Document(made.kind, made.key, versions, tables)


def keyed(rows: Iterable[Row], primary: tuple[str, ...]) -> dict[Key, Row]:
    """Rows by their primary key. :raises BadDocument: one has none, or two have the same."""
    found: dict[Key, Row] = {}
    for row in rows:
        try:
            key = tuple(row[column] for column in primary)
        except KeyError:
            raise BadDocument("a row has no key") from None
        if key in found:
            raise BadDocument("a row is there twice")
        found[key] = row
    return found


def rows_of(document: Document, shapes: Mapping[str, Shape]) -> Rows | None:
    """The known columns of known tables; None where there is no row. What an older Kulvert did not write is as if the
    row had been there when the column came.

    :raises BadDocument: see `keyed`, or a row lacks what it cannot be without, or belongs to another document.
    """
    made: dict[str, dict[Key, Row]] = {}
    for name, shape in shapes.items():
        found = keyed(document.tables.get(name, ()), shape.primary)
        if any(tuple(row.get(one) for one in shape.group) != document.key for row in found.values()):
            raise BadDocument("a row belongs to another document")
        if found:
            made[name] = {key: shape.filled(row) for key, row in found.items()}
    return made or None


def _both(one: Document, other: Document) -> set[str]:
    return {*one.versions, *other.versions}


def _told(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    return value


def _value(told: Any) -> Any:
    """One that SQLite can keep."""
    if isinstance(told, dict):
        if "base64" in told:
            return base64.b64decode(told["base64"], validate=True)
        return float(told["float"])
    if told is None or isinstance(told, str | float):
        return told
    if isinstance(told, int) and -_INTEGER <= told < _INTEGER:
        return int(told)
    raise BadDocument("it is malformed")

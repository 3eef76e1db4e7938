"""Rows that two replicas have changed: what this one wrote (`ours`), on what both knew (`base`), and what the hub has.

Pure. The rules, the first that fits:

1. Another thing of the same name: what the hub has counts, unless it is what both knew and ours is the other thing.
2. A deletion wins over a change, whoever made which: what was removed or revoked does not come back. (Where deleting is
   tidying up, the other way round.)
3. What one side alone has changed counts, row by row.
4. Of a row that both have changed each column that one side alone has changed; else the hub's. `lost` says that
   something of ours did not make it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from gateway.mirror.kinds import Key, Kind, Row, Rows, Table

NOTHING: Final[Mapping[Key, Row]] = {}


@dataclass(frozen=True, slots=True)
class Merged:
    """`rows` is what there shall be, at the hub and here; None: nothing. `lost`: some of ours was given up."""

    rows: Rows | None
    lost: bool = False


def merge(kind: Kind, base: Rows | None, ours: Rows | None, theirs: Rows | None) -> Merged:
    """None is a document that is not there. Equal sides give what the hub has."""
    if ours in (base, theirs):
        return Merged(theirs)
    if theirs == base:
        return Merged(ours)
    if kind.parent and (found := _another(kind, base, ours, theirs)) is not None:
        return found
    if kind.parent and (ours is None or theirs is None):
        return _one_deleted(kind, ours, theirs)
    if kind.whole:
        return Merged(theirs, lost=True)
    return _by_rows(kind, base or {}, ours or {}, theirs or {})


def _another(kind: Kind, base: Rows | None, ours: Rows | None, theirs: Rows | None) -> Merged | None:
    """Whether one of them is of another incarnation."""
    if not kind.incarnation:
        return None
    before, mine, hub = (_incarnation(kind, rows) for rows in (base, ours, theirs))
    if theirs is None:  # what both knew was deleted there
        return Merged(ours) if mine != before else None
    if hub != before:
        return Merged(theirs, lost=mine is not None and mine != before) if mine != hub else None
    return Merged(ours) if mine not in (None, before) else None


def _incarnation(kind: Kind, rows: Rows | None) -> Any:
    parents = (rows or {}).get(kind.tables[0].name, NOTHING)
    return next((row.get(kind.incarnation) for row in parents.values()), None)


def _one_deleted(kind: Kind, ours: Rows | None, theirs: Rows | None) -> Merged:
    if kind.keeps:
        return Merged(theirs if ours is None else ours)
    return Merged(None, lost=ours is not None)


def _by_rows(kind: Kind, base: Rows, ours: Rows, theirs: Rows) -> Merged:
    made: dict[str, Mapping[Key, Row]] = {}
    lost = False
    for table in kind.tables:
        b, o, t = (side.get(table.name, NOTHING) for side in (base, ours, theirs))
        rows: dict[Key, Row] = {}
        for key in (o.keys() | t.keys()) | b.keys():
            row, gone = _row(kind, table, b.get(key), o.get(key), t.get(key))
            lost |= gone
            if row is not None:
                rows[key] = row
        if rows:
            made[table.name] = rows
    guarded = kind.guard(made) if kind.guard is not None else made
    return Merged(guarded or None, lost or (guarded is not made and _touches(made, guarded, ours, theirs)))


def _touches(made: Rows, guarded: Rows, ours: Rows, theirs: Rows) -> bool:
    """Whether a guard has changed a row that only we have written."""
    return any(
        guarded[name].get(key) != row and ours.get(name, NOTHING).get(key) == row != theirs.get(name, NOTHING).get(key)
        for name, rows in made.items()
        for key, row in rows.items()
    )


def _row(kind: Kind, table: Table, base: Row | None, ours: Row | None, theirs: Row | None) -> tuple[Row | None, bool]:
    if ours in (base, theirs):
        return theirs, False
    if theirs == base:
        return ours, False
    if ours is None or theirs is None:
        if kind.keeps:
            return (theirs if ours is None else ours), False
        return None, ours is not None
    return _columns(table, base or {}, ours, theirs)


def _columns(table: Table, base: Row, ours: Row, theirs: Row) -> tuple[Row, bool]:
    if table.by_row:
        return theirs, True
    made, lost = dict(theirs), False
    for name, value in ours.items():
        there = theirs.get(name)
        if value == there or (name in base and value == base[name]):
            continue
        if name in base and there == base[name]:
            made[name] = value
        elif name in table.resolve:
            made[name] = table.resolve[name](value, there)
        else:
            lost = True
    return made, lost

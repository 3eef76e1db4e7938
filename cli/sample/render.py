"""Stored objects as bytes in the form that was asked for: one, a list, or a watch's event."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from cli.sample.accept import View
from cli.sample.document import Obj, dumps
from cli.sample.resources import Resource
from cli.sample.store import Stored

_META = "meta.k8s.io/v1"


@dataclass(frozen=True, slots=True)
class Renderer:
    """`include` is a table's includeObject: Metadata, Object or None."""

    resource: Resource
    view: View
    now: datetime
    include: str = "Metadata"

    def one(self, stored: Stored) -> bytes:
        if self.view is View.PLAIN:
            return stored.json
        if self.view is View.METADATA:
            return dumps(_metadata(stored.data))
        return self._table([stored], {"resourceVersion": str(stored.version)})

    def many(self, items: list[Stored], metadata: Obj) -> bytes:
        if self.view is View.TABLE:
            return self._table(items, metadata)
        partial = self.view is View.METADATA
        kind = "PartialObjectMetadataList" if partial else f"{self.resource.kind}List"
        api_version = _META if partial else self.resource.api_version
        head = dumps({"kind": kind, "apiVersion": api_version, "metadata": metadata})
        return b'%s,"items":[%s]}' % (head[:-1], b",".join(self.one(item) for item in items))

    def event(self, change: str, stored: Stored) -> bytes:
        return frame(change, self.one(stored))

    def bookmark(self, version: int, *, initial_end: bool = False) -> bytes:
        metadata: Obj = {"resourceVersion": str(version), "creationTimestamp": None}
        if initial_end:
            metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
        kind, api_version = self.resource.kind, self.resource.api_version
        if self.view is not View.PLAIN:
            kind, api_version = "PartialObjectMetadata", _META
        marker: Obj = {"kind": kind, "apiVersion": api_version, "metadata": metadata}
        if self.view is View.TABLE:
            marker = self._frame({"resourceVersion": str(version)}, [{"cells": [], "object": marker}])
        return frame("BOOKMARK", dumps(marker))

    def _table(self, items: list[Stored], metadata: Obj) -> bytes:
        return dumps(self._frame(metadata, [self._row(item) for item in items]))

    def _frame(self, metadata: Obj, rows: list[Obj]) -> Obj:
        return {
            "kind": "Table",
            "apiVersion": _META,
            "metadata": metadata,
            "columnDefinitions": [column.definition() for column in self.resource.columns],
            "rows": rows,
        }

    def _row(self, stored: Stored) -> Obj:
        row: Obj = {"cells": [column.cell(stored.data, self.now) for column in self.resource.columns]}
        if self.include != "None":
            row["object"] = stored.data if self.include == "Object" else _metadata(stored.data)
        return row


def frame(change: str, body: bytes) -> bytes:
    """One event of a watch: a JSON document on a line of its own."""
    return b'{"type":"%s","object":%s}\n' % (change.encode(), body)


def _metadata(data: Obj) -> Obj:
    return {"kind": "PartialObjectMetadata", "apiVersion": _META, "metadata": data["metadata"]}

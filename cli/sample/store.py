"""The objects, in memory, each with its JSON made once: a GET copies bytes and nothing else.

Versions start at the wall clock's seconds, so that they also grow from one start of the sample to the next,
and a client that kept an old one is told "too old" (410) instead of being taken for one from the future.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from cli.sample.document import Obj, dumps
from cli.sample.journal import Journal
from cli.sample.resources import RESOURCES, Resource
from cli.sample.status import already_exists, not_found

Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Stored:
    """One version of one object. `data` is never changed in place; `json` is its serialised form."""

    key: Key
    version: int
    data: Obj
    json: bytes

    @property
    def uid(self) -> str:
        return str(self.data["metadata"]["uid"])


@dataclass(frozen=True, slots=True)
class Change:
    type: str
    now: Stored
    before: Stored | None

    @property
    def version(self) -> int:
        return self.now.version


@dataclass(frozen=True, slots=True)
class Collection:
    resource: Resource
    journal: Journal[Change]
    items: dict[Key, Stored] = field(default_factory=dict)


class Store:
    def __init__(self, version: int, history: int) -> None:
        self.started = version
        self.version = version
        self._collections = {r.qualified: Collection(r, Journal(history)) for r in RESOURCES if r.stored}

    def collection(self, resource: Resource) -> Collection:
        return self._collections[resource.qualified]

    def get(self, resource: Resource, namespace: str, name: str) -> Stored:
        found = self.collection(resource).items.get((namespace, name))
        if found is None:
            raise not_found(resource.qualified, name)
        return found

    def has(self, resource: Resource, namespace: str, name: str) -> bool:
        return (namespace, name) in self.collection(resource).items

    def list(self, resource: Resource, namespace: str = "") -> list[Stored]:
        """In the order of keys, which is the order pages continue in."""
        items = self.collection(resource).items
        return [items[key] for key in sorted(items) if not namespace or key[0] == namespace]

    def create(self, resource: Resource, data: Obj) -> Stored:
        metadata = data["metadata"]
        if self.has(resource, metadata.get("namespace", ""), metadata["name"]):
            raise already_exists(resource.qualified, metadata["name"])
        return self._put(resource, "ADDED", data, None)

    def replace(self, resource: Resource, before: Stored, data: Obj) -> Stored:
        return self._put(resource, "MODIFIED", data, before)

    def delete(self, resource: Resource, before: Stored) -> Stored:
        collection = self.collection(resource)
        gone = self._stamp(before.data)
        del collection.items[before.key]
        collection.journal.append(Change("DELETED", gone, before))
        return gone

    def everything_in(self, namespace: str) -> Iterator[tuple[Resource, Stored]]:
        for collection in self._collections.values():
            for stored in [s for s in collection.items.values() if s.key[0] == namespace]:
                yield collection.resource, stored

    def close(self) -> None:
        """End every watch."""
        for collection in self._collections.values():
            collection.journal.close()

    def _put(self, resource: Resource, change: str, data: Obj, before: Stored | None) -> Stored:
        collection = self.collection(resource)
        stored = self._stamp(data)
        collection.items[stored.key] = stored
        collection.journal.append(Change(change, stored, before))
        return stored

    def _stamp(self, data: Obj) -> Stored:
        self.version += 1
        metadata = data["metadata"] | {"resourceVersion": str(self.version)}
        data = data | {"metadata": metadata}
        return Stored((metadata.get("namespace", ""), metadata["name"]), self.version, data, dumps(data))

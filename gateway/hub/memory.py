"""What an informer knows: a small typed value of each object, and the version it was made from. No I/O, no clock.

A resourceVersion is opaque here: it is the same or another one, never older or newer. An object whose value cannot be
made is left as it was known before, or unknown, until it changes again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Generic, TypeVar

from gateway.hub.source import Object

T = TypeVar("T")


class Malformed(Exception):
    """The hub's answer is not what its API promises. The text holds nothing of it."""


class TooMany(Exception):
    """There are more objects than memory is meant for."""


@dataclass(frozen=True, slots=True)
class Delta(Generic[T]):
    """A change of one value; None is none. `key` is NAME, or NAMESPACE/NAME. A change of an object that leaves its
    value equal is none.
    """

    key: str
    before: T | None
    after: T | None


class Memory(Generic[T]):
    """`view` makes the value of an object: None leaves it out. `most` objects are known, those left out included."""

    def __init__(self, view: Callable[[Object], T | None], most: int) -> None:
        self._view = view
        self._most = most
        self._items: dict[str, T] = {}
        self._versions: dict[str, str] = {}
        self._bad: set[str] = set()
        self.items: Mapping[str, T] = MappingProxyType(self._items)
        self.versions: Mapping[str, str] = MappingProxyType(self._versions)
        self.skipped = 0
        """How often a value could not be made."""
        self.lacks = False
        """An object came for which there was no room."""

    @property
    def bad(self) -> list[str]:
        """The keys of objects whose values could not be made."""
        return sorted(self._bad)

    @property
    def full(self) -> bool:
        """There is no room for another object."""
        return len(self._versions) >= self._most

    def stage(self, trusted: bool = True) -> Staging[T]:
        """Begin to take a whole list. Where versions are not `trusted`, all values are made again."""
        return Staging(self, trusted)

    def change(self, kind: str, item: Object) -> Delta[T] | None:
        """An event of a watch: ADDED, MODIFIED or DELETED; the hub's last word counts. Raises Malformed."""
        key, version = identified(item)
        if kind == "DELETED":
            return self._forget(key)
        if self._versions.get(key) == version:
            return None
        if key not in self._versions and self.full:
            self.lacks = True
            return None
        self._versions[key] = version
        return self._put(key, self._made(key, item, self._items.get(key), self._bad))

    def replace(self, values: Mapping[str, T], versions: Mapping[str, str], bad: set[str]) -> list[Delta[T]]:
        """From now on this is all there is (`Staging.done`)."""
        gone = [self._forget(key) for key in self._versions.keys() - versions.keys()]
        self._versions.update(versions)
        self._bad = bad
        self.lacks = False
        changed = [self._put(key, values.get(key)) for key in versions]
        return [delta for delta in (*gone, *changed) if delta is not None]

    def _forget(self, key: str) -> Delta[T] | None:
        self._versions.pop(key, None)
        self._bad.discard(key)
        return self._put(key, None)

    def _put(self, key: str, after: T | None) -> Delta[T] | None:
        before = self._items.get(key)
        if before is after or before == after:
            return None
        if after is None:
            del self._items[key]
        else:
            self._items[key] = after
        return Delta(key, before, after)

    def _made(self, key: str, item: Object, before: T | None, bad: set[str]) -> T | None:
        """The value, or the one before where none can be made: what a view raises may quote the object."""
        try:
            made = self._view(item)
        except Exception:
            self.skipped += 1
            bad.add(key)
            return before
        bad.discard(key)
        return made


class Staging(Generic[T]):
    """A list that is being read: memory stays as it is until it is whole."""

    def __init__(self, memory: Memory[T], trusted: bool) -> None:
        self._memory = memory
        self._trusted = trusted
        self._values: dict[str, T] = {}
        self._versions: dict[str, str] = {}
        self._bad: set[str] = set()

    def add(self, item: Object) -> None:
        """One object of the list. Raises Malformed, TooMany."""
        memory = self._memory
        key, version = identified(item)
        if key not in self._versions and len(self._versions) >= memory._most:
            raise TooMany(f"there are more than {memory._most}")
        self._versions[key] = version
        value = memory._items.get(key)
        if not self._trusted or memory._versions.get(key) != version:
            value = memory._made(key, item, value, self._bad)
        elif key in memory._bad:
            self._bad.add(key)
        if value is None:
            self._values.pop(key, None)
        else:
            self._values[key] = value

    def done(self) -> list[Delta[T]]:
        """The list was whole."""
        return self._memory.replace(self._values, self._versions, self._bad)


def identified(item: Object) -> tuple[str, str]:
    """(key, resourceVersion) of an object. Raises Malformed."""
    metadata = item.get("metadata") if isinstance(item, dict) else None
    if not isinstance(metadata, dict):
        raise Malformed("an object without metadata")
    name, space, version = metadata.get("name"), metadata.get("namespace") or "", metadata.get("resourceVersion")
    if not (isinstance(name, str) and name and isinstance(space, str) and isinstance(version, str) and version):
        raise Malformed("an object without name or resourceVersion")
    return f"{space}/{name}" if space else name, version

"""Lists, whole or in pages.

A continue token keeps the version of the first page, and the last page reports it: a watch from there replays
every change that happened between the pages, so an informer ends up right although no snapshot is kept.
"""

from __future__ import annotations

import base64
import binascii
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass

import orjson

from cli.sample.document import Obj, dumps, loads
from cli.sample.resources import Resource
from cli.sample.selectors import Selection
from cli.sample.status import bad_request, expired, future_version
from cli.sample.store import Key, Store, Stored


@dataclass(frozen=True, slots=True)
class Page:
    items: list[Stored]
    metadata: Obj


@dataclass(frozen=True, slots=True)
class Position:
    """Where the next page begins: after this key, at the first page's version."""

    version: int
    after: Key

    def token(self) -> str:
        return base64.urlsafe_b64encode(dumps([self.version, *self.after])).decode()


def read_position(token: str) -> Position:
    try:
        version, namespace, name = loads(base64.urlsafe_b64decode(token))
        return Position(int(version), (str(namespace), str(name)))
    except (binascii.Error, orjson.JSONDecodeError, ValueError, TypeError) as error:
        raise bad_request("continue key is not valid") from error


def page(store: Store, resource: Resource, chosen: Selection, limit: int, token: str) -> Page:
    position = read_position(token) if token else Position(store.version, ("", ""))
    check_alive(store, resource, position.version)
    found = [item for item in store.list(resource, chosen.namespace) if chosen.matches(item)]
    if token:
        found = found[bisect_right(found, position.after, key=lambda item: item.key) :]
    metadata: Obj = {"resourceVersion": str(position.version)}
    if not limit or len(found) <= limit:
        return Page(found, metadata)
    metadata["continue"] = Position(position.version, found[limit - 1].key).token()
    if chosen.selects_all:
        metadata["remainingItemCount"] = len(found) - limit
    return Page(found[:limit], metadata)


def check_alive(store: Store, resource: Resource, version: int) -> None:
    """Refuse a version whose following changes are no longer all known."""
    dropped = store.collection(resource).journal.dropped
    oldest = max(store.started, dropped.version if dropped else 0)
    if version < oldest:
        raise expired(version, oldest)


def check_version(store: Store, query: Mapping[str, str]) -> None:
    """A read may ask for data no older than a version; one from the future cannot be served."""
    text = query.get("resourceVersion", "")
    if not text:
        return
    if not text.isascii() or not text.isdigit():
        raise bad_request(f'resourceVersion: Invalid value: "{text}"')
    if int(text) > store.version:
        raise future_version(int(text), store.version)

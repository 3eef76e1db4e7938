"""Watches: the changes of a collection from a version on, one JSON document a line.

A watcher is a position in the collection's journal. One that is too slow for the journal's length is told so
with a 410 in the stream, and lists again, as with kube-apiserver.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

from cli.sample.document import dumps
from cli.sample.journal import Overrun
from cli.sample.lists import check_alive, check_version
from cli.sample.render import Renderer, frame
from cli.sample.selectors import Selection
from cli.sample.status import ApiError, bad_request, expired
from cli.sample.store import Change, Collection, Store, Stored

_DEFAULT_TIMEOUT = 1800


@dataclass(frozen=True, slots=True)
class Terms:
    """What the client asked of its watch."""

    version: int
    initial: bool
    marked: bool
    bookmarks: bool
    timeout: float


def terms(query: Mapping[str, str]) -> Terms:
    text, timeout = query.get("resourceVersion", ""), query.get("timeoutSeconds", "")
    marked = query.get("sendInitialEvents") == "true"
    if marked and query.get("resourceVersionMatch") != "NotOlderThan":
        raise bad_request("sendInitialEvents is only allowed with resourceVersionMatch=NotOlderThan")
    bookmarks = query.get("allowWatchBookmarks") in ("1", "true")
    seconds = int(timeout) if timeout.isascii() and timeout.isdigit() else 0
    initial = marked or text in ("", "0")
    return Terms(0 if initial else int(text), initial, marked, bookmarks, seconds or _DEFAULT_TIMEOUT)


class Watch:
    def __init__(self, store: Store, collection: Collection, chosen: Selection, renderer: Renderer) -> None:
        self._store = store
        self._collection = collection
        self._journal = collection.journal
        self._chosen = chosen
        self._renderer = renderer

    def start(self, asked: Terms) -> tuple[bytes, int]:
        """What is sent at once, and the position that the stream goes on from."""
        if not asked.initial:
            return b"", self._position(asked.version)
        listed = self._store.list(self._collection.resource, self._chosen.namespace)
        events = [self._renderer.event("ADDED", item) for item in listed if self._chosen.matches(item)]
        if asked.marked and asked.bookmarks:
            events.append(self._renderer.bookmark(self._store.version, initial_end=True))
        return b"".join(events), self._journal.end

    async def run(self, asked: Terms, position: int, bookmark_every: float) -> AsyncIterator[bytes]:
        """Events as they happen, until the timeout or the server's end."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + asked.timeout
        while loop.time() < deadline and not self._journal.closed:
            try:
                changes = self._journal.since(position)
            except Overrun:
                yield self._too_slow()
                return
            position += len(changes)
            if data := b"".join(self._event(change) for change in changes):
                yield data
            await self._pause(position, min(deadline, loop.time() + bookmark_every))
            if asked.bookmarks and self._journal.end == position:
                yield self._renderer.bookmark(self._store.version)

    async def _pause(self, position: int, until: float) -> None:
        try:
            async with asyncio.timeout_at(until):
                await self._journal.beyond(position)
        except TimeoutError:
            return

    def _position(self, version: int) -> int:
        check_version(self._store, {"resourceVersion": str(version)})
        check_alive(self._store, self._collection.resource, version)
        known = self._journal.since(self._journal.first)
        return self._journal.end - sum(change.version > version for change in known)

    def _event(self, change: Change) -> bytes:
        """An object that enters or leaves the selection is added or deleted, whatever happened to it."""
        seen = change.before is not None and self._chosen.matches(change.before)
        there = change.type != "DELETED" and self._chosen.matches(change.now)
        if there:
            return self._renderer.event("MODIFIED" if seen else "ADDED", change.now)
        return self._renderer.event("DELETED", self._last(change)) if seen else b""

    def _last(self, change: Change) -> Stored:
        """The last state that was selected, with the version of the change that ended it."""
        if change.type == "DELETED" or change.before is None:
            return change.now
        metadata = change.before.data["metadata"] | {"resourceVersion": str(change.version)}
        data = change.before.data | {"metadata": metadata}
        return Stored(change.before.key, change.version, data, dumps(data))

    def _too_slow(self) -> bytes:
        dropped = self._journal.dropped
        error: ApiError = expired(0, dropped.version if dropped else 0)
        return frame("ERROR", dumps(error.status()))

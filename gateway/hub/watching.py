"""A watch of a collection: lines of JSON, one event each.

Source: kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final

import orjson

from gateway.hub.asking import Asking, refusal_of
from gateway.hub.memory import Malformed
from gateway.hub.timing import InformerTiming

MAX_LINE: Final = 4 * 1024 * 1024
"""Bytes; more than an object in etcd can be."""


class Cut(Exception):
    """The watch ended in the middle of an event."""


class Lines:
    """Bytes in, whole lines out, of any length that an object can have."""

    def __init__(self, most: int = MAX_LINE) -> None:
        self._most = most
        self._begun: list[bytes] = []
        self._length = 0

    @property
    def begun(self) -> bool:
        """A line was begun, and did not end."""
        return self._length > 0

    def feed(self, piece: bytes) -> list[bytes]:
        """The lines that are whole with this piece, without empty ones. Raises Malformed: too long."""
        first, *others = piece.split(b"\n")
        self._length += len(first)
        if self._length > self._most:
            raise Malformed("an event that is too long")
        self._begun.append(first)
        if not others:
            return []
        lines = [b"".join(self._begun), *others[:-1]]
        self._begun, self._length = [others[-1]], len(others[-1])
        return [line for line in lines if line]


async def watch(asking: Asking, version: str, timing: InformerTiming, take: Callable[[Sequence[bytes]], None]) -> bool:
    """All events after `version`, the lines of one read at once. Returns when the hub has ended it in order, and
    whether it has said anything.

    Raises Cut, Malformed, what `take` raises and `Asking.get` raises; TimeoutError where the hub has fallen silent.
    """
    query = {
        "watch": "1",
        "allowWatchBookmarks": "true",
        "resourceVersion": version,
        "timeoutSeconds": str(max(1, round(timing.watch))),
    }
    lines, said = Lines(), False
    async with asyncio.timeout(timing.watch + timing.slack), asking.get(query, timing.answer) as response:
        async for piece in response.content.iter_any():
            if whole := lines.feed(piece):
                take(whole)
                said = True
    if lines.begun:
        raise Cut("it was cut in the middle of an event")
    return said


def event_of(line: bytes) -> tuple[str, Any]:
    """(type, object). Raises Malformed, Gone, Refused: what an event of type ERROR says."""
    try:
        event = orjson.loads(line)
    except orjson.JSONDecodeError:
        raise Malformed("an event that is no JSON") from None
    kind = event.get("type") if isinstance(event, dict) else None
    if not isinstance(kind, str):
        raise Malformed("an event without type")
    if kind == "ERROR":
        raise refusal_of(event.get("object"))
    return kind, event.get("object")


def version_of(item: Any) -> str:
    """Where a bookmark is. Raises Malformed."""
    metadata = item.get("metadata") if isinstance(item, dict) else None
    version = metadata.get("resourceVersion") if isinstance(metadata, dict) else None
    if not isinstance(version, str) or not version:
        raise Malformed("a bookmark without resourceVersion")
    return version

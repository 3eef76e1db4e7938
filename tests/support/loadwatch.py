"""A user who lists and watches as client-go's reflector does, and keeps every event that he was told.

It goes on from the last resourceVersion (of an event or a bookmark) whenever a watch ends, whether in order or not; a
start that fails is tried again after 0.2 s from the same one. A 410 is a failure: a reflector would list again, and
what happened between would be lost to it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass

from tests.support.loadclient import Client, Failed, Line


@dataclass(frozen=True, slots=True)
class Event:
    """What happened to an object."""

    kind: str
    name: str
    version: str


class Watching:
    """`ended`: in order. `cut`: in the middle. `refused`: a start that failed, with why."""

    def __init__(self, client: Client, path: str, query: str = "") -> None:
        self.client = client
        self._path = path
        self._query = f"&{query}" if query else ""
        self.start = ""
        self.version = ""
        self.events: list[Event] = []
        self.ended = 0
        self.cut: list[str] = []
        self.refused: list[str] = []
        self._stopped = False
        self._task: asyncio.Task[None] | None = None

    async def list(self) -> None:
        """Where it begins."""
        answer = await self.client.ask("GET", f"{self._path}?limit=500{self._query}")
        if answer.status != 200:
            raise Failed(f"{answer.status}: {answer.body[:300]!r}")
        self.start = self.version = json.loads(answer.body)["metadata"]["resourceVersion"]

    async def run(self) -> None:
        """Until `stop`, from `version` on."""
        try:
            while not self._stopped:
                self._task = asyncio.ensure_future(self._watch())
                await asyncio.wait((self._task,))
                if not self._task.cancelled():
                    self._task.result()
        finally:
            if self._task is not None:
                self._task.cancel()
            self.client.close()

    def stop(self) -> None:
        """At once."""
        self._stopped = True
        if self._task is not None:
            self._task.cancel()

    async def until(self, version: str, patience: float = 10.0) -> None:
        """Wait until it has come so far. Raises TimeoutError."""
        async with asyncio.timeout(patience):
            while int(self.version) < int(version):  # noqa: ASYNC110 -- it is told by nobody
                await asyncio.sleep(0.05)

    async def _watch(self) -> None:
        path = f"{self._path}?watch=1&allowWatchBookmarks=true&timeoutSeconds=500&resourceVersion={self.version}"
        begun = False
        try:
            async with self.client.open("GET", path + self._query) as (status, _headers, line):
                if status != 200:
                    text = b"".join([piece async for piece in line.pieces()])
                    raise Failed(f"{status}: {text[:300].decode(errors='replace')}")
                begun = True
                async for text in _lines(line):
                    self._take(json.loads(text))
            self.ended += 1
        except Failed as failed:
            (self.cut if begun else self.refused).append(str(failed))
            await asyncio.sleep(0.2)

    def _take(self, told: dict[str, object]) -> None:
        found = told["object"]
        assert isinstance(found, dict)
        if told["type"] == "ERROR":
            raise AssertionError(f"the watch cannot go on: {found}")
        self.version = found["metadata"]["resourceVersion"]
        if told["type"] != "BOOKMARK":
            self.events.append(Event(str(told["type"]), found["metadata"]["name"], self.version))


async def _lines(line: Line) -> AsyncIterator[bytes]:
    held = b""
    async for piece in line.pieces():
        *whole, held = (held + piece).split(b"\n")
        for one in whole:
            yield one
    if held:
        raise Failed("the watch ended within an event", begun=True)

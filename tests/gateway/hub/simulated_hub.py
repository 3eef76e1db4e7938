"""A hub in this process that keeps its history, and misbehaves by order: no sockets, no time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import aiohttp

Objects = dict[str, tuple[int, str | None]]
_PAGE = 2


class Answer:
    """As much of aiohttp's as an informer uses. A watch's pieces: None ends it, an exception cuts it."""

    def __init__(self, status: int, document: Any = None) -> None:
        self.status = status
        self.headers: dict[str, str] = {}
        self.content = self
        self.pieces: asyncio.Queue[bytes | BaseException | None] = asyncio.Queue()
        self.closed = False
        if document is not None:
            self.pieces.put_nowait(json.dumps(document).encode())
            self.pieces.put_nowait(None)

    async def iter_any(self) -> AsyncIterator[bytes]:
        """Pieces as they come."""
        while (piece := await self.pieces.get()) is not None:
            if isinstance(piece, BaseException):
                raise piece
            yield piece

    def close(self) -> None:
        """Nobody reads any more."""
        self.closed = True


class Hub:
    """`call_api` stands for an ApiClient's."""

    def __init__(self) -> None:
        self.revision = 1
        self.compacted = 0
        self.history: dict[int, Objects] = {1: {}}
        self.log: list[tuple[int, bytes]] = []
        self.watches: list[Answer] = []
        self.refusals: list[int] = []
        self.gone_as_event = False
        self.compacts_in_lists = 0

    @property
    def objects(self) -> Objects:
        """What there is now."""
        return self.history[self.revision]

    # --- what happens to it

    def put(self, name: str, value: str | None, lost: bool = False) -> None:
        """An object is made or changed; `lost`: no watch will ever tell."""
        kind = "MODIFIED" if name in self.objects else "ADDED"
        now = {**self.objects, name: (self.revision + 1, value)}
        self._next(now, _event(kind, _document(name, self.revision + 1, value)), lost)

    def delete(self, name: str, lost: bool = False) -> None:
        """An object is deleted, if it is there."""
        if name in self.objects:
            now = {key: one for key, one in self.objects.items() if key != name}
            self._next(now, _event("DELETED", _document(name, self.revision + 1, self.objects[name][1])), lost)

    def compact(self) -> None:
        """What was before now cannot be asked for any more."""
        self.compacted = self.revision

    def bookmark(self) -> None:
        """As all watches get one."""
        self._send(_event("BOOKMARK", {"metadata": {"resourceVersion": str(self.revision)}}))

    def repeat(self, count: int) -> None:
        """The last events once more."""
        for _, line in self.log[-count:]:
            self._send(line)

    def end(self, piece: bytes | BaseException | None) -> None:
        """All watches end: None in order, an exception or a part of a line not so."""
        for one in self.watches:
            one.pieces.put_nowait(piece)
            if piece is not None and not isinstance(piece, BaseException):
                one.pieces.put_nowait(None)
        self.watches = []

    def _next(self, now: Objects, line: bytes, lost: bool) -> None:
        self.revision += 1
        self.history[self.revision] = now
        if not lost:
            self.log.append((self.revision, line))
            self._send(line)

    def _send(self, line: bytes) -> None:
        """In two pieces that end anywhere."""
        middle = len(line) * (self.revision % 7) // 7
        for one in self.watches:
            for piece in (line[:middle], line[middle:]):
                one.pieces.put_nowait(piece)

    # --- what it answers

    async def call_api(self, path: str, method: str, query_params: list[tuple[str, str]], **more: Any) -> Answer:
        """One request."""
        await asyncio.sleep(0)
        query = dict(query_params)
        if self.refusals:
            status = self.refusals.pop()
            if not status:
                raise aiohttp.ClientConnectionError
            return Answer(status)
        return self._watch(query) if "watch" in query else self._list(query)

    def _list(self, query: Mapping[str, str]) -> Answer:
        moment, begin = int(query.get("resourceVersion", self.revision)), 0
        if more := query.get("continue"):
            moment, begin = map(int, more.split("@"))
            if self.compacts_in_lists:
                self.compacts_in_lists -= 1
                self.put(f"unrelated-{self.compacts_in_lists}", None)
                self.compact()
        if moment < self.compacted:
            return Answer(410)
        names = sorted(self.history[moment])
        items = [_document(name, *self.history[moment][name]) for name in names[begin : begin + _PAGE]]
        more = f"{moment}@{begin + _PAGE}" if begin + _PAGE < len(names) else ""
        return Answer(200, {"metadata": {"resourceVersion": str(moment), "continue": more}, "items": items})

    def _watch(self, query: Mapping[str, str]) -> Answer:
        begin = int(query["resourceVersion"])
        answer = Answer(200)
        if begin < self.compacted:
            if not self.gone_as_event:
                return Answer(410)
            answer.pieces.put_nowait(_event("ERROR", {"code": 410}))
            return answer
        missed = b"".join(line for revision, line in self.log if revision > begin)
        if missed:
            answer.pieces.put_nowait(missed)
        self.watches.append(answer)
        return answer


def _document(name: str, revision: int, value: str | None) -> dict[str, Any]:
    return {"metadata": {"name": name, "resourceVersion": str(revision)}, "spec": value}


def _event(kind: str, document: Any) -> bytes:
    return json.dumps({"type": kind, "object": document}).encode() + b"\n"

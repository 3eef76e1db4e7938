"""A hub that answers by script, over real connections: what an API server seldom does, in the order a test wants."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer
from kubernetes_asyncio import client

from gateway.hub.informer import Delta, Informer, InformerTiming, Object, Source

PATH = "/apis/kulvert.dev/v1alpha1/grants"
FAST = InformerTiming(watch=5, slack=1, answer=1, page=1, least=0.01, most=0.02, check=1e9)


@dataclass(frozen=True)
class Answer:
    """A status, or 200 with pieces: None hangs, False cuts the connection."""

    status: int = 200
    pieces: Sequence[bytes | bool | None] = ()
    headers: Mapping[str, str] = field(default_factory=dict)


HANGS = Answer(pieces=[None])
SILENT = Answer(status=0)
"""Not even a head."""


def item(name: str, version: int, value: Any = "", namespace: str = "") -> dict[str, Any]:
    """An object whose spec is a value."""
    place = {"namespace": namespace} if namespace else {}
    return {"metadata": {"name": name, "resourceVersion": str(version)} | place, "spec": value}


def event(kind: str, name: str, version: int, value: Any = "") -> bytes:
    """A line of a watch."""
    return json.dumps({"type": kind, "object": item(name, version, value)}).encode() + b"\n"


def error(code: int) -> bytes:
    """A line that ends a watch."""
    return json.dumps({"type": "ERROR", "object": {"kind": "Status", "code": code}}).encode() + b"\n"


def page(*items: dict[str, Any], version: str = "10", more: str = "") -> Answer:
    """A list, or a part of one."""
    document = {"metadata": {"resourceVersion": version, "continue": more}, "items": list(items)}
    return Answer(pieces=[json.dumps(document).encode()])


class Scripted:
    """Answers lists, watches and checks from three scripts, in turn; the last of each stays."""

    def __init__(self, lists: list[Answer], watches: list[Answer], checks: Sequence[Answer] = ()) -> None:
        self.lists, self.watches, self.checks = lists, watches, list(checks)
        self.asked: list[Mapping[str, str]] = []
        self.accepts: list[str] = []
        self.times: list[float] = []
        self.probed: list[str] = []
        self.probe = 200

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """One request. A probe is no part of any script."""
        if request.query.get("limit") == "1" and "resourceVersionMatch" in request.query:
            self.probed.append(request.query["resourceVersion"])
            return web.json_response({}, status=self.probe)
        self.asked.append(dict(request.query))
        self.accepts.append(request.headers["Accept"])
        self.times.append(asyncio.get_running_loop().time())
        step = self._next(request)
        if not step.status:
            await asyncio.Event().wait()
        response = web.StreamResponse(status=step.status, headers=step.headers)
        await response.prepare(request)
        for piece in step.pieces:
            if piece is None:
                await asyncio.Event().wait()
            if piece is False:
                assert request.transport is not None
                request.transport.abort()
                return response
            assert isinstance(piece, bytes)
            await response.write(piece)
            await asyncio.sleep(0.001)
        return response

    def _next(self, request: web.Request) -> Answer:
        script = self.lists
        if "watch" in request.query:
            script = self.watches
        elif self.checks and "Partial" in request.headers["Accept"]:
            script = self.checks
        return script.pop(0) if len(script) > 1 else script[0]

    @property
    def listed(self) -> int:
        """How many pages were asked for."""
        return sum("watch" not in query for query in self.asked)

    @property
    def watched(self) -> list[str]:
        """From where watches were asked for."""
        return [query["resourceVersion"] for query in self.asked if "watch" in query]


class Read:
    """What an informer has told, and what comes of it when it is replayed."""

    def __init__(self) -> None:
        self.batches: list[list[Delta[str]]] = []
        self.replayed: dict[str, str] = {}

    def hear(self, deltas: Sequence[Delta[str]]) -> None:
        """A subscriber."""
        self.batches.append(list(deltas))
        for delta in deltas:
            assert self.replayed.get(delta.key) == delta.before
            assert delta.before != delta.after
            if delta.after is None:
                del self.replayed[delta.key]
            else:
                self.replayed[delta.key] = delta.after

    @property
    def changes(self) -> list[tuple[str, str | None, str | None]]:
        """All, one after another."""
        return [(one.key, one.before, one.after) for batch in self.batches for one in batch]


def spec(document: Object) -> str | None:
    """A view: text stays, None is left out, and anything else cannot be read."""
    value = document["spec"]
    if value is not None and not isinstance(value, str):
        raise TypeError(f"secret content {value}")
    return value


@asynccontextmanager
async def serving(hub: Scripted) -> AsyncIterator[client.ApiClient]:
    """A client of a scripted hub."""
    app = web.Application()
    app.router.add_get(PATH, hub.answer)
    async with TestServer(app, shutdown_timeout=0.1) as server:
        configuration = client.Configuration(host=str(server.make_url("")).rstrip("/"))
        async with client.ApiClient(configuration) as api:
            yield api


@asynccontextmanager
async def informed(
    hub: Scripted,
    timing: InformerTiming = FAST,
    most: int = 1000,
    clock: Callable[[], float] | None = None,
    view: Callable[[Object], str | None] = spec,
) -> AsyncIterator[tuple[Informer[str], Read]]:
    """An informer at work, and all that it tells."""
    async with serving(hub) as api:
        clock = clock or asyncio.get_running_loop().time
        informer = Informer(api, Source(PATH), view, lambda: 0.5, timing, clock, most)
        read = Read()
        informer.subscribe(read.hear)
        running = asyncio.create_task(informer.run(), name="inform")
        try:
            yield informer, read
            assert not running.done(), "it ends when it is cancelled, and not before"
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def until(condition: Callable[[], Any], seconds: float = 3.0) -> None:
    """Waits for what another task does."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 -- conditions of another task's, in a test
            await asyncio.sleep(0.003)

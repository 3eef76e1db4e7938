"""Reading the hub's objects: what a real API server seldom does, by a scripted one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from kubernetes_asyncio import client

from gateway.hub.watch import HubWatch, WatchTiming

PATH = "/apis/kulvert.dev/v1alpha1/grants"


def item(name: str, version: int, **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "resourceVersion": str(version)}, "spec": spec}


def event(kind: str, name: str, version: int, **spec: Any) -> bytes:
    return json.dumps({"type": kind, "object": item(name, version, **spec)}).encode() + b"\n"


GONE = json.dumps({"type": "ERROR", "object": {"kind": "Status", "code": 410}}).encode() + b"\n"


class Scripted:
    """Answers lists and watches from two scripts, in turn; the last of each stays. None hangs."""

    def __init__(self, lists: list[Any], watches: list[Any]) -> None:
        self.lists, self.watches = lists, watches
        self.asked: list[Mapping[str, str]] = []

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(dict(request.query))
        script = self.watches if "watch" in request.query else self.lists
        step = script.pop(0) if len(script) > 1 else script[0]
        if step is None:
            await asyncio.Event().wait()
        if isinstance(step, int):
            return web.json_response({"kind": "Status", "code": step}, status=step)
        if isinstance(step, dict):
            return web.json_response(step)
        response = web.StreamResponse()
        await response.prepare(request)
        for piece in step:
            if piece is None:
                await asyncio.Event().wait()
            await response.write(piece)
        return response

    @property
    def listed(self) -> int:
        return sum("watch" not in query for query in self.asked)


def page(*items: dict[str, Any], version: str = "10", more: str = "") -> dict[str, Any]:
    return {"metadata": {"resourceVersion": version, "continue": more}, "items": list(items)}


@asynccontextmanager
async def reading(
    script: Scripted, timing: WatchTiming | None = None
) -> AsyncIterator[tuple[HubWatch, list[dict[str, Any]]]]:
    """A reader at work, and all that it told."""
    app = web.Application()
    app.router.add_get(PATH, script.answer)
    told: list[dict[str, Any]] = []
    async with TestServer(app, shutdown_timeout=0.1) as server:
        configuration = client.Configuration(host=str(server.make_url("")).rstrip("/"))
        async with client.ApiClient(configuration) as api:
            timing = timing or WatchTiming(watch=5, list_patience=1, least=0.01, most=0.02)
            watch = HubWatch(api, PATH, lambda objects: told.append(dict(objects)), lambda: 0.5, timing)
            running = asyncio.create_task(watch.run(), name="read")
            try:
                yield watch, told
            finally:
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)


async def until(condition: Any) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 -- conditions of another task's, in a test
            await asyncio.sleep(0.005)


async def test_pages_make_one_list() -> None:
    script = Scripted([page(item("a", 1), more="next"), page(item("b", 2))], [None])
    async with reading(script) as (watch, told):
        await until(lambda: watch.listed.is_set())
        assert [sorted(objects) for objects in told] == [["a", "b"]]
        assert script.asked[1]["continue"] == "next"


async def test_a_watch_goes_on_from_its_last_event_or_bookmark() -> None:
    events = [event("ADDED", "b", 11), event("BOOKMARK", "", 15)]
    script = Scripted([page(item("a", 1))], [events, [event("DELETED", "a", 16), None]])
    async with reading(script) as (_, told):
        await until(lambda: len(told) == 3)
        assert [sorted(objects) for objects in told] == [["a"], ["a", "b"], ["b"]]
        assert [query.get("resourceVersion") for query in script.asked] == [None, "10", "15"]


@pytest.mark.parametrize("gone", [410, [GONE]])
async def test_a_watch_that_is_too_old_lists_again(gone: Any) -> None:
    script = Scripted([page(item("a", 1)), page(item("b", 2))], [gone, None])
    async with reading(script) as (watch, told):
        await until(lambda: len(told) == 2)
        assert sorted(told[-1]) == ["b"]
        assert watch.problem is None


@pytest.mark.parametrize("broken", [500, 403, [b"no json\n"], [b'{"type": "ADDED"}\n'], [b"x" * (5 * 1024 * 1024)]])
async def test_what_cannot_be_read_is_said_and_what_was_read_stays(broken: Any) -> None:
    script = Scripted([page(item("a", 1)), None], [broken])
    async with reading(script) as (watch, told):
        await until(lambda: watch.problem is not None and told)
        await until(lambda: script.listed == 2)
        assert watch.problem is not None
        assert "may be old" in watch.problem
        assert [sorted(objects) for objects in told] == [["a"]]


async def test_an_event_that_was_cut_in_the_middle_is_no_event() -> None:
    script = Scripted([page(item("a", 1))], [[event("ADDED", "b", 11)[:-20]], [event("ADDED", "b", 11), None]])
    async with reading(script) as (_, told):
        await until(lambda: len(told) == 2)
        assert [query.get("resourceVersion") for query in script.asked] == [None, "10", "10"]


async def test_lists_that_hang_are_given_up_and_tried_again() -> None:
    script = Scripted([None, page(item("a", 1))], [None])
    async with reading(script) as (watch, told):
        await until(lambda: told)
        assert script.listed == 2
        assert watch.problem is None


async def test_a_hub_that_has_fallen_silent_is_asked_again_soon_enough() -> None:
    """What is taken away ends its streams within 30 s: 5 of them pass until the next look at a stream."""
    timing = WatchTiming()
    assert timing.watch + timing.slack + timing.most / 20 + 5 < 30
    script = Scripted([page(item("a", 1)), page(version="12")], [None])
    async with reading(script, WatchTiming(watch=0.05, slack=0.05, least=0.01, most=0.02)) as (watch, told):
        await until(lambda: len(told) == 2)
        assert told[-1] == {}
        assert watch.problem is None

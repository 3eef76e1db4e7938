"""Nobody is told that something was changed before every replica can find it."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from gateway.replicas.keeping import Kept, kept_before_answered


@pytest.mark.parametrize(
    ("method", "expected"), [("GET", ["did"]), ("POST", ["asked", "did", "kept"]), ("DELETE", ["asked", "did", "kept"])]
)
async def test_a_change_is_kept_before_it_is_answered(method: str, expected: list[str]) -> None:
    order: list[str] = []

    def keeping() -> Kept:
        order.append("asked")

        async def kept() -> None:
            await asyncio.sleep(0)
            order.append("kept")

        return kept

    async def did(_request: web.Request) -> web.Response:
        order.append("did")
        return web.Response()

    app = web.Application(middlewares=[kept_before_answered(keeping)])
    app.router.add_route("*", "/", did)
    async with TestClient(TestServer(app)) as client:
        assert (await client.request(method, "/")).status == 200
    assert order == expected


async def test_what_cannot_be_kept_is_not_answered_as_done() -> None:
    def keeping() -> Kept:
        async def kept() -> None:
            raise web.HTTPGatewayTimeout

        return kept

    async def did(_request: web.Request) -> web.Response:
        return web.Response()

    app = web.Application(middlewares=[kept_before_answered(keeping)])
    app.router.add_post("/", did)
    async with TestClient(TestServer(app)) as client:
        assert (await client.post("/")).status == 504

"""Questions to the hub: whatever the library makes of one, who asks hears of one exception."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import RawTestServer
from kubernetes_asyncio import client
from kubernetes_asyncio.config import ConfigException

from gateway.hub.objects import MOST, HubObjects, HubUnavailable, HubUnreachable


@asynccontextmanager
async def hub(status: int, body: bytes) -> AsyncIterator[HubObjects]:
    """One that gives this answer to all."""

    async def answer(_request: web.BaseRequest) -> web.Response:
        return web.Response(status=status, body=body)

    async with RawTestServer(answer) as server, client.ApiClient(client.Configuration(str(server.make_url("")))) as api:
        yield HubObjects(api)


@pytest.mark.parametrize(
    ("status", "body", "found"),
    [
        (200, b'{"a": 1}', {"a": 1}),
        (404, b'{"reason": "NotFound"}', {"reason": "NotFound"}),
        (404, b"404 page not found\n", {}),
        (403, b"[1]", {}),
    ],
    ids=["object", "Status", "plain text", "list"],
)
async def test_answers_of_all_kinds_come_back(status: int, body: bytes, found: object) -> None:
    async with hub(status, body) as objects:
        answer = await objects.ask("GET", "/api")
    assert (answer.status, answer.body) == (status, found)


@pytest.mark.parametrize(
    ("body", "told"),
    [(b"<html>secret", "no JSON object"), (b'["secret"]', "no JSON object"), (b"x" * (MOST + 1), "too long")],
    ids=["html", "list", "too long"],
)
async def test_a_success_that_is_no_object_is_a_hub_that_is_not_available(body: bytes, told: str) -> None:
    async with hub(200, body) as objects:
        with pytest.raises(HubUnavailable, match=told) as caught:
            await objects.ask("GET", "/api")
    assert "secret" not in str(caught.value)


class Api:
    """Fails as it is told to."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    async def call_api(self, *_: Any, **_more: Any) -> Any:
        raise self._error


def asked(error: BaseException) -> HubObjects:
    return HubObjects(cast(client.ApiClient, Api(error)))


@pytest.mark.parametrize(
    "error",
    [
        ConfigException("Token file exists but empty. secret"),
        ValueError("secret"),
        aiohttp.ClientPayloadError("secret"),
        OSError("secret"),
        TimeoutError(),
        client.ApiException(500, "secret"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_whatever_fails_is_a_hub_that_is_not_available(error: Exception) -> None:
    with pytest.raises(HubUnavailable) as caught:
        await asked(error).ask("GET", "/api")
    assert "secret" not in str(caught.value)


async def test_a_refusal_of_its_own_stays_what_it_is() -> None:
    with pytest.raises(HubUnreachable, match="as it was"):
        await asked(HubUnreachable("as it was")).ask("GET", "/api")


async def test_who_is_cancelled_is_cancelled() -> None:
    with pytest.raises(asyncio.CancelledError):
        await asked(asyncio.CancelledError()).ask("GET", "/api")

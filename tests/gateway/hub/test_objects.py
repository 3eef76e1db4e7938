"""Questions to the hub: whatever the library makes of one, who asks hears of one exception."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import aiohttp
import pytest
from kubernetes_asyncio import client
from kubernetes_asyncio.config import ConfigException

from gateway.hub.objects import HubObjects, HubUnavailable, HubUnreachable


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

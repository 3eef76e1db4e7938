"""One question to the hub about a collection, and what it may answer instead."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final, cast

import aiohttp
from kubernetes_asyncio import client
from kubernetes_asyncio.client.exceptions import ApiException

from gateway.hub.source import Source

JSON: Final = "application/json"
_CONNECT: Final = 10.0
_OTHERS: Final = {
    401: "it does not accept the server's credential: renew it, or check hub.kubeconfig",
    403: "the server's account may not list and watch there: bind the role that charts/ has for it",
    404: "there is no such resource: install its CRD",
    429: "it is too busy",
}


class Gone(Exception):
    """That moment is over for the hub (410): list again."""


class Refused(Exception):
    """An answer that is no success; the text says what to do about it. `pause`: the seconds of its Retry-After."""

    def __init__(self, status: int, pause: float = 0.0) -> None:
        told = _OTHERS.get(status)
        super().__init__(f"the hub answers {status}{f': {told}' if told else ''}")
        self.status = status
        self.pause = pause


class Asking:
    """Asks about one collection, with the server's own credential."""

    def __init__(self, api: client.ApiClient, source: Source) -> None:
        self._api = api
        self._source = source

    @asynccontextmanager
    async def get(
        self, query: Mapping[str, str], patience: float, accept: str = JSON
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """A success whose head came within `patience` seconds; its body is still to be read.

        Raises Gone, Refused, TimeoutError, aiohttp.ClientError, OSError.
        """
        async with asyncio.timeout(patience):
            response = await self._answer(query, accept)
        try:
            if response.status != 200:
                raise _refusal(response.status, response.headers.get("Retry-After", ""))
            yield response
        finally:
            response.close()

    async def _answer(self, query: Mapping[str, str], accept: str) -> aiohttp.ClientResponse:
        try:
            response = await self._api.call_api(
                self._source.path,
                "GET",
                query_params=list((self._source.query | dict(query)).items()),
                header_params={"Accept": accept},
                auth_settings=["BearerToken"],
                _preload_content=False,  # the library would read all, and log it
                _request_timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT),
                _return_http_data_only=True,
            )
        except ApiException as error:
            raise _refusal(error.status or 0) from None
        return cast("aiohttp.ClientResponse", response)


def refusal_of(status: object) -> Exception:
    """What an ERROR event says, by its Status object."""
    code = status.get("code") if isinstance(status, dict) else None
    details = status.get("details") if isinstance(status, dict) else None
    pause = details.get("retryAfterSeconds") if isinstance(details, dict) else None
    return _refusal(code if isinstance(code, int) else 0, str(pause))


def _refusal(status: int, retry_after: str = "") -> Exception:
    if status == 410:
        return Gone("the hub answers 410")
    return Refused(status, float(retry_after) if retry_after.isdecimal() and len(retry_after) < 9 else 0.0)

"""A few requests to the user's own cluster, by their own credential, for the one object that `up` makes there."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import aiohttp

from agent.access import Access
from cli.failures import Failed

Object = dict[str, Any]
TIMEOUT = 10.0


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, whatever its status."""

    status: int
    body: Object

    @property
    def message(self) -> str:
        """What the API server says of it."""
        return str(self.body.get("message") or f"status {self.status}")


class ApiClient:
    """An async context manager around an access. Redirects are not followed, proxies not asked."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        timeout = aiohttp.ClientTimeout(total=TIMEOUT)
        connector = aiohttp.TCPConnector(ssl=self._access.context())
        self._session = aiohttp.ClientSession(connector=connector, timeout=timeout)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    @property
    def address(self) -> str:
        """Where the API server is."""
        server = self._access.server
        return f"https://{server.authority.decode()}{server.prefix.decode()}"

    async def send(self, method: str, path: str, body: Object | None = None, kind: str = "application/json") -> Reply:
        """One request, its body JSON (of whatever kind of patch). :raises Failed: there was no answer."""
        assert self._session is not None
        value = self._access.authorization(asyncio.get_running_loop().time())
        headers = {"Content-Type": kind} if body is not None else {}
        if value is not None:
            headers["Authorization"] = value.decode()
        content = json.dumps(body).encode() if body is not None else None
        options: dict[str, Any] = {"data": content, "headers": headers, "allow_redirects": False}
        try:
            name = self._access.server.name
            async with self._session.request(method, self.address + path, server_hostname=name, **options) as answer:
                found = await answer.json(content_type=None) if answer.content_type == "application/json" else {}
                return Reply(answer.status, found)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            reason = str(error) or "no answer in time"
            raise Failed(f"the API server at {self.address} cannot be used: {reason}") from error

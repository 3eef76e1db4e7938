"""The API of a cluster that is to join, by its kubeconfig: nothing of it is kept, and nowhere else is asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self

import aiohttp
import orjson

from gateway.bounded import json_object, read_whole
from gateway.joining.install import JoinFailed
from gateway.joining.kubeconfig import Target
from gateway.joining.manifest import Object

TIMEOUT: Final = 15.0
MOST: Final = 1024 * 1024
SAID: Final = 256


@dataclass(frozen=True, slots=True)
class ClusterReply:
    """Implements `gateway.joining.install.Reply`."""

    status: int
    body: Mapping[str, Any] = field(repr=False)

    @property
    def message(self) -> str:
        """A stranger's words: short, and in one line."""
        said = str(self.body.get("message") or "")[:SAID]
        return "".join(letter if letter.isprintable() else " " for letter in said) or f"status {self.status}"


class ClusterClient:
    """Implements `gateway.joining.install.Api`. An async context. Redirects are not followed, proxies not asked."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._session: aiohttp.ClientSession

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(ssl=self._target.tls)
        self._session = aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=TIMEOUT))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def send(
        self, method: str, path: str, body: Object | None = None, kind: str = "application/json"
    ) -> ClusterReply:
        """See `gateway.joining.install.Api`. :raises JoinFailed: there was no answer, or none that is one."""
        headers = {"Accept": "application/json"} | ({"Content-Type": kind} if body is not None else {})
        if self._target.token is not None:
            headers["Authorization"] = f"Bearer {self._target.token}"
        options: dict[str, Any] = {"headers": headers, "allow_redirects": False, "server_hostname": self._target.name}
        content = orjson.dumps(body) if body is not None else None
        try:
            async with self._session.request(method, self._target.url + path, data=content, **options) as answer:
                if (said := await read_whole(answer.content, MOST)) is None:
                    raise ValueError("its answer is too long")
                return ClusterReply(answer.status, json_object(said) or {})
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise JoinFailed(f"the cluster's API server cannot be used: {_told(error)}") from None


def _told(error: Exception) -> str:
    """The library's words name addresses; who wrote the kubeconfig knows them."""
    return str(error)[:SAID] or ("no answer in time" if isinstance(error, TimeoutError) else type(error).__name__)

"""One kind of object of the hub, kept in memory: list, then watch, then list again where the watch cannot go on.

A plain reader for what changes seldom. While the hub cannot be reached, what was read last counts, and `problem` says
so. Source: kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
import orjson
from kubernetes_asyncio import client
from kubernetes_asyncio.client.exceptions import ApiException

_log = logging.getLogger(__name__)
Object = Mapping[str, Any]
_PAGE: Final = 500
_MAX_LINE: Final = 4 * 1024 * 1024
"""More than an object in etcd can be."""


class _Gone(Exception):
    """The watch cannot go on from where it was: list again."""


@dataclass(frozen=True, slots=True)
class WatchTiming:
    """Seconds. A watch is asked for `watch` of them, and given up a little after: where everything is dropped without a
    word, nothing else tells that the hub has fallen silent, and a grant that was taken away ends its streams in 30.
    """

    watch: float = 15.0
    slack: float = 3.0
    list_patience: float = 30.0
    least: float = 0.5
    most: float = 30.0


class HubWatch:
    """`changed` is called with all objects, by name, whenever they have changed; `run` is its life."""

    def __init__(
        self,
        api: client.ApiClient,
        path: str,
        changed: Callable[[Mapping[str, Object]], None],
        randomness: Callable[[], float],
        timing: WatchTiming | None = None,
    ) -> None:
        self._api = api
        self._path = path
        self._changed = changed
        self._randomness = randomness
        self._timing = timing or WatchTiming()
        self._objects: dict[str, Object] = {}
        self._version = ""
        self._delay = 0.0
        self.listed = asyncio.Event()
        """What there is was read once."""
        self.problem: str | None = "the hub's objects were not read yet"

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            try:
                if not self._version:
                    await self._list()
                await self._watch()
                await asyncio.sleep(self._timing.least)  # a hub that ends each watch at once is not asked in a circle
            except _Gone:
                self._version = ""
            except (ApiException, aiohttp.ClientError, OSError, TimeoutError, ValueError, KeyError) as error:
                await self._failed(error)

    async def _failed(self, error: Exception) -> None:
        told = f"the hub answers {error.status}" if isinstance(error, ApiException) else type(error).__name__
        problem = f"{self._path} of the hub cannot be read, what is in force may be old: {told}"
        if self.problem != problem:
            _log.error("%s", problem)
        self.problem, self._version = problem, ""
        timing = self._timing
        self._delay = min(max(2 * self._delay, timing.least), timing.most)
        await asyncio.sleep(self._delay * (0.5 + self._randomness() / 2))

    # --- list

    async def _list(self) -> None:
        """In pages, all of one moment; an expired page begins again."""
        found: dict[str, Object] = {}
        more = ""
        async with asyncio.timeout(self._timing.list_patience):
            while True:
                query = {"limit": str(_PAGE)} | ({"continue": more} if more else {})
                async with await self._asked(query) as response:
                    page = orjson.loads(await response.read())
                found |= {item["metadata"]["name"]: item for item in page["items"]}
                more = page["metadata"].get("continue") or ""
                if not more:
                    break
        self._objects, self._version = found, page["metadata"]["resourceVersion"]
        self._delay, self.problem = 0.0, None
        self._tell()
        self.listed.set()

    # --- watch

    async def _watch(self) -> None:
        timing = self._timing
        query = {
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._version,
            "timeoutSeconds": str(int(timing.watch)),
        }
        async with asyncio.timeout(timing.watch + timing.slack), await self._asked(query) as response:
            async for line in _lines(response.content):
                self._event(orjson.loads(line))
        self.problem = None

    def _event(self, event: Mapping[str, Any]) -> None:
        kind, item = event["type"], event["object"]
        if kind == "ERROR":
            raise _Gone
        name = item["metadata"].get("name", "")
        if kind in ("ADDED", "MODIFIED"):
            self._objects[name] = item
        elif kind == "DELETED":
            self._objects.pop(name, None)
        self._version = item["metadata"]["resourceVersion"]
        if kind != "BOOKMARK":
            self._tell()

    def _tell(self) -> None:
        self._changed(dict(self._objects))

    async def _asked(self, query: Mapping[str, str]) -> aiohttp.ClientResponse:
        try:
            response = await self._api.call_api(
                self._path,
                "GET",
                query_params=list(query.items()),
                header_params={"Accept": "application/json"},
                auth_settings=["BearerToken"],
                _preload_content=False,
                _request_timeout=aiohttp.ClientTimeout(total=None, sock_connect=10),
                _return_http_data_only=True,
            )
        except ApiException as error:
            if error.status == 410:
                raise _Gone from None
            raise
        assert isinstance(response, aiohttp.ClientResponse)
        if response.status != 200:
            response.close()
            if response.status == 410:
                raise _Gone
            raise ApiException(status=response.status)
        return response


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Lines of any length that an object can have. What is cut off at the end is no line."""
    rest = b""
    async for piece in content.iter_any():
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            if line:
                yield line
        if len(rest) > _MAX_LINE:
            raise ValueError("an event of the hub is too long")


def jitter() -> Callable[[], float]:
    """A source of numbers between 0 and 1 that spread retries; nobody gains by guessing them."""
    return random.Random(os.urandom(8)).random  # noqa: S311

"""Lists of a collection, in pages that are all of one moment.

Source: kubernetes.io/docs/reference/using-api/api-concepts/#retrieving-large-results-sets-in-chunks
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final

import orjson

from gateway.bounded import read_whole
from gateway.hub.asking import JSON, Asking, Gone
from gateway.hub.memory import Malformed
from gateway.hub.source import Object
from gateway.hub.timing import InformerTiming

PAGE: Final = 500
MAX_PAGE: Final = 32 * 1024 * 1024
"""Bytes. Pages that are longer are asked for smaller."""
METADATA: Final = f"application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,{JSON}"
"""Objects without spec and status, where the hub can do that."""


class _TooLong(Exception):
    """The page has more bytes than are read."""


class Lister:
    """Reads whole lists. The size of a page is that of the last one that fitted."""

    def __init__(self, asking: Asking, timing: InformerTiming, max_page: int = MAX_PAGE) -> None:
        self._asking = asking
        self._timing = timing
        self._max_page = max_page
        self._limit = PAGE

    async def read(self, take: Callable[[Object], None], moment: str = "", accept: str = JSON) -> str:
        """Gives each object to `take`, and returns the list's resourceVersion. `moment` is the resourceVersion at which
        the list is wanted: the newest without it.

        Raises Gone where the moment is over before all pages were read (what an inconsistent `continue` would give is
        not used), Malformed, and what `Asking.get` raises.
        """
        query = {"resourceVersion": moment, "resourceVersionMatch": "Exact"} if moment else {}
        version = ""
        async with asyncio.timeout(self._timing.whole_list):
            while True:
                page = await self._page(query, accept)
                version, more = _continued(page, version)
                for item in page.get("items") or ():
                    take(item)
                if not more:
                    return version
                query = {"continue": more}

    async def probe(self, moment: str) -> None:
        """Whether the hub has that moment. Raises Gone, Refused (504: it is yet to come), and what `read` raises."""
        query = {"limit": "1", "resourceVersion": moment, "resourceVersionMatch": "Exact"}
        async with asyncio.timeout(self._timing.page):
            await self._body(query, METADATA)

    async def _page(self, query: Mapping[str, str], accept: str) -> Mapping[str, Any]:
        while True:
            try:
                async with asyncio.timeout(self._timing.page):
                    return _parsed(await self._body(query, accept))
            except _TooLong:
                if self._limit == 1:
                    raise Malformed("one object alone is too long") from None
                self._limit = max(1, self._limit // 4)

    async def _body(self, query: Mapping[str, str], accept: str) -> bytes:
        asked = {"limit": str(self._limit), **query}
        async with self._asking.get(asked, self._timing.page, accept) as response:
            body = await read_whole(response.content, self._max_page)
            if body is None:
                raise _TooLong
            return body


def _continued(page: Mapping[str, Any], before: str) -> tuple[str, str]:
    """(the list's version, where it goes on). Raises Gone, Malformed."""
    metadata = page.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    version, more = metadata.get("resourceVersion"), metadata.get("continue") or ""
    if not (isinstance(version, str) and version and isinstance(more, str)):
        raise Malformed("a list without resourceVersion")
    if before and version != before:
        raise Gone("the pages of the list are of several moments")
    return version, more


def _parsed(body: bytes) -> Mapping[str, Any]:
    try:
        page = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise Malformed("a list that is no JSON") from None
    if not isinstance(page, dict) or not isinstance(page.get("items") or [], list):
        raise Malformed("a list without items")
    return page

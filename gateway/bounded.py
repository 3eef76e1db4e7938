"""Bodies from elsewhere: read whole, but no further than there is room for."""

from __future__ import annotations

from typing import Any

import aiohttp
import orjson


async def read_whole(content: aiohttp.StreamReader, most: int) -> bytes | None:
    """A body of at most `most` bytes; None where it is longer, and then the rest is not read.

    :raises aiohttp.ClientError, OSError: it was cut.
    """
    body = bytearray()
    async for piece in content.iter_any():
        body += piece
        if len(body) > most:
            return None
    return bytes(body)


def json_object(body: bytes) -> dict[str, Any] | None:
    """The JSON object that a body is; None where it is another value, or no JSON."""
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return found if isinstance(found, dict) else None

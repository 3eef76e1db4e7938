"""Whether a change is where every replica finds it: asked for before the change, awaited after it.

A change that one replica alone knows is gone with that replica: nobody is told that something was done before it is
kept.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

Kept: TypeAlias = Callable[[], Awaitable[None]]
"""Returns when all that was changed since it was made is kept. Raises `gateway.failures.Refused`."""
Keeping: TypeAlias = Callable[[], Kept]
_SAFE = frozenset(("GET", "HEAD", "OPTIONS"))


def kept_before_answered(keeping: Keeping) -> Middleware:
    """Whoever changes something waits for that."""

    @web.middleware
    async def waiting(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.method in _SAFE:
            return await handler(request)
        kept = keeping()
        answer = await handler(request)
        await kept()
        return answer

    return waiting

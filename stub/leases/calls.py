"""One call of a LeaseStore, for no longer than its caller can wait."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from stub.leases.lease import LeasesUnavailable

T = TypeVar("T")


async def answered(call: Awaitable[T], patience: float) -> T:
    """Its answer. Raises LeasesUnavailable where there is none in time: a write may have taken effect, or may yet."""
    try:
        async with asyncio.timeout(patience):
            return await call
    except TimeoutError:
        raise LeasesUnavailable(f"no answer within {patience:g} s") from None

"""`kulvert`, but for one thing: it looks each request's cluster up at the hub's API, instead of in memory.

This is what `benchmarks.lookup` compares with. KULVERT_BENCH_QPS and KULVERT_BENCH_BURST throttle its client as
client-go's is by default (5 and 10); without them nothing does.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from pathlib import Path
from typing import Any
from unittest.mock import patch

from auth.authenticator import Undecided
from cli.main import main
from gateway.access import Access
from gateway.hub.client import Hub
from gateway.hub.clusters import PATH
from gateway.hub.objects import HubObjects
from gateway.hub.settings import HubSettings

KUBECONFIG = "KULVERT_BENCH_HUB"
QPS = "KULVERT_BENCH_QPS"
BURST = "KULVERT_BENCH_BURST"


class Throttle:
    """A token bucket, first come, first served: client-go's flowcontrol."""

    def __init__(self, qps: float, burst: int) -> None:
        self._every = 1 / qps
        self._burst = burst
        self._next = float("-inf")

    async def turn(self) -> None:
        """Returns when one more request may go out."""
        now = asyncio.get_running_loop().time()
        self._next = max(self._next, now - (self._burst - 1) * self._every)
        wait, self._next = self._next - now, self._next + self._every
        if wait > 0:
            await asyncio.sleep(wait)


class Asking:
    """Each `take` is paid for by one GET at the hub."""

    def __init__(self) -> None:
        self._paid: Counter[str] = Counter()
        self._objects: HubObjects | None = None
        qps = os.environ.get(QPS)
        self._throttle = Throttle(float(qps), int(os.environ[BURST])) if qps else None

    def take(self, cluster: str) -> None:
        """Raises Undecided, where the hub is to be asked first."""
        if not self._paid[cluster]:
            raise Undecided(lambda: self._ask(cluster))
        self._paid[cluster] -= 1

    async def _ask(self, cluster: str) -> None:
        if self._objects is None:
            self._objects = HubObjects((await Hub(HubSettings(Path(os.environ[KUBECONFIG]))).__aenter__()).api)
        if self._throttle is not None:
            await self._throttle.turn()
        if await self._objects.get(f"{PATH}/{cluster}") is not None:
            self._paid[cluster] += 1


class AskingAccess(Access):
    """The product's, with the one step that is compared."""

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self._asking = Asking()

    def look_up(self, cluster: str) -> None:
        self._asking.take(cluster)
        super().look_up(cluster)


if __name__ == "__main__":
    with patch("gateway.gateway.Access", AskingAccess):  # the one change, and only in this process
        main()

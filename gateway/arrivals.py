"""Requests for a cluster whose agents are on their way: they wait a moment instead of failing.

When a Lease changes hands or a server is replaced, a cluster's agents are nowhere for some milliseconds to seconds.
Whoever asks then is served as soon as one is there. A cluster whose agents have been away for longer fails at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Final

from auth.authenticator import Undecided
from gateway.failures import Refused, of_stub
from stub.errors import NoAgent, StubError
from stub.peers.errors import NotOpened
from tunnel.errors import ExchangeReset

PATIENCE: Final = 10.0
"""Seconds for which a request waits, all in all."""
AWAITED: Final = 15.0
"""Seconds after the last agent went, or its cluster came to this replica, for which one is expected (back)."""
STEP: Final = 1.0
"""Seconds after which is looked again, whatever was heard."""
SOON: Final = 0.1
"""The same right after clusters have moved: agents that come back to another replica are not heard of here."""


class Arriving(Undecided):
    """Decide again when something has changed. `otherwise` is what to say where nobody may wait."""

    def __init__(self, otherwise: Refused, settle: Callable[[], asyncio.Future[None]], step: float) -> None:
        super().__init__(lambda: _patiently(settle(), step))
        self.otherwise = otherwise


def unsent_of(error: ExchangeReset, cluster: str) -> StubError | None:
    """What another replica's stub says of a request that it has sent to no agent, or None: it may have been sent."""
    return error.as_stub_error(cluster) if isinstance(error, NotOpened) and cluster else None


async def _patiently(change: asyncio.Future[None], step: float) -> None:
    await asyncio.wait((change,), timeout=step)


class Arrivals:
    """`transient` are the failures that pass by themselves; `awaited` is 0 where agents are not waited for. `leaving`
    says whether a cluster has agents that take nothing new, and which others replace. `clock` is the passages'.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        transient: Iterable[type[StubError]],
        awaited: float = 0.0,
        leaving: Callable[[str], bool] = lambda _cluster: False,
    ) -> None:
        self._clock = clock
        self._transient = tuple(transient)
        self._awaited = awaited
        self._leaving = leaving
        self._began = clock()
        self._gone: dict[str, float] = {}
        self._waiting: dict[str, asyncio.Future[None]] = {}

    def refusal(self, error: StubError, since: float) -> Arriving | Refused:
        """What to raise: `Arriving` where a request that began at `since` may wait, else what its user is told."""
        refused = of_stub(error)
        if self._clock() - since >= PATIENCE or not self._passes(error):
            return refused
        return Arriving(refused, lambda: self._change(error.cluster), self._step())

    def changed(self, cluster: str, agents: int) -> None:
        """A cluster's agents have come or gone."""
        if agents:
            self._gone.pop(cluster, None)
            self._wake(cluster)
        else:
            self._went(cluster)

    def moved(self) -> None:
        """Clusters have come to this replica, or have gone to others: everybody looks again."""
        self._began = self._clock()
        for cluster in tuple(self._waiting):
            self._wake(cluster)

    def _step(self) -> float:
        return min(max(SOON, (self._clock() - self._began) / 2), STEP)

    def _passes(self, error: StubError) -> bool:
        if isinstance(error, self._transient):
            return True
        if not isinstance(error, NoAgent) or not self._awaited:
            return False
        went = max(self._gone.get(error.cluster, float("-inf")), self._began)
        return self._clock() - went < self._awaited or self._leaving(error.cluster)

    def _went(self, cluster: str) -> None:
        if self._awaited:
            now = self._clock()
            self._gone.pop(cluster, None)
            self._gone[cluster] = now  # last: the dictionary is in the order of time
            while now - self._gone[oldest := next(iter(self._gone))] >= self._awaited:
                del self._gone[oldest]

    def _change(self, cluster: str) -> asyncio.Future[None]:
        return self._waiting.setdefault(cluster, asyncio.get_running_loop().create_future())

    def _wake(self, cluster: str) -> None:
        waiting = self._waiting.pop(cluster, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(None)

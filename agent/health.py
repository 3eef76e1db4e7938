"""Whether the API server serves: a real round trip, measured, since a green light that asks nobody hides a
dead upstream.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from agent.pool import PoolLimits, UpstreamPool
from agent.question import ask
from tunnel.errors import ExchangeReset

READYZ = b"/readyz"
HEALTH_POOL = PoolLimits(connections=2, idle=1, dials=1, waiting=2, dial_timeout=5.0)
"""A pool of its own: users' requests neither delay the question nor answer for it."""


@dataclass(frozen=True, slots=True)
class HealthReport:
    """The result of one round trip; `message` is for people, and empty when ready."""

    ready: bool
    message: str
    latency_ms: int


@dataclass(frozen=True, slots=True)
class HealthTiming:
    """Seconds. While it is not ready, the API server is asked more often than the stub is told."""

    every: float = 15.0
    again: float = 2.0
    timeout: float = 10.0


async def probe(pool: UpstreamPool, timeout: float) -> HealthReport:
    """One round trip to /readyz with the agent's own credential."""
    began = pool.now()
    try:
        reply = await ask(pool, READYZ, timeout)
    except ExchangeReset as error:
        return HealthReport(False, error.message, _ms(pool.now() - began))
    latency = _ms(pool.now() - began)
    if reply.status == 200:
        return HealthReport(True, "", latency)
    return HealthReport(False, _explained(reply.status), latency)


class Health:
    """Asks for as long as it runs; `tell` gets a report every `every` seconds and at each change of
    `ready`.
    """

    def __init__(self, pool: UpstreamPool, tell: Callable[[HealthReport], None], timing: HealthTiming) -> None:
        self._pool = pool
        self._tell = tell
        self._timing = timing
        self.last: HealthReport | None = None

    async def run(self) -> None:
        """Until cancelled."""
        told = float("-inf")
        while True:
            report = await probe(self._pool, self._timing.timeout)
            changed = self.last is None or report.ready != self.last.ready
            self.last = report
            now = self._pool.now()
            if changed or now - told >= self._timing.every - self._timing.again / 2:
                told = now
                self._tell(report)
            await asyncio.sleep(self._timing.every if report.ready else self._timing.again)


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def _explained(status: int) -> str:
    if status == 401:
        return "the API server does not accept the agent's credential (401)"
    if status == 403:
        return "the agent may not read /readyz (403): bind it to system:public-info-viewer"
    return f"the API server is not ready (/readyz: {status})"

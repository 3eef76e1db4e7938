"""The warm pool of own links: a few idle ones dialled ahead, more while exchanges wait, within the NAT's cap.

Ahead only where they are of use: an idle own link costs the server nearly as much as a session, and most clusters are
idle most of the time. The first exchange that wants one begins on the shared link meanwhile, so it loses nothing.

What a NAT counts are ports, and it keeps one for a while after its connection has ended. So a link that is still being
ended counts, and so do the dials of the last two minutes: an exchange that has to stay on the shared link for it is
slower, but an agent without a port for its next shared link is gone.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from agent.session import AgentSession
from tunnel.errors import TunnelError
from tunnel.handshake import Refused

log = structlog.get_logger("kulvert.agent")

Dial = Callable[[AgentSession, int], Awaitable[None]]
"""Dials and attaches one own link with this id. Raises TunnelError or OSError."""
_NEVER = -1e12
"""Seconds of a loop's clock, before it began."""


@dataclass(frozen=True, slots=True)
class LinkPoolLimits:
    """`most` caps the own links (0: none are ever dialled); `warm` are kept idle, `dials` are under way at a time."""

    most: int = 1_000
    warm: int = 2
    dials: int = 8
    pause: float = 1.0
    """Seconds to wait after a dial that failed."""
    tidy: float = 10.0
    """Seconds between looks at idle links beyond the warm ones."""
    keep: float = 300.0
    """Seconds for which they are kept warm once an exchange has wanted one. Infinite: from the beginning, for good."""
    most_pause: float = 300.0
    """Seconds for which a server may ask to wait; a little more, at random, is added."""
    ports_kept: float = 120.0
    """Seconds for which a NAT keeps the port of a connection that has ended, at most of the clouds' (TIME-WAIT)."""
    turnover: int = 3
    """So many times `most` may be dialled in that time: with 16 of 64 ports there is one left for a shared link."""
    look: float = 0.1
    """Seconds between looks for a port that has come free meanwhile."""


class OwnLinks:
    """Runs beside its session: `wanted` wakes it."""

    def __init__(
        self,
        session: AgentSession,
        dial: Dial,
        limits: LinkPoolLimits,
        uniform: Callable[[], float] = random.random,
        dialled: deque[float] | None = None,
    ) -> None:
        """`dialled` is when own links were dialled, those of the agent's other sessions among them: one NAT has all."""
        self._session = session
        self._dial = dial
        self._limits = limits
        self._uniform = uniform
        self._wake = asyncio.Event()
        self._dialling = 0
        self._next_id = 0
        self._wanted = _NEVER
        self._dialled: deque[float] = deque() if dialled is None else dialled

    @property
    def _warm(self) -> int:
        """How many idle ones to have now."""
        now = asyncio.get_running_loop().time()
        return self._limits.warm if now - self._wanted < self._limits.keep else 0

    def wanted(self) -> None:
        """An exchange waits for an own link, or has just got one."""
        self._wanted = asyncio.get_running_loop().time()
        self._wake.set()

    def lacking(self) -> int:
        """How many to dial now."""
        mux = self._session.mux
        if self._session.draining or mux.draining:
            return 0
        target = len(mux.waiting) + self._warm - len(mux.free) - self._dialling
        return max(0, min(target, self._room(), self._limits.dials - self._dialling))

    def _room(self) -> int:
        """How many ports there are for further links."""
        limits, dialled = self._limits, self._dialled
        now = asyncio.get_running_loop().time()
        while dialled and now - dialled[0] >= limits.ports_kept:
            dialled.popleft()
        unused = limits.most - self._session.own_connections - self._dialling
        return min(unused, limits.most * limits.turnover - len(dialled))

    async def run(self) -> None:
        """Keep the pool until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._tidy(), name="own links: tidy")
            while True:
                for _ in range(self.lacking()):
                    self._dialling += 1
                    self._next_id += 1
                    self._dialled.append(asyncio.get_running_loop().time())
                    group.create_task(self._dial_one(self._next_id), name=f"own link {self._next_id}: dial")
                self._wake.clear()
                await self._woken()

    async def _woken(self) -> None:
        """Until there is something to do, or a port has come free: of that nobody tells."""
        mux = self._session.mux
        held_up = bool(mux.waiting) and len(mux.own_links) + self._dialling < self._limits.most
        try:
            async with asyncio.timeout(self._limits.look if held_up else None):
                await self._wake.wait()
        except TimeoutError:
            pass

    async def _dial_one(self, link_id: int) -> None:
        try:
            await self._dial(self._session, link_id)
        except (TunnelError, OSError, TimeoutError) as error:
            log.warning("own link not attached", error=str(error))
            await asyncio.sleep(self._pause(error))
        finally:
            self._dialling -= 1
            self._wake.set()

    def _pause(self, error: Exception) -> float:
        """A server that has no room says when to ask again; many were told the same."""
        told = error.retry_after if isinstance(error, Refused) else 0
        return max(self._limits.pause, min(told, self._limits.most_pause) * (1 + 0.5 * self._uniform()))

    async def _tidy(self) -> None:
        while True:
            await asyncio.sleep(self._limits.tidy)
            free, warm = self._session.mux.free, self._warm
            while len(free) > warm:
                free[0].close("idle beyond the warm pool")
            self._wake.set()

"""The warm pool of own links: a few idle ones dialled ahead, more while exchanges wait, within the NAT's cap."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from agent.session import AgentSession
from tunnel.errors import TunnelError

log = structlog.get_logger("kulvert.agent")

Dial = Callable[[AgentSession, int], Awaitable[None]]
"""Dials and attaches one own link with this id. Raises TunnelError or OSError."""


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


class OwnLinks:
    """Runs beside its session: `wanted` wakes it."""

    def __init__(self, session: AgentSession, dial: Dial, limits: LinkPoolLimits) -> None:
        self._session = session
        self._dial = dial
        self._limits = limits
        self._wake = asyncio.Event()
        self._dialling = 0
        self._next_id = 0

    def wanted(self) -> None:
        """An exchange waits for an own link."""
        self._wake.set()

    def lacking(self) -> int:
        """How many to dial now."""
        mux = self._session.mux
        if self._session.draining or mux.draining:
            return 0
        target = len(mux.waiting) + self._limits.warm - len(mux.free) - self._dialling
        room = self._limits.most - len(mux.own_links) - self._dialling
        return max(0, min(target, room, self._limits.dials - self._dialling))

    async def run(self) -> None:
        """Keep the pool until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._tidy(), name="own links: tidy")
            while True:
                for _ in range(self.lacking()):
                    self._dialling += 1
                    self._next_id += 1
                    group.create_task(self._dial_one(self._next_id), name=f"own link {self._next_id}: dial")
                self._wake.clear()
                await self._wake.wait()

    async def _dial_one(self, link_id: int) -> None:
        try:
            await self._dial(self._session, link_id)
        except (TunnelError, OSError, TimeoutError) as error:
            log.warning("own link not attached", error=str(error))
            await asyncio.sleep(self._limits.pause)
        finally:
            self._dialling -= 1
            self._wake.set()

    async def _tidy(self) -> None:
        while True:
            await asyncio.sleep(self._limits.tidy)
            free = self._session.mux.free
            while len(free) > self._limits.warm:
                free[0].close("idle beyond the warm pool")
            self._wake.set()

"""The own links of a session with a holder: a few kept idle, more while exchanges wait, as many as the holder takes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from stub.peers.asking import AskingSession
from stub.peers.limits import PeerLimits
from tunnel.errors import TunnelError

log = structlog.get_logger("kulvert.stub")

Dial = Callable[[AskingSession, int], Awaitable[None]]
"""Dials and attaches one own link with this id. Raises TunnelError, OSError or TimeoutError."""


class AskingLinks:
    """Runs beside its session. The holder closes those that are idle beyond the warm ones: only it knows which of them
    it is about to use.
    """

    def __init__(self, session: AskingSession, dial: Dial, limits: PeerLimits) -> None:
        self._session = session
        self._dial = dial
        self._limits = limits
        self._most = min(session.welcome.links, limits.links)
        self._wake = asyncio.Event()
        self._dialling = 0
        self._next_id = 0
        session.on_links_wanted = self._wake.set

    def lacking(self) -> int:
        """How many to dial now."""
        session = self._session
        if session.draining or session.mux.closed_reason is not None:
            return 0
        links = session.mux.own_links
        free = sum(link.exchange is None for link in links.values())
        wanted = session.waiting + session.welcome.warm - free - self._dialling
        room = self._most - len(links) - self._dialling
        return max(0, min(wanted, room, self._limits.dials - self._dialling))

    async def run(self) -> None:
        """Keep the pool until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                for _ in range(self.lacking()):
                    self._dialling += 1
                    self._next_id += 1
                    group.create_task(self._dial_one(self._next_id), name=f"peer: dial own link {self._next_id}")
                self._wake.clear()
                await self._wake.wait()

    async def _dial_one(self, link_id: int) -> None:
        try:
            await self._dial(self._session, link_id)
            self._session.waiting = max(0, self._session.waiting - 1)
        except (TunnelError, OSError, TimeoutError) as error:
            log.warning("no own link to another replica", replica=self._session.replica, error=str(error))
            await asyncio.sleep(self._limits.pause)
        finally:
            self._dialling -= 1
            self._wake.set()

"""The life of clusters in a server, composed: how they come in, what is so of them, and how they leave."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from auth.pki import CertificateAuthority
from gateway.membership.agentauthority import RegistryAuthority
from gateway.membership.agents import Attendance, SessionPresence
from gateway.membership.conditionkeeper import ConditionKeeper
from gateway.membership.enrolments import EnrolmentSettings
from gateway.membership.removal import Clean, Known, Remover, nothing
from gateway.membership.stores import Stores
from stub.session import Session
from stub.sessions import Sessions

TIDY = 60.0
"""Seconds between two looks for what has expired."""


@dataclass(frozen=True, slots=True)
class Times:
    """`clock` measures, `wall` tells the time that people and certificates go by."""

    clock: Callable[[], float]
    wall: Callable[[], float]


class Lifecycle:
    """Everything that the server needs of it: `authority` for the agents' door, `looks` for the watcher. `close` ends
    its tasks, while the sessions are still there.
    """

    def __init__(
        self,
        stores: Stores,
        agents_authority: CertificateAuthority,
        settings: EnrolmentSettings,
        sessions: Sessions,
        trusted: Callable[[], str],
        times: Times,
        known: Known = lambda _cluster: (),
        clean: Clean = nothing,
    ) -> None:
        self.stores = stores
        self._settings = settings
        self._sessions = sessions
        self._times = times
        self.attendance = Attendance(sessions)
        self.presence = SessionPresence(sessions, times.clock, times.wall)
        self.authority = RegistryAuthority(stores, agents_authority, settings, self.presence, trusted, times.wall)
        self.remover = Remover(stores, self.agents, times.wall, known, clean)
        self._keeper = ConditionKeeper(stores, self.attendance.attached, times.wall())
        self._tidied = times.clock()

    def looks(self) -> Mapping[str, Callable[[], Awaitable[None]]]:
        """For the watcher, after it has looked at the registry."""
        return {"clusters": self._look, "removals": self._look_at_removals}

    async def close(self) -> None:
        """Ends what is under way; it goes on after the next start."""
        await self.remover.close()

    async def _look(self) -> None:
        self.presence.look()
        self._keeper.look(self._times.wall())
        now = self._times.clock()
        if now - self._tidied >= TIDY:
            self._tidied = now
            self.stores.tidy(self._times.wall(), self._settings.request_lifetime)

    async def _look_at_removals(self) -> None:
        self.remover.look()

    def agents(self, name: str) -> list[Session]:
        """Those of the very cluster that has the name, the ready ones first."""
        cluster = self.stores.registry.get(name)
        found = [
            one
            for one in self._sessions.of(name)
            if cluster is not None and one.info.cluster_id == cluster.uid and one.available
        ]
        return sorted(found, key=lambda one: not one.health.ready)

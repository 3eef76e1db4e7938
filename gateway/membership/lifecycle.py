"""The life of clusters in a server, composed: how they come in, what is so of them, and how they leave."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from auth.authorityfile import Now
from gateway.membership.agentauthority import RegistryAuthority
from gateway.membership.agents import Attendance, SessionPresence
from gateway.membership.conditionkeeper import ConditionKeeper, Sources
from gateway.membership.enrolments import EnrolmentSettings
from gateway.membership.heartbeats import Heartbeats, Renewal
from gateway.membership.others import Agent, NoOthers, Others
from gateway.membership.removal import Clean, Known, Remover, nothing
from gateway.membership.stores import Stores
from gateway.membership.takeover import Presence
from stub.sessions import Sessions

TIDY = 60.0
"""Seconds between two looks for what has expired."""


@dataclass(frozen=True, slots=True)
class Times:
    """`clock` measures, `wall` tells the time that people and certificates go by."""

    clock: Callable[[], float]
    wall: Callable[[], float]


@dataclass(frozen=True, slots=True)
class Shared:
    """What it is to be one of several replicas, and to have a hub; a server that is alone has neither.

    `leading`: this one does what is done once for all. `elsewhere` is another's cluster by its heartbeats, and None for
    one's own. `keeps` says of which clusters the hub has still to hear that they were removed.
    """

    leading: Callable[[], bool] = lambda: True
    elsewhere: Callable[[str], Renewal | None] = lambda _cluster: None
    keeps: Callable[[str], bool] = lambda _cluster: False
    others: Others = field(default_factory=NoOthers)
    """Agents that are attached to other replicas, or workers."""
    presence: Callable[[Presence], Presence] = lambda own: own
    """Who is attached to any replica, of who is attached to this one."""


ALONE = Shared()


class Lifecycle:
    """Everything that the server needs of it: `authority` for the agents' door, `looks` for the watcher. `close` ends
    its tasks, while the sessions are still there.
    """

    def __init__(
        self,
        stores: Stores,
        agents_authority: Now,
        settings: EnrolmentSettings,
        sessions: Sessions,
        trusted: Callable[[], str],
        times: Times,
        known: Known = lambda _cluster: (),
        clean: Clean = nothing,
        shared: Shared = ALONE,
    ) -> None:
        self.stores = stores
        self._shared = shared
        self._settings = settings
        self._sessions = sessions
        self._times = times
        self.attendance = Attendance(sessions)
        self.presence = SessionPresence(sessions, times.clock, times.wall)
        presence = shared.presence(self.presence)
        self.authority = RegistryAuthority(stores, agents_authority, settings, presence, trusted, times.wall)
        self.remover = Remover(stores, self.agents, times.wall, known, clean)
        self.heartbeats = Heartbeats(times.wall)
        found = (self.attendance.attached, self.heartbeats.pulse, shared.elsewhere, shared.leading)
        self._keeper = ConditionKeeper(stores, Sources(*found), times.wall)
        self._tidied = times.clock()

    def looks(self) -> Mapping[str, Callable[[], Awaitable[None]]]:
        """For the watcher, after it has looked at the registry."""
        return {"clusters": self._look, "removals": self._look_at_removals}

    async def close(self) -> None:
        """Ends what is under way; it goes on after the next start."""
        await self.remover.close()

    async def _look(self) -> None:
        self.presence.look()
        for name in self.heartbeats.clusters():
            self.heartbeats.attached(name, [one.info.instance for one in self._sessions.of(name)])
        now = self._times.clock()
        self._keeper.look(now)
        if now - self._tidied >= TIDY and self._shared.leading():
            self._tidied = now
            self.stores.tidy(self._times.wall(), self._settings.request_lifetime, self._shared.keeps)

    async def _look_at_removals(self) -> None:
        if self._shared.leading():
            self.remover.look()

    def agents(self, name: str) -> list[Agent]:
        """Those of the very cluster that has the name, the ready ones first."""
        cluster = self.stores.registry.get(name)
        found = [
            one
            for one in self._sessions.of(name)
            if cluster is not None and one.info.cluster_id == cluster.uid and one.available
        ]
        here = sorted(found, key=lambda one: not one.health.ready)
        elsewhere = self._shared.others.agents(name, cluster.uid) if cluster is not None and cluster.uid else ()
        return [*here, *elsewhere]

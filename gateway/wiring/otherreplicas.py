"""The other replicas as this one asks them, and answers them, by itself: about agents that are attached there."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial

from gateway.membership.heartbeats import Heartbeats, Renewal
from gateway.membership.others import Agent
from gateway.membership.takeover import Presence
from gateway.replicas.agentcalls import CALL, AgentCalls, FarAgent
from gateway.replicas.attendance import ATTENDANCE, OthersAttendance, OwnAttendance
from gateway.replicas.exchange import Answering, ask
from gateway.replicas.presence import PRESENCE, OwnPresence, SharedPresence
from gateway.replicas.routing import Peers
from gateway.wiring.tasks import Tasks
from stub.ownership import Ownership
from stub.session import Session
from stub.sessions import Sessions
from tunnel.calls import Method

_log = logging.getLogger(__name__)


class OtherReplicas:
    """Implements `gateway.membership.others.Others`, where conditions are not its business: a cluster's heartbeats are
    Leases, which the leader reads. `answering` is for the door that others come in by; `answers` are further ones.
    """

    def __init__(
        self,
        identity: str,
        ownership: Ownership,
        peers: Peers,
        sessions: Sessions,
        clock: Callable[[], float],
        answers: Mapping[str, Method],
    ) -> None:
        self._identity = identity
        self._ownership = ownership
        self._sessions = sessions
        self._clock = clock
        self._ask = partial(ask, peers)
        self._answers = answers
        self._presence: SharedPresence
        self.answering = Answering(lambda error: _log.error("a replica's question met a bug", exc_info=error))
        self.calls = AgentCalls(ownership, self._ask, self._here, clock)
        self.attendance = OthersAttendance(ownership, self._ask, clock)

    def start(self, own: Presence, heartbeats: Heartbeats, stack: AsyncExitStack, tasks: Tasks) -> None:
        """There is something to answer with. `presence` was made before."""
        methods: dict[str, Method] = {
            CALL: self.calls.answer,
            ATTENDANCE: OwnAttendance(self._ownership, self._sessions, heartbeats).answer,
            PRESENCE: OwnPresence(own, time.time).answer,
        }
        self.answering.serve({**methods, **self._answers})
        stack.push_async_callback(self.answering.close)
        stack.callback(self._ownership.subscribe(self._presence.changed))
        tasks.start("agents of other replicas", self.attendance.run)
        tasks.start("who wants another's name", self._presence.run)

    def presence(self, own: Presence) -> Presence:
        """That of all replicas, with this one's."""
        self._presence = SharedPresence(self._identity, own, self._ownership, self._ask, self._clock, time.time)
        return self._presence

    def has(self, cluster: str) -> bool:
        """Whether another replica has the cluster's agents."""
        place = self._ownership.place(cluster)
        return bool(place.replica) and not place.mine

    def renewal(self, cluster: str) -> Renewal | None:
        """See `gateway.membership.conditionkeeper.Sources.elsewhere`, by asking."""
        return None if self._ownership.place(cluster).mine else self.attendance.renewal(cluster)

    def agents(self, cluster: str, uid: str) -> Sequence[Agent]:
        """See `Others`. While it is not known whether one is there, one may be: who calls it will hear."""
        place = self._ownership.place(cluster)
        if place.mine:
            return ()
        seen = self.attendance.follow(cluster)
        if seen is not None and not seen.callable.get(uid):
            return ()
        return [FarAgent(self.calls, cluster, uid)]

    def _here(self, cluster: str, uid: str) -> list[Session]:
        found = [one for one in self._sessions.of(cluster) if one.info.cluster_id == uid and one.available]
        return sorted(found, key=lambda one: not one.health.ready)

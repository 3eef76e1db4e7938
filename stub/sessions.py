"""All sessions of this replica: which agents a cluster has, and which of them takes the next exchange."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from stub.errors import AgentSilent, Draining, NoAgent, SessionOverloaded
from stub.session import Session
from tunnel.messages import encode_message
from tunnel.ports import Exchange, RequestBlock, ResponseSink

log = structlog.get_logger("kulvert.stub")

Changed = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class ClusterState:
    """What the management side shows of a cluster."""

    agents: int
    ready: int
    exchanges: int
    own_links: int
    message: str


class Sessions:
    """Implements the gateway's port `Clusters`. One timer sweeps all sessions; `on_change` hears a cluster's name."""

    def __init__(
        self, *, clock: Callable[[], float], interval: float, on_change: Changed = lambda _cluster: None
    ) -> None:
        self._clock = clock
        self._interval = interval
        self._on_change = on_change
        self._by_cluster: dict[str, list[Session]] = {}
        self._by_id: dict[str, Session] = {}
        self._timer: asyncio.TimerHandle | None = None
        self.draining = False

    # --- exchanges

    def open(self, cluster: str, head: RequestBlock, sink: ResponseSink) -> Exchange:
        """An exchange with the least busy healthy agent of `cluster`. Raises StubError."""
        sessions = self._by_cluster.get(cluster)
        if sessions is not None and len(sessions) == 1 and sessions[0].available and not self.draining:
            return sessions[0].open(head, sink)
        return self._choose(cluster, sessions or []).open(head, sink)

    def _choose(self, cluster: str, sessions: list[Session]) -> Session:
        if self.draining:
            raise Draining(cluster, "this replica is shutting down; try again")
        if not sessions:
            raise NoAgent(cluster, f"no agent of cluster {cluster!r} is connected: see to its kulvert agent")
        available = [session for session in sessions if session.available]
        if not available:
            if any(session.mux.full for session in sessions):
                raise SessionOverloaded(cluster, f"the agents of cluster {cluster!r} have all they can take; try again")
            if any(session.mux.suspect for session in sessions):
                raise AgentSilent(cluster, f"the agent of cluster {cluster!r} is connected, but does not answer")
            raise NoAgent(cluster, f"the agent of cluster {cluster!r} is shutting down")
        healthy = [session for session in available if session.health.ready]
        return min(healthy or available, key=lambda session: session.load)

    # --- sessions

    def get(self, session_id: str) -> Session | None:
        """The session with this id."""
        return self._by_id.get(session_id)

    def add(self, session: Session) -> None:
        """A session is attached."""
        self._by_id[session.id] = session
        self._by_cluster.setdefault(session.info.cluster, []).append(session)
        self._on_change(session.info.cluster)

    def remove(self, session: Session) -> None:
        """A session has ended. Harmless when it was removed before."""
        if self._by_id.pop(session.id, None) is None:
            return
        sessions = self._by_cluster[session.info.cluster]
        sessions.remove(session)
        if not sessions:
            del self._by_cluster[session.info.cluster]
        self._on_change(session.info.cluster)

    def of(self, cluster: str) -> list[Session]:
        """The sessions of a cluster, oldest first."""
        return list(self._by_cluster.get(cluster, ()))

    def clusters(self) -> list[str]:
        """The names of the clusters that have a session."""
        return list(self._by_cluster)

    def all(self) -> list[Session]:
        """Every session, oldest first."""
        return list(self._by_id.values())

    def state(self, cluster: str) -> ClusterState:
        """A cluster's agents, in short."""
        sessions = self._by_cluster.get(cluster, [])
        ready = [session for session in sessions if session.health.ready and session.available]
        told = sorted(sessions, key=lambda session: session.health.ready)  # what is broken comes before what will be
        message = next((session.health.message for session in told if session.health.message), "")
        links = sum(len(session.mux.own_links) for session in sessions)
        return ClusterState(len(sessions), len(ready), sum(s.load for s in sessions), links, message)

    # --- time

    def start(self) -> None:
        """Begin to sweep."""
        self._timer = asyncio.get_running_loop().call_later(self._interval, self._sweep)

    def _sweep(self) -> None:
        """What fails in one session ends that one; the next sweep comes in any case."""
        self.start()
        now = self._clock()
        for session in self.all():
            try:
                session.mux.sweep(now)
                self._review(session, now)
            except Exception as error:
                self._give_up(session, error)

    def _review(self, session: Session, now: float) -> None:
        """Agents come by a certificate, and stay only as long as it, and their cluster, are accepted."""
        refused = session.standing.review(now)
        if refused is not None:
            cluster, agent = session.info.cluster, session.info.agent
            log.warning("an agent is sent away", cluster=cluster, agent=agent, reason=refused.message)
            session.mux.shared.message(refused.encode())
            session.mux.close(refused.message)
            self.remove(session)
        elif bundle := session.standing.news():
            session.mux.shared.message(encode_message("trust", bundle=bundle))

    def _give_up(self, session: Session, error: Exception) -> None:
        cluster, agent = session.info.cluster, session.info.agent
        log.error("internal error in a session, which ends", cluster=cluster, agent=agent, exc_info=error)
        try:
            session.mux.close("internal error")
        except Exception as another:
            log.error("internal error at the end of a session", cluster=cluster, agent=agent, exc_info=another)
        self.remove(session)

    def drain(self) -> None:
        """Take no new exchanges; agents are told, so that they attach elsewhere."""
        self.draining = True
        for session in self.all():
            session.mux.shared.message(encode_message("drain", last=session.mux.highest))

    def close(self, reason: str) -> None:
        """End every session now."""
        if self._timer is not None:
            self._timer.cancel()
        for session in self.all():
            session.mux.close(reason)

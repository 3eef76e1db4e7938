"""All sessions of this replica: which agents a cluster has, and which of them takes the next exchange."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from itertools import islice

import structlog

from stub.choosing import Uniform, choose
from stub.errors import Draining
from stub.session import Session
from tunnel.messages import encode_message
from tunnel.ports import Exchange, RequestBlock, ResponseSink

log = structlog.get_logger("kulvert.stub")

Changed = Callable[[str], None]
LATE = 0.25
"""Seconds by which a sweep may be late."""
SLICE = 200
"""Sessions that are swept in one turn of the loop: some milliseconds, in which nobody is served."""


@dataclass(frozen=True, slots=True)
class ClusterState:
    """What the management side shows of a cluster."""

    agents: int
    ready: int
    exchanges: int
    own_links: int
    message: str


class Sessions:
    """Implements the gateway's port `Clusters`. One timer sweeps all sessions; `on_change` hears a cluster's name.
    `uniform` gives numbers of [0, 1).
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float],
        interval: float,
        on_change: Changed = lambda _cluster: None,
        uniform: Uniform = random.random,
    ) -> None:
        self._clock = clock
        self._interval = interval
        self._on_change = on_change
        self._uniform = uniform
        self._hearers: dict[object, Changed] = {}
        self._by_cluster: dict[str, list[Session]] = {}
        self._by_id: dict[str, Session] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._swept = clock()
        self.draining = False

    # --- exchanges

    def open(self, cluster: str, head: RequestBlock, sink: ResponseSink) -> Exchange:
        """An exchange with one of the less busy healthy agents of `cluster`. Raises StubError."""
        sessions = self._by_cluster.get(cluster)
        if sessions is not None and len(sessions) == 1 and sessions[0].available and not self.draining:
            return sessions[0].open(head, sink)
        if self.draining:
            raise Draining(cluster, "this replica is shutting down; try again")
        return choose(cluster, sessions or (), self._uniform).open(head, sink)

    # --- sessions

    def get(self, session_id: str) -> Session | None:
        """The session with this id."""
        return self._by_id.get(session_id)

    def add(self, session: Session) -> None:
        """A session is attached."""
        self._by_id[session.id] = session
        self._by_cluster.setdefault(session.info.cluster, []).append(session)
        self._on_change(session.info.cluster)
        for hearer in list(self._hearers.values()):
            hearer(session.info.cluster)

    def subscribe(self, attached: Changed) -> Callable[[], None]:
        """Calls back with the cluster's name whenever an agent has attached. The returned function ends that."""
        key = object()
        self._hearers[key] = attached
        return lambda: self._hearers.pop(key, None) and None

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
        """The next one comes in any case. Where this process stood still, timers run before what has come meanwhile is
        read: agents that have answered long ago would be taken for silent, or dead.
        """
        self.start()
        late, self._swept = self._clock() - self._swept > self._interval + LATE, self._clock()
        if not late:
            self._sweep_some(iter(self.all()))

    def _sweep_some(self, left: Iterator[Session]) -> None:
        """What fails in one session ends that one."""
        now, last = self._clock(), None
        for session in islice(left, SLICE):
            last, mux = session, session.mux
            if now < mux.rest_until and not mux.exchanges:
                continue
            try:
                mux.sweep(now)
                self._review(session, now)
            except Exception as error:
                self._give_up(session, error)
        if last is not None:
            asyncio.get_running_loop().call_soon(self._sweep_some, left)

    def _review(self, session: Session, now: float) -> None:
        """Agents come by a certificate, and stay only as long as it, and their cluster, are accepted."""
        refused = session.standing.review(now)
        if refused is not None:
            cluster, agent = session.info.cluster, session.info.agent
            log.warning("an agent is sent away", cluster=cluster, agent=agent, reason=refused.message)
            session.mux.shared.message(refused.encode())
            session.mux.close(refused.message)
            self.remove(session)
            return
        if bundle := session.standing.news():
            session.mux.shared.message(encode_message("trust", bundle=bundle))
        mux = session.mux
        if mux.suspect and any(one.available for one in self._by_cluster.get(session.info.cluster, ())):
            mux.give_up_reads()
        if (session.leaving or mux.stale) and not mux.exchanges:
            mux.close("handed over")

    def _give_up(self, session: Session, error: Exception) -> None:
        cluster, agent = session.info.cluster, session.info.agent
        log.error("internal error in a session, which ends", cluster=cluster, agent=agent, exc_info=error)
        try:
            session.mux.close("internal error")
        except Exception as another:
            log.error("internal error at the end of a session", cluster=cluster, agent=agent, exc_info=another)
        self.remove(session)

    def drain(self, clusters: Collection[str] | None = None, address: str = "") -> None:
        """Hand sessions over: those of some clusters, or all, and then no new exchanges are taken at all. Agents are
        told to attach elsewhere (at `address`, where it is known); a session ends when what is under way in it has.
        """
        self.draining = self.draining or clusters is None
        for session in self.all() if clusters is None else [one for name in clusters for one in self.of(name)]:
            session.drain(address)

    def close(self, reason: str) -> None:
        """End every session now."""
        if self._timer is not None:
            self._timer.cancel()
        for session in self.all():
            session.mux.close(reason)

"""Which agents are attached, as the gateway's side asks: for its users, its metrics, and whose a name is."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from gateway.management import Attached
from gateway.membership.registry import Change, Cluster
from stub.sessions import Sessions

REMEMBERED = 50_000
STILL = 5.0
"""Seconds without a look after which this process has stood still: what ends meanwhile is read at once afterwards."""
LONG_GONE = 86_400.0
"""Seconds after which it is no matter any more when somebody went."""


class SessionPresence:
    """`gateway.membership.takeover.Presence` of a single server: by its own sessions, looked at once a second. Before
    it began it knows of nobody, so everybody may have been connected until then.
    """

    def __init__(self, sessions: Sessions, clock: Callable[[], float], wall: Callable[[], float]) -> None:
        self._sessions = sessions
        self._clock = clock
        self._wall = wall
        self._began = self._looked = clock()
        self._seen: dict[tuple[str, str], float] = {}

    def look(self) -> None:
        """Notes who is there now."""
        now = self._awake()
        self._looked = now
        for session in self._sessions.all():
            self._seen[session.info.cluster, session.info.cluster_id] = now
        if len(self._seen) > REMEMBERED:
            self._seen = {who: seen for who, seen in self._seen.items() if now - seen < LONG_GONE}

    def last_connected(self, cluster: str, uid: str) -> float:
        """See `Presence`. Told by the clock that nobody sets."""
        if any(session.info.cluster_id == uid for session in self._sessions.of(cluster)):
            return self._wall()
        now = self._awake()
        seen = max(self._began, self._seen.get((cluster, uid), self._began))
        return self._wall() - (now - seen)

    def _awake(self) -> float:
        """The time. Whoever stood still knows as little as who begins."""
        now = self._clock()
        if now - self._looked >= STILL:
            self._began = self._looked = now
        return now


class Attendance:
    """The sessions, as the gateway's management side asks for them."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def attached(self, cluster: str) -> Attached:
        """A cluster's agents."""
        state = self._sessions.state(cluster)
        return Attached(state.agents, state.ready, state.message)

    def changed(self, change: Change, cluster: Cluster) -> None:
        """A registry's subscriber: the agents of a removed cluster are sent away, and those of any other cluster
        than the one that the name is pinned to.
        """
        for session in self._sessions.of(cluster.name):
            if change is Change.REMOVED:
                session.mux.close("the cluster was removed")
            elif cluster.uid is not None and session.info.cluster_id != cluster.uid:
                session.mux.close("the name is pinned to another cluster")


class SessionsCollector(Collector):
    """Gauges of what is attached."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def collect(self) -> Iterator[Metric]:
        """See prometheus_client."""
        agents = GaugeMetricFamily("kulvert_agents", "Attached agents.", labels=["cluster"])
        exchanges = GaugeMetricFamily("kulvert_exchanges", "Exchanges under way.", labels=["cluster"])
        links = GaugeMetricFamily("kulvert_own_links", "Own links attached.", labels=["cluster"])
        for cluster in self._sessions.clusters():
            state = self._sessions.state(cluster)
            agents.add_metric([cluster], state.agents)
            exchanges.add_metric([cluster], state.exchanges)
            links.add_metric([cluster], state.own_links)
        yield from (agents, exchanges, links)

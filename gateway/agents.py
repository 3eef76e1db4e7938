"""Which agents may attach, and how they show: the registry's answer to the stub, and the stub's to the metrics."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from auth.jointoken import StoredJoinToken
from gateway.management import Attached
from gateway.registry import Change, Cluster, RegistryError, SqliteRegistry
from stub.authority import JoinKey
from stub.sessions import Sessions
from tunnel.handshake import Refused


class RegistryAuthority:
    """Implements `stub.authority.AgentAuthority` by the registry: join tokens, and the clusters' pinned ids."""

    def __init__(self, registry: SqliteRegistry) -> None:
        self._registry = registry

    def join_key(self, token_id: str) -> JoinKey | None:
        """See `AgentAuthority`."""
        token = self._registry.join_token(token_id) or self._just_made(token_id)
        return JoinKey(token.key, token.cluster, token.expires) if token else None

    def _just_made(self, token_id: str) -> StoredJoinToken | None:
        """The command may have made it since the last poll; its user should not have to wait for the next."""
        try:
            self._registry.poll()
        except RegistryError as error:
            raise Refused("cluster", str(error)) from error
        return self._registry.join_token(token_id)

    def admit(self, cluster: str, cluster_id: str) -> str:
        """See `AgentAuthority`."""
        if self._registry.get(cluster) is None:
            return f"cluster {cluster!r} is not registered: add it with `kulvert cluster add {cluster}`"
        try:
            self._registry.pin(cluster, cluster_id)
        except RegistryError as error:
            return str(error)
        return ""


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

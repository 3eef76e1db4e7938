"""Links between replicas, or workers, and the users' exchanges that go over them, for Prometheus.

`direction` is `out` for what this one asks of the others, and `in` for what they ask here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from gateway.replicas.routing import RoutedClusters
from stub.peers.dial import DialCounts
from stub.peers.door import PeersDoor
from stub.peers.load import Load
from stub.peers.peers import Peers


class PeersCollector(Collector):
    """All of it is kept anyway, or counted once for each connection or exchange."""

    def __init__(self, peers: Peers, door: PeersDoor, dialled: DialCounts, clusters: RoutedClusters) -> None:
        self._peers = peers
        self._door = door
        self._dialled = dialled
        self._clusters = clusters

    def collect(self) -> Iterator[Metric]:
        """See prometheus_client.registry.Collector."""
        yield from self._links({"out": self._peers.load, "in": self._door.load})
        yield from self._dials()
        told = "Users' exchanges that were opened at another replica (out), or here for another (in)."
        relayed = CounterMetricFamily("kulvert_relayed_exchanges", told, labels=["direction"])
        relayed.add_metric(["out"], self._clusters.sent)
        relayed.add_metric(["in"], self._clusters.taken)
        yield relayed

    def _links(self, loads: Mapping[str, Load]) -> Iterator[Metric]:
        links = GaugeMetricFamily("kulvert_peer_links", "Open, by their kind.", labels=["direction", "link"])
        told = "Exchanges under way with other replicas; their own questions among them."
        exchanges = GaugeMetricFamily("kulvert_peer_exchanges", told, labels=["direction"])
        for direction, load in loads.items():
            links.add_metric([direction, "session"], load.sessions)
            links.add_metric([direction, "own"], load.own_links)
            exchanges.add_metric([direction], load.exchanges)
        yield from (links, exchanges)

    def _dials(self) -> Iterator[Metric]:
        dials = CounterMetricFamily("kulvert_peer_dials", "Tries to reach other replicas.", labels=["link"])
        failures = CounterMetricFamily("kulvert_peer_dial_failures", "Those that failed.", labels=["link"])
        for family, counts in ((dials, self._dialled.begun), (failures, self._dialled.failed)):
            for link, count in counts.items():
                family.add_metric([link], count)
        yield from (dials, failures)

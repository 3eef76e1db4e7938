"""Where the agents belonged that came to this replica or worker, for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator, Sized

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from stub.peers.adopt import Adopting
from stub.placements import Placements


class PlacementsCollector(Collector):
    """`room` is where agents wait, of whose cluster nobody is the holder."""

    def __init__(self, placements: Placements, room: Sized, adopting: Adopting) -> None:
        self._placements = placements
        self._room = room
        self._adopting = adopting

    def collect(self) -> Iterator[Metric]:
        """See prometheus_client.registry.Collector."""
        told = "Agents' connections whose hello was taken, by what became of them."
        family = CounterMetricFamily("kulvert_agent_links_placed", told, labels=["link", "placed"])
        for (link, placed), count in self._placements.counts.items():
            family.add_metric([link, placed.value], count)
        yield family
        told = "Connections of agents that wait here until somebody holds their cluster."
        yield GaugeMetricFamily("kulvert_agent_links_waiting", told, len(self._room))
        told = "Connections of agents that came here and are passed on to another replica, or worker."
        yield GaugeMetricFamily("kulvert_agent_links_passed_on", told, self._adopting.adopted)

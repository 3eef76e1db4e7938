"""How a replica's stores keep step with the hub's, for Prometheus."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from gateway.mirror.mirror import Mirror


class MirrorCollector(Collector):
    """Reads memory: no scrape waits for the file."""

    def __init__(self, mirror: Mirror) -> None:
        self._mirror = mirror

    def collect(self) -> Iterator[Metric]:
        """See prometheus_client.registry.Collector."""
        yield from self._outbox()
        yield from self._merges()

    def _outbox(self) -> Iterator[Metric]:
        mirror, now = self._mirror, asyncio.get_running_loop().time()
        told = "Documents that were changed here and are still to be brought to the hub."
        yield GaugeMetricFamily("kulvert_mirror_outbox_documents", told, mirror.backlog.documents)
        told = "For how long the oldest of them was seen to wait."
        yield GaugeMetricFamily("kulvert_mirror_outbox_age_seconds", told, mirror.backlog.age(now))
        yield CounterMetricFamily("kulvert_mirror_documents_written", "Brought to the hub.", mirror.written)

    def _merges(self) -> Iterator[Metric]:
        mirror = self._mirror
        told = "Changed by other replicas, and taken over."
        yield CounterMetricFamily("kulvert_mirror_documents_merged", told, mirror.counts.applied)
        told = "Changed here and elsewhere at a time, where the other change counts."
        yield CounterMetricFamily("kulvert_mirror_conflicts", told, mirror.counts.conflicts)
        age = mirror.merge_age
        told = "Since others' changes were last taken over."
        family = GaugeMetricFamily("kulvert_mirror_last_merge_age_seconds", told, labels=[])
        if age is not None:
            family.add_metric([], age)
        yield family

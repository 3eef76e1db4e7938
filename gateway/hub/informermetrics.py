"""What the informers know and how old it is, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from gateway.hub.informer import Informer

_LABELS = ["informer"]


class InformersCollector(Collector):
    """All informers of a server, by the names that `add` was given. `clock` is theirs."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._informers: dict[str, Informer[Any]] = {}

    def add(self, name: str, informer: Informer[Any]) -> None:
        """`name` is a fixed word, e.g. grants; one that is there is replaced."""
        self._informers[name] = informer

    def collect(self) -> Iterator[Metric]:
        """See prometheus_client.registry.Collector."""
        objects = GaugeMetricFamily("kulvert_informer_objects", "Objects of the hub in memory.", labels=_LABELS)
        staleness = GaugeMetricFamily(
            "kulvert_informer_staleness_seconds", "Since the hub confirmed what is known.", labels=_LABELS
        )
        relists = CounterMetricFamily("kulvert_informer_relists", "Lists after the first.", labels=_LABELS)
        differences = CounterMetricFamily(
            "kulvert_informer_differences", "Objects that were known wrong, and listed again.", labels=_LABELS
        )
        skipped = CounterMetricFamily("kulvert_informer_skipped", "Objects that could not be read.", labels=_LABELS)
        now = self._clock()
        for name, informer in self._informers.items():
            objects.add_metric([name], len(informer.items))
            staleness.add_metric([name], informer.staleness(now))
            relists.add_metric([name], informer.counts.relists)
            differences.add_metric([name], informer.counts.differences)
            skipped.add_metric([name], informer.skipped)
        yield from (objects, staleness, relists, differences, skipped)

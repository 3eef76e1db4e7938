"""What the gateway counts. The hot path adds to plain ints; Prometheus' types are made from them when it scrapes.

An observation of prometheus-client costs 2 µs, and a request makes several. Labels are bounded: clusters are names of
the registry, verbs are those of Kubernetes; what a client could make up is counted as "other".
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from gateway.door import Door
from tunnel.errors import Hop, Reason

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
VERBS = frozenset((
    "get", "list", "watch", "create", "update", "patch", "delete", "deletecollection", "proxy",
    "connect", "head", "post", "put", "options",
))  # fmt: skip
_CLASSES = ("", "1xx", "2xx", "3xx", "4xx", "5xx")


class Series:
    """One (cluster, verb, code class)."""

    __slots__ = ("buckets", "bytes_in", "bytes_out", "count", "seconds")

    def __init__(self) -> None:
        self.count = self.bytes_in = self.bytes_out = 0
        self.seconds = 0.0
        self.buckets = [0] * (len(BUCKETS) + 1)


class Traffic:
    """All requests of a gateway."""

    __slots__ = ("in_flight", "long_running", "resets", "retries", "series")

    def __init__(self) -> None:
        self.series: dict[tuple[str, str, int], Series] = {}
        self.in_flight = self.long_running = self.retries = 0
        self.resets: dict[tuple[Hop, Reason], int] = {}

    def count(self, cluster: str, verb: str, code: int, seconds: float, received: int, sent: int, long: bool) -> None:
        """A request is over. Long-running ones have no duration that would mean something."""
        key = (cluster, verb if verb in VERBS else "other", code // 100)
        series = self.series.get(key)
        if series is None:
            series = self.series[key] = Series()
        series.count += 1
        series.bytes_in += received
        series.bytes_out += sent
        if not long:
            series.seconds += seconds
            series.buckets[bisect_left(BUCKETS, seconds)] += 1

    def reset(self, hop: Hop, reason: Reason) -> None:
        """An exchange ended without a whole answer."""
        self.resets[hop, reason] = self.resets.get((hop, reason), 0) + 1


class TrafficCollector(Collector):
    """Makes Prometheus' families of the counts, at scrape time."""

    def __init__(self, traffic: Traffic, doors: Iterable[Door]) -> None:
        self._traffic = traffic
        self._doors = doors

    def collect(self) -> Iterator[Metric]:
        """See prometheus_client.registry.Collector."""
        yield from self._requests()
        yield self._durations()
        traffic = self._traffic
        yield GaugeMetricFamily("kulvert_requests_in_flight", "Requests that are being served.", traffic.in_flight)
        yield GaugeMetricFamily("kulvert_requests_long_running", "Watches, logs and streams.", traffic.long_running)
        yield CounterMetricFamily("kulvert_retries", "Reads sent to a second agent.", traffic.retries)
        resets = CounterMetricFamily("kulvert_resets", "Exchanges without a whole answer.", labels=["hop", "reason"])
        for (hop, reason), count in traffic.resets.items():
            resets.add_metric([hop.name.lower(), reason.name.lower()], count)
        yield resets
        yield from self._connections()

    def _requests(self) -> Iterator[Metric]:
        labels = ["cluster", "verb", "code"]
        requests = CounterMetricFamily("kulvert_requests", "Requests, by the class of their answer.", labels=labels)
        received = CounterMetricFamily("kulvert_request_bytes", "Bytes of bodies from clients.", labels=labels)
        sent = CounterMetricFamily("kulvert_response_bytes", "Bytes of bodies to clients.", labels=labels)
        for (cluster, verb, code), series in self._traffic.series.items():
            values = [cluster, verb, _CLASSES[code] if code < len(_CLASSES) else ""]
            requests.add_metric(values, series.count)
            received.add_metric(values, series.bytes_in)
            sent.add_metric(values, series.bytes_out)
        yield from (requests, received, sent)

    def _durations(self) -> Metric:
        family = HistogramMetricFamily(
            "kulvert_request_duration_seconds",
            "From head to the end of the answer.",
            labels=["cluster", "verb", "code"],
        )
        for (cluster, verb, code), series in self._traffic.series.items():
            buckets, total = [], 0
            for bound, count in zip((*map(str, BUCKETS), "+Inf"), series.buckets, strict=True):
                total += count
                buckets.append((bound, total))
            values = [cluster, verb, _CLASSES[code] if code < len(_CLASSES) else ""]
            family.add_metric(values, buckets, series.seconds)
        return family

    def _connections(self) -> Iterator[Metric]:
        doors = list(self._doors)
        yield GaugeMetricFamily("kulvert_connections", "Users' connections.", sum(len(d.connections) for d in doors))
        yield CounterMetricFamily("kulvert_connections_accepted", "Taken in.", sum(d.counts.accepted for d in doors))
        yield CounterMetricFamily("kulvert_connections_refused", "Too many.", sum(d.counts.refused for d in doors))


def registry_of(collectors: Iterable[Collector]) -> CollectorRegistry:
    """A registry of one gateway: nothing global, so that two can live in one process."""
    registry = CollectorRegistry(auto_describe=False)
    for collector in collectors:
        registry.register(collector)
    return registry


def exposition(registry: CollectorRegistry) -> bytes:
    """The text format."""
    return generate_latest(registry)

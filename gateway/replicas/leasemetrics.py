"""What a replica holds by its Leases, and how well it keeps them, for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from stub.leases.member import Member
from stub.ownership import Ownership


class LeasesCollector(Collector):
    """`ownership` is what the server acts by: it leads a moment later than `member`, which has the leader's Lease of
    this name.
    """

    def __init__(self, member: Member, ownership: Ownership, lease: str) -> None:
        self._member = member
        self._ownership = ownership
        self._lease = lease

    def collect(self) -> Iterator[Metric]:
        """See prometheus_client.registry.Collector."""
        yield from self._election()
        yield from self._renewals()
        yield from self._holdings()

    def _election(self) -> Iterator[Metric]:
        """The first has the meaning of client-go's leader_election_master_status."""
        member = self._member
        yield self._of_lease("master_status", "Whether this replica holds the leader's Lease.", member.leading)
        yield self._of_lease("acquired_timestamp_seconds", "Since when it holds that.", member.leading_since)
        began = CounterMetricFamily(
            "kulvert_leader_election_transitions", "How often this process began to hold it.", labels=["name"]
        )
        began.add_metric([self._lease], member.transitions)
        yield began
        told = "Whether this replica leads: it holds the Lease, and has read all that those before it wrote."
        yield GaugeMetricFamily("kulvert_leader", told, self._ownership.leading)

    def _of_lease(self, name: str, told: str, value: float | None) -> Metric:
        family = GaugeMetricFamily(f"kulvert_leader_election_{name}", told, labels=["name"])
        if value is not None:
            family.add_metric([self._lease], value)
        return family

    def _renewals(self) -> Iterator[Metric]:
        member = self._member
        latency = "How long the last renewal of this replica's own Lease took."
        yield _perhaps("kulvert_lease_renewal_latency_seconds", latency, member.renewal_latency)
        age = "Since the last successful renewal of this replica's own Lease began."
        yield _perhaps("kulvert_lease_renewal_age_seconds", age, member.renewal_age)
        failed = "Renewals that the hub did not answer, of its own Lease and of the leader's."
        yield CounterMetricFamily("kulvert_lease_renewal_failures", failed, member.renewal_failures)

    def _holdings(self) -> Iterator[Metric]:
        member = self._member
        yield GaugeMetricFamily("kulvert_shards_held", "Shards that are this replica's.", member.held)
        told = "Shards that there are; in mode standby all clusters are one."
        yield GaugeMetricFamily("kulvert_shards", told, member.shards)
        alive = "Replicas that are alive, as this one sees it; it counts itself."
        yield GaugeMetricFamily("kulvert_replicas", alive, len(self._ownership.replicas()))


def _perhaps(name: str, told: str, value: float | None) -> Metric:
    """Without a sample where there is no value yet."""
    family = GaugeMetricFamily(name, told, labels=[])
    if value is not None:
        family.add_metric([], value)
    return family

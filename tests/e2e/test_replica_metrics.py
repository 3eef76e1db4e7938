"""What several replicas tell Prometheus of themselves, at a real hub: who leads, who holds what, what goes where."""

from __future__ import annotations

import asyncio
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.test_replicas import installed
from tests.support.cluster import Cluster
from tests.support.cluster_api import until
from tests.support.installation import Installation


class Told:
    """The metrics of some replicas, by their names."""

    def __init__(self, samples: Mapping[str, Mapping[str, float]]) -> None:
        self.samples = samples

    def __call__(self, name: str) -> list[float]:
        """One of each replica's: its name without the prefix, and the values of its labels."""
        return [one.get(name, 0.0) for one in self.samples.values()]


async def told(made: Installation, *names: str) -> Told:
    return Told({name: await asyncio.to_thread(_scraped, made, name) for name in names})


def _scraped(made: Installation, name: str) -> Mapping[str, float]:
    url = f"{made.replicas[name].url}/metrics"
    with urllib.request.urlopen(url, context=made.tls()) as answer:  # noqa: S310 -- https
        text = answer.read().decode()
    samples = [one for family in text_string_to_metric_families(text) for one in family.samples]
    return {" ".join([one.name.removeprefix("kulvert_"), *one.labels.values()]): one.value for one in samples}


async def test_replicas_tell_what_they_hold_and_what_they_pass_to_each_other(
    clusters: tuple[Cluster, Cluster], tmp_path: Path
) -> None:
    alpha = clusters[0]
    async with installed("sharded", clusters, tmp_path, ("r0", "r1")) as made:
        await made.start_agent(alpha)

        async def settled() -> bool:
            seen = await told(made, "r0", "r1")
            linked = seen("peer_links out session") == seen("peer_links in session") == [1, 1]
            return linked and sum(seen("shards_held")) == seen("shards")[0] and sum(seen("leader")) == 1

        await until(settled, "two replicas to have all", 20.0)
        for replica in made.replicas.values():
            found = await alpha.kubectl("get", "namespaces", kubeconfig=replica.kubeconfig("alpha"))
            found.check()
        seen = await told(made, "r0", "r1")
        out, taken = seen("relayed_exchanges_total out"), seen("relayed_exchanges_total in")
        assert sum(out) == sum(taken) >= 1
        assert out == taken[::-1]
        assert sum(seen("agent_links_placed_total shared here")) >= 1
        assert seen("replicas") == [2, 2]
        assert max(seen("lease_renewal_age_seconds")) < 3
        assert 0 < max(seen("lease_renewal_latency_seconds")) < 3
        assert sum(seen("mirror_documents_written_total")) >= 1

        async def brought() -> bool:
            return (await told(made, "r0", "r1"))("mirror_outbox_documents") == [0, 0]

        await until(brought, "all changes to be at the hub", 10.0)

        leader = ("r0", "r1")[seen("leader").index(1)]
        other = "r1" if leader == "r0" else "r0"
        await made.kill(leader)

        async def taken_over() -> bool:
            left = await told(made, other)
            return left("leader") == [1] and left("shards_held") == left("shards") and left("replicas") == [1]

        await until(taken_over, "the other to have all", 20.0)
        left = await told(made, other)
        assert left("peer_links out session") == [0]
        assert left("leader_election_transitions_total kulvert") == [1]

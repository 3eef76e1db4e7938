"""What Prometheus sees of a mirror."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from gateway.membership.cluster import Cluster
from gateway.metrics import exposition, registry_of
from gateway.mirror.mirrormetrics import MirrorCollector
from tests.gateway.mirror.replica import Replica
from tests.gateway.mirror.test_mirror import Platform, both
from tests.gateway.mirror.virtualtime import run


def shown(replica: Replica) -> Mapping[str, float]:
    text = exposition(registry_of([MirrorCollector(replica.mirror)])).decode()
    samples = [one for family in text_string_to_metric_families(text) for one in family.samples]
    assert not any(one.labels for one in samples)
    return {one.name.removeprefix("kulvert_mirror_"): one.value for one in samples}


def test_what_cannot_be_brought_to_the_hub_is_seen_to_wait(tmp_path: Path) -> None:
    async def work() -> None:
        platform = Platform(tmp_path)
        a, _ = await platform.pair()
        await both(a)
        await asyncio.sleep(3)
        assert (shown(a)["outbox_documents"], shown(a)["outbox_age_seconds"]) == (0, 0)
        written = shown(a)["documents_written_total"]
        platform.troubles["a"].down = True
        for name in ("alpha", "beta"):
            a.stores.registry.add(Cluster(name, None, 5.0))
        await asyncio.sleep(30)
        found = shown(a)
        assert found["outbox_documents"] == 2
        assert 28 <= found["outbox_age_seconds"] <= 30
        assert found["documents_written_total"] == written
        platform.troubles["a"].down = False
        await asyncio.sleep(10)
        found = shown(a)
        assert (found["outbox_documents"], found["outbox_age_seconds"]) == (0, 0)
        assert found["documents_written_total"] == written + 2

    run(work())


def test_what_others_bring_there_is_counted_and_dated(tmp_path: Path) -> None:
    async def work() -> None:
        a, b = await Platform(tmp_path).pair()
        assert "last_merge_age_seconds" not in shown(a), "nobody else has written"
        b.stores.registry.add(Cluster("alpha", None, 5.0))
        await both(a, b)
        assert shown(a)["documents_merged_total"] == 1
        assert shown(a)["last_merge_age_seconds"] < 5
        await asyncio.sleep(100)
        assert 100 <= shown(a)["last_merge_age_seconds"] < 105
        assert shown(a)["conflicts_total"] == 0

    run(work())

"""What Prometheus sees of a mirror."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.database import RegistryError
from gateway.membership.cluster import Cluster
from gateway.metrics import exposition, registry_of
from gateway.mirror.file import MirrorFile
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


def test_it_is_counted_while_the_hub_is_hung_and_while_nothing_may_be_written(tmp_path: Path) -> None:
    async def work() -> None:
        platform = Platform(tmp_path)
        a, _ = await platform.pair()
        await both(a)
        await asyncio.sleep(3)
        platform.troubles["a"].slow = 1e6
        for number in range(3):
            a.stores.registry.add(Cluster(f"alpha-{number}", None, 5.0))
            await asyncio.sleep(1.1)
            assert shown(a)["outbox_documents"] == number + 1
        assert shown(a)["outbox_age_seconds"] > 2

        platform = Platform(tmp_path / "other")
        platform.directory.mkdir()
        a, _ = await platform.pair()
        await both(a)
        platform.hub.drop("kulvert-mirror")
        await asyncio.sleep(3)
        a.stores.registry.add(Cluster("alpha", None, 5.0))
        await asyncio.sleep(1.1)
        assert shown(a)["outbox_documents"] == 1

    run(work())


def test_a_count_that_fails_keeps_nothing_from_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: MirrorFile) -> tuple[int, int | None]:
        raise RegistryError("the file is busy")

    async def work() -> None:
        platform = Platform(tmp_path)
        a, _ = await platform.pair()
        await both(a)
        await asyncio.sleep(3)
        monkeypatch.setattr(MirrorFile, "waiting", fails)
        platform.records["a"].asked.clear()
        a.stores.registry.add(Cluster("alpha", None, 5.0))
        await asyncio.sleep(3)
        assert [method for method, _ in platform.records["a"].asked] == ["POST"], "what was picked is not asked for"
        assert (a.failed, a.mirror.problem) == (None, None)
        monkeypatch.undo()
        platform.troubles["a"].down = True
        a.stores.registry.add(Cluster("beta", None, 5.0))
        await asyncio.sleep(1.1)
        assert shown(a)["outbox_documents"] == 1

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

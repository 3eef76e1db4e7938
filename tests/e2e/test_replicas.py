"""Several replicas as one installation, over a real hub: any of them serves everybody, and losing one loses little."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.e2e.conftest import _bind as bind_admins
from tests.support.cluster import Cluster
from tests.support.cluster_api import until
from tests.support.cluster_helpers import create_pod, delete_pod
from tests.support.installation import NAMESPACE, Installation, forget_installations

QUICK = {"duration": 4, "renewDeadline": 3, "retryPeriod": 0.5}
MODES = ["standby", "sharded"]


@asynccontextmanager
async def installed(
    mode: str, pair: tuple[Cluster, Cluster], tmp_path: Path, names: tuple[str, ...] = ("r0", "r1", "r2")
) -> AsyncIterator[Installation]:
    """Beta is the hub, alpha is managed."""
    await bind_admins(pair)
    await forget_installations(pair[1])
    async with Installation(tmp_path / mode, pair[1], mode, names, leases=QUICK) as made:
        yield made


@pytest.mark.parametrize("mode", MODES)
async def test_every_replica_serves_every_user(mode: str, clusters: tuple[Cluster, Cluster], tmp_path: Path) -> None:
    alpha = clusters[0]
    await create_pod(alpha, "anyone")
    async with installed(mode, clusters, tmp_path) as made:
        await made.start_agent(alpha)
        for replica in made.replicas.values():
            kubeconfig = replica.kubeconfig("alpha")
            found = await alpha.kubectl("get", "pods", "-o", "name", kubeconfig=kubeconfig)
            assert "pod/anyone" in found.check().out
            ran = await alpha.kubectl("exec", "anyone", "--", "echo", "hello", kubeconfig=kubeconfig)
            assert ran.check().out == "hello"
            large = await alpha.kubectl(
                "exec", "-i", "anyone", "--", "cat", kubeconfig=kubeconfig, input=b"x" * 3_000_000
            )
            assert len(large.check().stdout) == 3_000_000
    await delete_pod(alpha, "anyone")


@pytest.mark.parametrize("mode", MODES)
async def test_the_holder_is_killed_and_another_takes_over_in_time(
    mode: str, clusters: tuple[Cluster, Cluster], tmp_path: Path
) -> None:
    alpha = clusters[0]
    async with installed(mode, clusters, tmp_path) as made:
        await made.start_agent(alpha)
        holder = await made.holder()
        assert holder in made.replicas
        before = await made.lease()
        await made.kill(holder)
        began = time.monotonic()

        async def served() -> bool:
            found = await alpha.kubectl("get", "namespaces", kubeconfig=made.kubeconfig("alpha"), timeout=10)
            return found.returncode == 0

        await until(served, "another replica to serve", 20.0)
        assert time.monotonic() - began < QUICK["duration"] + 3.0
        if mode == "standby":
            after = await made.lease()
            assert after["holderIdentity"] not in ("", holder)
            assert after["leaseTransitions"] == before["leaseTransitions"] + 1


async def test_a_standby_is_ready_and_tells_the_lease_as_kubectl_shows_it(
    clusters: tuple[Cluster, Cluster], tmp_path: Path
) -> None:
    async with installed("standby", clusters, tmp_path, ("r0", "r1")) as made:
        shown = await clusters[1].kubectl("get", "leases", "-n", NAMESPACE)
        assert "kulvert" in shown.check().out
        spec = await made.lease()
        assert spec["leaseDurationSeconds"] == QUICK["duration"]
        for replica in made.replicas.values():
            ready = await clusters[1].kubectl("get", "--raw", "/readyz?verbose", kubeconfig=replica.kubeconfig("x"))
            assert ready.returncode, "the path is below a cluster that does not exist"


@pytest.mark.parametrize("mode", MODES)
async def test_an_orderly_end_of_the_holder_is_hardly_noticed(
    mode: str, clusters: tuple[Cluster, Cluster], tmp_path: Path
) -> None:
    alpha = clusters[0]
    async with installed(mode, clusters, tmp_path) as made:
        await made.start_agent(alpha)
        holder = await made.holder()
        failures: list[str] = []
        stop = asyncio.Event()

        async def ask() -> None:
            while not stop.is_set():
                found = await alpha.kubectl("get", "namespaces", kubeconfig=made.kubeconfig("alpha"), timeout=15)
                if found.returncode:
                    failures.append(found.err)

        asking = asyncio.create_task(ask())
        await asyncio.sleep(1.0)
        await made.replicas[holder].stop_server()
        await asyncio.sleep(3.0)
        stop.set()
        await asking
        assert not failures

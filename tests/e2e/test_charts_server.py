"""The server's chart and the real program: its settings, its account and nothing else, on a real hub."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.replicas.podlabel import LABEL
from tests.charts.cases import CHARTS
from tests.charts.helm import Helm
from tests.support.cluster import Cluster
from tests.support.cluster_api import until
from tests.support.cluster_helpers import service_account_token, token_kubeconfig
from tests.support.platform import PROGRAM, Platform
from tests.support.processes import Port, Process, stop
from tests.support.releases import Release, releasing

LEASES = "/apis/coordination.k8s.io/v1/namespaces"


class Replica:
    """`kulvert serve` as it runs in one of the chart's pods, but for addresses, paths and the way to the hub."""

    def __init__(self, release: Release, pod: str, directory: Path, hub: Path) -> None:
        self._release = release
        self.name = pod
        self._directory = directory
        self._hub = hub
        self._ports = tuple(Port() for _ in range(3))
        self.process: Process | None = None

    async def start(self) -> None:
        """Returns when it is ready."""
        self._directory.mkdir()
        for name, key in (("kulvert", "server.yaml"), ("kulvert-access", "grants.yaml")):
            (self._directory / key).write_text((await self._release.get("configmap", name))["data"][key])
        command: list[str | Path] = [
            PROGRAM,
            "serve",
            "--config",
            self._directory / "server.yaml",
            "--log-format",
            "json",
        ]
        self.process = Process(self.name, command, self._directory / "log", self._environment())
        await until(self._ready, f"{self.name} to be ready")

    async def end(self) -> None:
        """In order."""
        if self.process is not None:
            await stop([self.process], 15)
        for port in self._ports:
            port.release()

    @property
    def refusals(self) -> list[str]:
        """What the hub has not let it do."""
        assert self.process is not None
        lines = self.process.log.read_text(errors="replace").splitlines()
        return [line for line in lines if re.search(r"forbidden|\b403\b", line, re.IGNORECASE)]

    async def has_label(self) -> bool:
        """Whether its pod is the one that the agents' Service leads to."""
        labels = (await self._release.get("pod", self.name))["metadata"]["labels"]
        return bool(labels.get(LABEL) == "true")

    async def _ready(self) -> bool:
        assert self.process is not None
        assert self.process.exited is None, self.process.tail(30)
        return "ready: " in self.process.log.read_text(errors="replace")

    def _environment(self) -> dict[str, str]:
        users, agents, peers = (f"127.0.0.1:{port.number}" for port in self._ports)
        return {
            "PATH": os.defpath, "HOME": str(self._directory), "POD_NAME": self.name, "POD_IP": "127.0.0.1",
            "KULVERT_LISTEN": users, "KULVERT_AGENTS_LISTEN": agents, "KULVERT_REPLICAS_PEERS_LISTEN": peers,
            "KULVERT_STATE_DIR": str(self._directory / "state"), "KULVERT_TIMEOUTS_DRAIN": "1",
            "KULVERT_GRANTS": str(self._directory / "grants.yaml"),
            "KULVERT_HUB_IN_CLUSTER": "false", "KULVERT_HUB_KUBECONFIG": str(self._hub),
        }  # fmt: skip


@asynccontextmanager
async def replicas(
    mode: str, platform: Platform, cluster: Cluster, helm: Helm, directory: Path
) -> AsyncIterator[tuple[Release, Replica, Replica]]:
    """The chart's two pods, and for each the program that would be in it."""
    async with releasing(helm, cluster, platform.kubeconfig(cluster.name), f"server-{mode}") as release:
        values = ("--set", f"mode={mode}")
        await release.helm("install", "kulvert", CHARTS / "kulvert", *values, "--wait", "--timeout", "60s")
        token = await service_account_token(cluster, release.namespace, "kulvert")
        hub = await token_kubeconfig(cluster, token, f"charted-{mode}.kubeconfig")
        pods = (await cluster.api.get(f"/api/v1/namespaces/{release.namespace}/pods"))["items"]
        names = [pod["metadata"]["name"] for pod in pods]
        first, second = (Replica(release, name, directory / name, hub) for name in names)
        try:
            yield release, first, second
        finally:
            for one in (first, second):
                await one.end()
            await release.helm("uninstall", "kulvert")


@pytest.fixture
def helm(testbed: Path, tmp_path: Path) -> Helm:
    return Helm(testbed / "helm", tmp_path)


async def test_standbys_hand_over_with_the_rights_of_the_chart_alone(
    platform: Platform, cluster_a: Cluster, helm: Helm, tmp_path: Path
) -> None:
    async with replicas("standby", platform, cluster_a, helm, tmp_path) as (release, first, second):
        await first.start()
        await cluster_a.wait_for(first.has_label, "the first replica's pod to be the active one")
        await second.start()
        assert not await second.has_label()
        await first.end()
        await cluster_a.wait_for(second.has_label, "the second one to take over")
        lease = await cluster_a.api.get(f"{LEASES}/{release.namespace}/leases/kulvert")
        assert lease["spec"]["holderIdentity"] == second.name
        assert (first.refusals, second.refusals) == ([], [])


async def test_shards_are_shared_out_with_the_rights_of_the_chart_alone(
    platform: Platform, cluster_a: Cluster, helm: Helm, tmp_path: Path
) -> None:
    async with replicas("sharded", platform, cluster_a, helm, tmp_path) as (release, first, second):
        await first.start()
        await second.start()

        async def both_hold() -> bool:
            leases = (await cluster_a.api.get(f"{LEASES}/{release.namespace}/leases"))["items"]
            shards = [one for one in leases if one["metadata"]["name"].startswith("kulvert-shard-")]
            return {one["spec"].get("holderIdentity") for one in shards} == {first.name, second.name}

        await cluster_a.wait_for(both_hold, "both replicas to hold shards", 40)
        assert (first.refusals, second.refusals) == ([], [])

"""The holder alone loses its way to the hub: its agents and users go to the replica that takes over."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from tests.e2e.conftest import _bind as bind_admins
from tests.support.cluster import Cluster
from tests.support.cluster_api import until
from tests.support.cuttable import Cuttable
from tests.support.installation import Installation, forget_installations

QUICK = {"duration": 4, "renewDeadline": 3, "retryPeriod": 0.5}
NAMES = ("r0", "r1")


class Separately(Installation):
    """Each replica reaches the hub by a way of its own."""

    def __init__(self, directory: Path, hub: Cluster, mode: str, ways: Mapping[str, Cuttable]) -> None:
        self._ways = ways
        super().__init__(directory, hub, mode, NAMES, leases=QUICK)

    def _settings(self, name: str, mode: str, leases: Mapping[str, Any]) -> dict[str, Any]:
        settings = super()._settings(name, mode, leases)
        document = yaml.safe_load(self.hub.admin_kubeconfig.read_text())
        own = {"server": f"https://127.0.0.1:{self._ways[name].port}", "tls-server-name": "localhost"}
        document["clusters"][0]["cluster"] |= own
        path = self.directory / f"{name}.hub.kubeconfig"
        path.write_text(yaml.safe_dump(document))
        return settings | {"hub": {**settings["hub"], "kubeconfig": str(path)}}

    async def readiness(self, name: str) -> tuple[int, str]:
        """As a balancer sees it."""
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{self.replicas[name].url}/readyz", ssl=self.tls()) as answer,
        ):
            return answer.status, await answer.text()


@pytest.mark.parametrize("mode", ["standby", "sharded"])
async def test_a_holder_that_alone_is_cut_off_from_the_hub_lets_its_agents_go(
    mode: str, clusters: tuple[Cluster, Cluster], tmp_path: Path
) -> None:
    alpha, hub = clusters
    await bind_admins(clusters)
    await forget_installations(hub)
    async with AsyncExitStack() as stack:
        port = int(hub.server.rpartition(":")[2])
        ways = {name: await stack.enter_async_context(Cuttable(port)) for name in NAMES}
        made = await stack.enter_async_context(Separately(tmp_path / mode, hub, mode, ways))
        await made.start_agent(alpha)
        holder = await made.owner("alpha")
        (other,) = {*NAMES} - {holder}
        assert (await made.readiness(holder))[0] == 200
        ways[holder].freeze()
        began = time.monotonic()

        async def taken() -> bool:
            return await made.owner("alpha") == other

        async def served() -> bool:
            try:
                found = await alpha.kubectl("get", "namespaces", kubeconfig=made.kubeconfig("alpha"), timeout=10)
            except TimeoutError:  # it came to the one that is cut off
                return False
            return found.returncode == 0

        await until(taken, "the other replica to take the cluster", 30.0)
        await until(served, "the other replica to serve", 30.0)
        print(f"{mode}: served again after {time.monotonic() - began:.1f} s")
        status, text = await made.readiness(holder)
        assert status != 200, text
        assert (await made.readiness(other))[0] == 200
        ways[holder].thaw()

        async def ready() -> bool:
            return (await made.readiness(holder))[0] == 200

        await until(ready, "it to be ready again", 30.0)
        assert await served()

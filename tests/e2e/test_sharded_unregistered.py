"""Several replicas that register nothing at the hub: the leader knows of clusters elsewhere by asking."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.conftest import _bind as bind_admins
from tests.e2e.test_sharded_management import QUICK, Scene, held
from tests.support.cluster import Cluster
from tests.support.cluster_api import until
from tests.support.installation import Installation, forget_installations


async def test_without_registration_conditions_are_asked_for(clusters: tuple[Cluster, Cluster], tmp_path: Path) -> None:
    """There are no heartbeats' Leases then."""
    alpha, hub = clusters
    await bind_admins(clusters)
    await forget_installations(hub)
    settings = {"hub": {"kubeconfig": str(hub.admin_kubeconfig), "clusters": False}}
    async with Installation(tmp_path / "made", hub, "sharded", ("r0", "r1"), leases=QUICK, settings=settings) as made:
        scene = Scene(made, alpha)
        await until(lambda: held(made), "all shards to be held", 20.0)
        name, holder = await scene.held_by("asked", leads=False)
        await scene.attach(name)

        async def available() -> bool:
            return await scene.condition(holder, name) == "True"

        await until(available, "the cluster to be available", 10.0)
        await made.first.stop_agent(name)

        async def unavailable() -> bool:
            return await scene.condition(holder, name) == "False"

        await until(unavailable, "the cluster not to be available", 45.0)

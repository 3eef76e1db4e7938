"""Several replicas of a server as one installation: real processes, a real hub, and a balancer as a Service is one."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import ssl
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from gateway.replicas.settings import STANDBY
from stub.leases.rendezvous import shard_of
from stub.leases.settings import LeaseSettings
from tests.support.cluster import Cluster
from tests.support.cluster_api import until
from tests.support.platform import ADMINS, Platform
from tests.support.processes import Port, Process, stop

CHARTS = Path(__file__).parents[2] / "charts"
NAMESPACE = "kulvert-hub"
CRD = "crd/managedclusters.cluster.open-cluster-management.io"


async def prepare_hub(hub: Cluster) -> None:
    """What an installation needs there. Harmless when it was done before."""
    for name in ("crds", "crds-without-ocm"):
        (await hub.kubectl("apply", "--server-side", "--force-conflicts", "-f", CHARTS / name)).check()
    (await hub.kubectl("wait", "--for=condition=Established", CRD, "--timeout=20s")).check()
    if (await hub.kubectl("get", "namespace", NAMESPACE)).returncode:
        (await hub.kubectl("create", "namespace", NAMESPACE)).check()


async def forget_installations(hub: Cluster) -> None:
    """What an earlier test's installation left at the hub: its server is gone, so nobody would end its removals."""
    kind = "managedclusters.cluster.open-cluster-management.io"
    for name in (await hub.kubectl("get", kind, "-o", "name")).out.split():
        await hub.kubectl("patch", name, "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
    await hub.kubectl("delete", kind, "--all", "--timeout=10s")
    await hub.kubectl("delete", "namespace", NAMESPACE, "--wait", timeout=60)


class Installation:
    """Replicas by name. An async context; agents are started with the first replica's help, and reach all."""

    def __init__(
        self,
        directory: Path,
        hub: Cluster,
        mode: str,
        names: tuple[str, ...] = ("r0", "r1", "r2"),
        *,
        leases: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.hub = hub
        self.mode = mode
        self.shards = int((leases or {}).get("shards", LeaseSettings().shards))
        self._ports = {name: Port() for name in names}
        self._front = (Port(), Port())
        self._balancers: list[Process] = []
        self.replicas = {
            name: self._replica(name, self._settings(name, mode, leases or {}) | dict(settings or {})) for name in names
        }

    def _replica(self, name: str, settings: Mapping[str, Any]) -> Platform:
        return Platform(self.directory / name, (ADMINS,), settings=settings)

    def _settings(self, name: str, mode: str, leases: Mapping[str, Any]) -> dict[str, Any]:
        replicas = {
            "mode": mode,
            "identity": name,
            "namespace": NAMESPACE,
            "peersListen": f"{self.host(name)}:{self._ports[name].number}",
        }
        hub = {"kubeconfig": str(self.hub.admin_kubeconfig), "clusters": True}
        return {"replicas": replicas, "leases": dict(leases), "hub": hub}

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """All replicas, and the balancers before them."""
        await prepare_hub(self.hub)
        for replica in self.replicas.values():
            await replica.start_server()
        hosts = [(self.host(name), one) for name, one in self.replicas.items()]
        users = [f"{host}:{one.port}" for host, one in hosts]
        agents = [f"{host}:{one.agents_port}={host}:{one.port}" for host, one in hosts]
        for port, backends in zip(self._front, (users, agents), strict=True):
            self._balance(port.number, backends)
        await until(self._balanced, "the balancer to know who is ready", 15.0)

    def _balance(self, port: int, backends: list[str]) -> None:
        ca = self.first.state / "ca.crt"
        command = [sys.executable, "-m", "tests.support.balancer", str(port), str(ca), *backends]
        log = self.directory / f"balancer-{port}.log"
        env = dict(os.environ) | {"PYTHONPATH": str(Path(__file__).parents[2])}
        self._balancers.append(Process(f"balancer-{port}", command, log, env))

    async def _balanced(self) -> bool:
        kubeconfig = self.kubeconfig("nowhere")
        found = await self.hub.kubectl("get", "--raw", "/healthz", kubeconfig=kubeconfig)
        return "NotFound" in found.err or "knows no cluster" in found.err

    async def stop(self) -> None:
        """End everything, and leave nothing here."""
        await asyncio.gather(*(replica.stop() for replica in self.replicas.values()))
        await stop(self._balancers, 1.0)
        for port in (*self._ports.values(), *self._front):
            port.release()

    # ---

    def host(self, name: str) -> str:
        """Where a replica listens."""
        return "127.0.0.1"

    @property
    def first(self) -> Platform:
        """Any replica: keys are the same."""
        return next(iter(self.replicas.values()))

    @property
    def url(self) -> str:
        """Where users come in: the balancer."""
        return f"https://localhost:{self._front[0].number}"

    @property
    def agents_url(self) -> str:
        """Where agents come in: the balancer."""
        return f"https://localhost:{self._front[1].number}"

    def kubeconfig(self, cluster: str, user: str = "admin", **more: Any) -> Path:
        """A kubeconfig that reaches `cluster` through whichever replica takes it."""
        return self.first.kubeconfig(cluster, user, url=self.url, **more)

    async def start_agent(self, cluster: Cluster, name: str = "", **settings: Any) -> Process:
        """Attach a cluster; returns when it is attached."""
        return await self.first.start_agent(cluster, name, servers=[self.agents_url], **settings)

    async def attach(self, name: str, kubeconfig: Path, **settings: Any) -> Process:
        """Attach anything that a kubeconfig reaches; returns when it is attached."""
        return await self.first.attach(name, kubeconfig, servers=[self.agents_url], **settings)

    async def further_agents(self, cluster: str, count: int) -> list[str]:
        """More agents of a cluster that has one; gives the names of all, for `first.stop_agent` and `restart_agent`."""
        names = [f"{cluster}-{number}" for number in range(2, count + 2)]
        for name in names:
            await self.first.further_agent(cluster, name)
        return [cluster, *names]

    def tls(self, user: str = "admin") -> ssl.SSLContext:
        """Of a user who is an administrator, as an HTTP client needs it."""
        issued = self.first.certificate(user, ["kulvert:admins"])
        pair = self.directory / f"{user}.pem"
        pair.write_bytes(issued.certificate + issued.key)
        tls = ssl.create_default_context(cadata=self.first.ca.decode())
        tls.load_cert_chain(pair)
        return tls

    def replica_url(self, name: str, cluster: str) -> str:
        """A cluster by way of one replica."""
        return f"{self.replicas[name].url}/clusters/{cluster}"

    async def owner(self, cluster: str) -> str:
        """Who holds a cluster, by the Leases."""
        if self.mode == STANDBY:
            return await self.holder()
        lease = await self.lease(f"kulvert-shard-{shard_of(cluster, self.shards)}")
        return str(lease.get("holderIdentity") or "")

    async def kill(self, name: str) -> None:
        """A replica's process ends at once."""
        await self.replicas[name].stop_server(signal.SIGKILL)

    async def lease(self, name: str = "kulvert") -> dict[str, Any]:
        """The spec of a Lease, as kubectl shows it; empty where there is none."""
        found = await self.hub.kubectl("get", "lease", name, "-n", NAMESPACE, "-o", "json", "--ignore-not-found")
        return dict(json.loads(found.out)["spec"]) if found.out else {}

    async def holder(self) -> str:
        """Who leads, by the Lease."""
        return str((await self.lease()).get("holderIdentity") or "")

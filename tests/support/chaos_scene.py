"""What chaos happens to: three replicas, a hub, two clusters that record everything and a real one, two agents each.

Each replica, and the agents of each cluster, are in a network namespace of their own; users, the balancer and the hub
are outside, the hub with an address of its own. Without namespaces all are on loopback.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from auth.pki import CertificateAuthority, Issued
from tests.support.cluster import Cluster
from tests.support.cluster_api import until
from tests.support.cluster_helpers import agent_identity, create_pod, delete_pod
from tests.support.installation import Installation
from tests.support.netns import ROOT, Network
from tests.support.platform import ADMINS, PROGRAM, Platform
from tests.support.processes import Port, Process, stop

INSIDE = ROOT / "tests" / "support" / "inside"
REPLICAS = ("r0", "r1", "r2")
FAKES = ("fake-one", "fake-two")
REAL = "alpha"
CLUSTERS = (*FAKES, REAL)
AGENTS = 2
HERE = ("users", "hub", "real")
LEASES = {"duration": 4, "renewDeadline": 3, "retryPeriod": 0.5, "settle": 3}
"""Sharded has its own defaults, which are as quick."""
DAY = 86_400.0


class Patient(Platform):
    """Its users' certificates were good hours ago, and will be: clocks may be wrong."""

    def certificate(self, user: str, groups: Iterable[str] = (), lifetime: float = 3600.0) -> Issued:
        """See `Platform`."""
        return self.authority().issue_client(user, groups, time.time() - DAY / 4, DAY)

    def authority(self) -> CertificateAuthority:
        """Of users' certificates; made here, so that it is old enough, too."""
        return CertificateAuthority.load_or_create(self.state / "ca.pem", "kulvert", time.time() - DAY)


class Replicas(Installation):
    """An installation in a network."""

    def __init__(self, directory: Path, hub: Cluster, mode: str, network: Network, hub_kubeconfig: Path) -> None:
        self._network = network
        self._hub_kubeconfig = hub_kubeconfig
        super().__init__(directory, hub, mode, REPLICAS, leases=LEASES)

    def host(self, name: str) -> str:
        """See `Installation`."""
        return self._network.address(name)

    async def start(self) -> None:
        """See `Installation`."""
        first = self.first
        assert isinstance(first, Patient)
        first.authority()
        await super().start()

    def _share(self, name: str) -> None:
        """By way of the hub, and nothing else."""

    def _replica(self, name: str, settings: Mapping[str, Any]) -> Platform:
        directory = self.directory / name
        program: list[str | Path] = [*self._network.inside(name), PROGRAM]
        clock = self.directory / f"{name}.clock"
        clock.write_text("0")
        made = Patient(directory, (ADMINS,), program=program, env=inside(self.directory, name, clock))
        host = self.host(name)
        made.settings = {
            **settings,
            "hub": {**settings["hub"], "kubeconfig": str(self._hub_kubeconfig)},
            "listen": [f"{host}:{made.port}"],
            "agentsListen": [f"{host}:{made.agents_port}"],
            "names": sorted({"localhost", "127.0.0.1", *map(self.host, REPLICAS)}),
        }
        return made

    def replica_root(self, name: str) -> str:
        """One replica's own address."""
        return f"https://{self.host(name)}:{self.replicas[name].port}"

    def replica_url(self, name: str, cluster: str) -> str:
        """See `Installation`."""
        return f"{self.replica_root(name)}/clusters/{cluster}"

    def url_of(self, route: str, cluster: str) -> str:
        """By way of a replica, or (any other name) of the balancer."""
        return self.replica_url(route, cluster) if route in self.replicas else f"{self.url}/clusters/{cluster}"

    def set_clock(self, name: str, offset: float) -> None:
        """A replica's wall clock is wrong by so many seconds from now on."""
        (self.directory / f"{name}.clock").write_text(str(offset))


def inside(directory: Path, name: str, clock: Path | None = None) -> dict[str, str]:
    """The environment of a process that is watched from inside (tests/support/inside)."""
    env = {
        "PYTHONPATH": f"{INSIDE}:{ROOT}",
        "KULVERT_TEST_TAP": str(directory / f"{name}.tap"),
        "KULVERT_TEST_NAME": name,
    }
    return env | ({"KULVERT_TEST_CLOCK": str(clock)} if clock else {})


@dataclass
class Agent:
    """One agent's process, which is started again whenever it has ended, unless it is `held`."""

    name: str
    cluster: str
    command: list[str | Path]
    env: dict[str, str]
    directory: Path
    starts: int = 0
    held: bool = False
    process: Process | None = field(default=None, repr=False)

    def start(self) -> None:
        """Another process."""
        self.starts += 1
        log = self.directory / f"{self.name}.{self.starts}.log"
        self.process = Process(self.name, self.command, log, self.env)

    def look(self) -> None:
        """As a kubelet does."""
        if not self.held and (self.process is None or self.process.exited is not None):
            self.start()

    def logs(self) -> list[Path]:
        """Of all its lives."""
        return sorted(self.directory.glob(f"{self.name}.*.log"))


class Scene:
    """An async context. `real` is a cluster of the test bed called alpha with a pod alpha-demo, and `hub` another."""

    def __init__(self, directory: Path, hub: Cluster, real: Cluster, mode: str, *, plain: bool) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.hub = hub
        self.real = real
        self.mode = mode
        self.network = Network(directory, HERE, (*REPLICAS, *CLUSTERS), plain=plain)
        self.agents: dict[str, Agent] = {}
        self.installation: Replicas
        self._ports = [Port() for _ in range(2 + len(FAKES))]
        self._processes: list[Process] = []
        self._stack = AsyncExitStack()
        self._tasks: list[asyncio.Task[None]] = []
        self._lives: dict[str, int] = dict.fromkeys(REPLICAS, 1)

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()

    # --- its beginning and its end

    async def _start(self) -> None:
        await self._stack.enter_async_context(self.network)
        hub_kubeconfig = await self._outside(self.hub.admin_kubeconfig, "hub", self.hub.server, self._ports[0])
        self.installation = Replicas(self.directory / "i", self.hub, self.mode, self.network, hub_kubeconfig)
        await self._stack.enter_async_context(self.installation)
        await create_pod(self.real, f"{REAL}-demo")
        kubeconfigs = {REAL: await self._real_kubeconfig()}
        for name, port in zip(FAKES, self._ports[2:], strict=True):
            kubeconfigs[name] = await self._fake(name, port)
        for cluster, kubeconfig in kubeconfigs.items():
            for number in range(AGENTS):
                self._agent(cluster, number, kubeconfig)
        self._tasks.append(asyncio.create_task(self._supervise(), name="look after agents"))

    async def _stop(self) -> None:
        await delete_pod(self.real, f"{REAL}-demo")
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        ours = [one.process for one in self.agents.values() if one.process is not None] + self._processes
        for process in ours:
            process.send(signal.SIGCONT)
        await stop(ours, 2.0)
        await self._stack.aclose()
        for port in self._ports:
            port.release()

    async def _outside(self, kubeconfig: Path, name: str, server: str, port: Port) -> Path:
        """A kubeconfig that works from within the namespaces."""
        if self.network.plain:
            return kubeconfig
        where, number = self.network.address(name), str(port.number)
        target = server.rpartition("/")[2].split(":")
        await self._run(f"{name}-relay", ["-m", "tests.support.netrelay", where, number, *target], [])
        document = yaml.safe_load(kubeconfig.read_text())
        document["clusters"][0]["cluster"] |= {"server": f"https://{where}:{number}", "tls-server-name": "localhost"}
        path = self.directory / f"{name}.outside.kubeconfig"
        path.write_text(yaml.safe_dump(document))
        return path

    async def _real_kubeconfig(self) -> Path:
        identity = await agent_identity(self.real)
        document = yaml.safe_load(self.real.admin_kubeconfig.read_text())
        document["users"][0]["user"] = {"token": identity.token}
        path = self.directory / "real.kubeconfig"
        path.write_text(yaml.safe_dump(document))
        return await self._outside(path, "real", self.real.server, self._ports[1])

    async def _fake(self, name: str, port: Port) -> Path:
        now = time.time()
        authority = CertificateAuthority.create(name, now)
        issued = authority.issue_server(["127.0.0.1"], now, 86_400)
        chain = self.directory / f"{name}.pem"
        chain.write_bytes(issued.certificate + issued.key)
        record = self.directory / f"{name}.requests"
        command = ["-m", "tests.support.chaos_apiserver", name, str(chain), str(port.number), str(record)]
        await self._run(name, command, self.network.inside(name))
        path = self.directory / f"{name}.kubeconfig"
        path.write_text(json.dumps(_kubeconfig(port.number, authority.certificate_pem)))
        return path

    async def _run(self, name: str, command: list[str], where: list[str]) -> None:
        env = {"PATH": os.environ.get("PATH", os.defpath), "PYTHONPATH": str(ROOT)}
        process = Process(name, [*where, sys.executable, *command], self.directory / f"{name}.log", env)
        self._processes.append(process)

        async def said() -> bool:
            assert process.exited is None, process.tail()
            return "ready: " in process.log.read_text()

        await until(said, f"{name} to be ready", 15.0)

    def _agent(self, cluster: str, number: int, kubeconfig: Path) -> None:
        name = f"{cluster}-{number}"
        first = self.installation.first
        token = self.directory / f"{name}.token"
        token.write_text(first.join_token(cluster))
        servers = [
            f"https://{self.network.address(one)}:{replica.agents_port}"
            for one, replica in self.installation.replicas.items()
        ]
        turn = (number + CLUSTERS.index(cluster)) % len(servers)
        document = {
            "servers": servers[turn:] + servers[:turn],
            "cluster": cluster,
            "joinTokenFile": str(token),
            "caFile": str(first.state / "ca.crt"),
            "kubeconfig": str(kubeconfig),
            "agent": name,
            "stateDir": str(self.directory / f"{name}.state"),
        }
        config = self.directory / f"{name}.yaml"
        config.write_text(yaml.safe_dump(document))
        env = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(self.directory)}
        command: list[str | Path] = [
            *self.network.inside(cluster),
            PROGRAM,
            "agent",
            "--config",
            config,
            "--log-format",
            "json",
        ]
        made = Agent(name, cluster, command, env | inside(self.directory, name), self.directory)
        self.agents[name] = made
        made.start()

    async def _supervise(self) -> None:
        while True:
            await asyncio.sleep(0.5)
            for agent in self.agents.values():
                agent.look()

    # --- what may be done to it

    def process(self, name: str) -> Process:
        """A replica's or an agent's."""
        if name in self.agents:
            found = self.agents[name].process
            assert found is not None
            return found
        return self.installation.replicas[name].server()

    async def kill(self, name: str) -> None:
        """kill -9, and nobody starts it again for now."""
        if name in self.agents:
            self.agents[name].held = True
            self.process(name).kill()
            return
        await self.installation.replicas[name].stop_server(signal.SIGKILL)
        log = self.installation.replicas[name].server_log
        log.rename(log.with_name(f"server.{self._lives[name]}.log"))
        self._lives[name] += 1

    async def restart(self, name: str) -> None:
        """Start what was killed; a replica that cannot begin (its hub is away) is started again until it can."""
        if name in self.agents:
            self.agents[name].held = False
            self.agents[name].look()
            return
        replica = self.installation.replicas[name]
        while True:
            try:
                await replica.start_server()
            except AssertionError:
                if replica.server().exited is None:
                    break
                await asyncio.sleep(1.0)
                log = replica.server_log
                log.rename(log.with_name(f"server.{self._lives[name]}.log"))
                self._lives[name] += 1
            else:
                break

    # --- what it is like

    def logs(self) -> list[Path]:
        """Of all lives of all replicas and agents."""
        found = [path for name in REPLICAS for path in (self.directory / "i" / name).glob("server*.log")]
        return found + [path for agent in self.agents.values() for path in agent.logs()]


def _kubeconfig(port: int, ca: bytes) -> dict[str, Any]:
    cluster = {"server": f"https://127.0.0.1:{port}", "certificate-authority-data": base64.b64encode(ca).decode()}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "it",
        "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
        "clusters": [{"name": "it", "cluster": cluster}],
        "users": [{"name": "it", "user": {"token": "a-token-of-nobody"}}],
    }

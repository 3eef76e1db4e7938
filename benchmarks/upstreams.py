"""The API servers that are measured: the static one, the embedded sample, and the real one of the test bed."""

from __future__ import annotations

import asyncio
import os
import ssl
import sys
import time
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import yaml

from auth.pki import CertificateAuthority
from tests.support.cluster import Cluster
from tests.support.cluster_api import until
from tests.support.cluster_helpers import agent_identity, bind, create_pod, token_kubeconfig
from tests.support.processes import Port, Process, stop
from tests.testbed.place import locate

POD = "/api/v1/namespaces/default/pods/demo"


@dataclass(frozen=True, slots=True)
class Upstream:
    """One API server. `kubeconfig` is the agent's; the direct way uses the same credential, with impersonation."""

    name: str
    url: str
    kubeconfig: Path
    ca: str = field(repr=False)
    headers: tuple[str, ...] = field(repr=False)

    @property
    def tls(self) -> ssl.SSLContext:
        """Verifies its certificate."""
        return ssl.create_default_context(cadata=self.ca)


def _impersonating(token: str) -> tuple[str, ...]:
    return (f"Authorization: Bearer {token}", "Impersonate-User: admin", "Impersonate-Group: kulvert:admins")


@asynccontextmanager
async def testbed(directory: Path) -> AsyncIterator[Upstream]:
    """A real kube-apiserver with one pod."""
    async with Cluster("testbed", locate(os.environ), directory) as cluster:
        identity = await agent_identity(cluster)
        await bind(cluster, "cluster-admin", group="kulvert:admins")
        await create_pod(cluster, "demo")
        kubeconfig = await token_kubeconfig(cluster, identity.token, "agent.kubeconfig")
        ca = cluster.ca_file.read_text()
        yield Upstream("testbed", cluster.server + POD, kubeconfig, ca, _impersonating(identity.token))


@asynccontextmanager
async def sample(directory: Path) -> AsyncIterator[Upstream]:
    """The embedded sample API server, as a process of its own."""
    token, kubeconfig, port = "benchmark-token", directory / "sample.kubeconfig", Port()
    command = [sys.executable, "-m", "cli.sample", "--port", str(port.number), "--token", token]
    process = _run("sample", [*command, "--kubeconfig", str(directory / "admin.kubeconfig")], directory)
    try:
        await _until_open(port.number, process)
        document = yaml.safe_load((directory / "admin.kubeconfig").read_text())
        document["users"][0]["user"] = {"token": token}
        kubeconfig.write_text(yaml.safe_dump(document))
        ca = _ca(document)
        url = f"https://127.0.0.1:{port.number}{POD}"
        yield Upstream("sample", url, kubeconfig, ca, _impersonating(token))
    finally:
        await stop([process])
        port.release()


@asynccontextmanager
async def static(directory: Path) -> AsyncIterator[Upstream]:
    """The cheapest upstream there is."""
    now, port = time.time(), Port()
    authority = CertificateAuthority.create("benchmark", now)
    issued = authority.issue_server(["127.0.0.1"], now, 86_400)
    chain = directory / "static.pem"
    chain.write_bytes(issued.certificate + issued.key)
    process = _run("static", [sys.executable, "-m", "benchmarks.static", str(chain), str(port.number)], directory)
    try:
        await _until_open(port.number, process)
        url, ca = f"https://127.0.0.1:{port.number}", authority.certificate_pem.decode()
        kubeconfig = _kubeconfig(directory / "static.kubeconfig", url, ca)
        yield Upstream("static", url + POD, kubeconfig, ca, _impersonating("benchmark-token"))
    finally:
        await stop([process])
        port.release()


@dataclass(frozen=True, slots=True)
class Floor:
    """Two bare splices in a row before an upstream."""

    url: str
    tls: ssl.SSLContext = field(repr=False)
    pids: tuple[int, int]


@asynccontextmanager
async def floor(upstream: Upstream, directory: Path) -> AsyncIterator[Floor]:
    """What any two Python processes would cost here."""
    now, ports = time.time(), (Port(), Port())
    authority = CertificateAuthority.create("floor", now)
    issued = authority.issue_server(["127.0.0.1"], now, 86_400)
    chain, ca, both = directory / "floor.pem", directory / "floor.ca", directory / "floor.both"
    chain.write_bytes(issued.certificate + issued.key)
    ca.write_bytes(authority.certificate_pem)
    both.write_text(upstream.ca)
    parts = urlsplit(upstream.url)
    legs = [(ports[0].number, ports[1].number, ca), (ports[1].number, parts.port, both)]
    module = [sys.executable, "-m", "benchmarks.splice", str(chain)]
    processes = [_run(f"splice{n}", [*module, *map(str, leg)], directory) for n, leg in enumerate(legs)]
    try:
        for port, process in zip(ports, processes, strict=True):
            await _until_open(port.number, process)
        url = f"https://127.0.0.1:{ports[0].number}{parts.path}"
        tls = ssl.create_default_context(cadata=authority.certificate_pem.decode())
        yield Floor(url, tls, (processes[0].pid, processes[1].pid))
    finally:
        await stop(processes)
        for port in ports:
            port.release()


UPSTREAMS = {"static": static, "sample": sample, "testbed": testbed}


def _run(name: str, command: list[str], directory: Path) -> Process:
    return Process(name, command, directory / f"{name}.log", dict(os.environ))


async def _until_open(port: int, process: Process) -> None:
    async def opened() -> bool:
        if process.exited is not None:
            raise RuntimeError(f"{process.name} ended:\n{process.tail()}")
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return False
        writer.close()
        return True

    await until(opened, f"{process.name} to listen")


def _ca(document: dict[str, object]) -> str:
    clusters = document["clusters"]
    assert isinstance(clusters, list)
    return b64decode(clusters[0]["cluster"]["certificate-authority-data"]).decode()


def _kubeconfig(path: Path, url: str, ca: str) -> Path:
    cluster = {"server": url, "certificate-authority-data": b64encode(ca.encode()).decode()}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "static",
        "contexts": [{"name": "static", "context": {"cluster": "static", "user": "agent"}}],
        "clusters": [{"name": "static", "cluster": cluster}],
        "users": [{"name": "agent", "user": {"token": "benchmark-token"}}],
    }
    path.write_text(yaml.safe_dump(document))
    return path

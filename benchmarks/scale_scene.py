"""What `benchmarks.scale` measures: a real `kulvert serve` with many clusters, and agents in a process of their own.

Clusters and their agents' certificates are written into the server's stores, by its own authority, before it starts:
that is what enrolments leave, without their time.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from agent.identityfile import AgentIdentity, key_pem, new_key
from auth import agentpki
from gateway.membership.agentcertificates import IssuedCertificate
from gateway.membership.cluster import Cluster
from gateway.membership.stores import Stores
from gateway.state import State
from tests.support.platform import Platform, Usage
from tests.support.processes import bound_to_us

DAY = 86_400.0
KIB = 1024


@dataclass(frozen=True, slots=True)
class Seed:
    """What the agents need, in one file that can be loaded by another process."""

    path: Path
    ca: str
    agents_port: int
    pems: tuple[str, ...]
    """Key and certificate of each."""

    def save(self) -> None:
        """To its file."""
        self.path.touch(mode=0o600)
        self.path.write_bytes(orjson.dumps({"ca": self.ca, "port": self.agents_port, "pems": self.pems}))

    @classmethod
    def load(cls, path: Path) -> Seed:
        """From its file."""
        found = orjson.loads(path.read_bytes())
        return cls(path, found["ca"], found["port"], tuple(found["pems"]))

    def name(self, number: int) -> str:
        """The cluster of an agent."""
        return cluster_name(number)

    def identity(self, number: int) -> AgentIdentity:
        """What an agent proves."""
        pem = self.pems[number]
        key = load_pem_private_key(pem.encode(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        chain = pem[pem.index("-----BEGIN CERTIFICATE") :]
        return AgentIdentity.of(key, chain, cluster_name(number), cluster_id(number))


def cluster_name(number: int) -> str:
    """Of the n-th cluster."""
    return f"edge-{number:05d}"


def cluster_id(number: int) -> str:
    """Of the n-th cluster."""
    return f"5ca1e000-0000-4000-8000-{number:012d}"


def seed(state: Path, clusters: int, agents: int) -> tuple[str, ...]:
    """Register `clusters`, accepted, the first `agents` with a certificate; gives those with their keys, as PEM."""
    now, authority = time.time(), State(state).agents_authority(time.time())
    keys = [new_key() for _ in range(agents)]
    issued = [
        agentpki.issue(authority, key.public_key(), cluster_name(n), cluster_id(n), now, 30 * DAY)
        for n, key in enumerate(keys)
    ]
    register(state / "clusters.db", range(clusters), now)
    stores = Stores.open(state / "clusters.db")
    try:
        with stores.registry.database.writing() as database:
            rows = [_row(n, one, keys[n], now) for n, one in enumerate(issued)]
            query = "INSERT INTO agent_certificate VALUES (?, ?, ?, ?, ?, ?, ?, NULL, '')"
            database.executemany(query, rows)
    finally:
        stores.close()
    return tuple(key_pem(key).decode() + one.pem for key, one in zip(keys, issued, strict=True))


def _row(number: int, one: agentpki.IssuedToAgent, key: ec.EllipticCurvePrivateKey, now: float) -> tuple[Any, ...]:
    fingerprint = agentpki.fingerprint(key.public_key())
    who = (cluster_name(number), cluster_id(number), f"agent-{number}")
    kept = IssuedCertificate(one.serial, *who, fingerprint, now, one.expires)
    return (kept.serial, kept.cluster, kept.cluster_id, kept.agent, kept.fingerprint, kept.issued, kept.expires)


def register(path: Path, numbers: range, now: float) -> None:
    """Accepted clusters, in one write."""
    stores = Stores.open(path)
    labels = (("env", "production"), ("region", "eu-west-1"), ("team", "platform"))
    try:
        with stores.registry.database.writing() as database:
            made = [Cluster(cluster_name(n), cluster_id(n), now, labels, now) for n in numbers]
            rows = [(one.name, one.uid, one.created, orjson.dumps(dict(labels)).decode(), now) for one in made]
            query = "INSERT INTO cluster (name, uid, created, labels, accepted) VALUES (?, ?, ?, ?, ?)"
            database.executemany(query, rows)
    finally:
        stores.close()


class Agents:
    """The process of the simulated agents. An async context."""

    def __init__(self, seed_file: Path) -> None:
        self._seed_file = seed_file
        self._process: asyncio.subprocess.Process
        self.pid = 0

    async def __aenter__(self) -> Self:
        argv = bound_to_us([sys.executable, "-m", "benchmarks.scale_agents", self._seed_file])
        pipe = asyncio.subprocess.PIPE
        self._process = await asyncio.create_subprocess_exec(*argv, stdin=pipe, stdout=pipe)
        self.pid = self._process.pid
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()

    async def tell(self, **order: Any) -> dict[str, Any]:
        """An order, and its answer."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(orjson.dumps(order) + b"\n")
        await stdin.drain()
        line = await stdout.readline()
        if not line:
            raise RuntimeError("the process of the simulated agents has ended")
        answer: dict[str, Any] = orjson.loads(line)
        return answer

    async def until(self, done: Callable[[dict[str, Any]], bool], timeout: float) -> float:
        """Wait for a state; gives the seconds that it took. Raises TimeoutError, with the state that was reached."""
        began = time.monotonic()
        while not done(state := await self.tell()):
            if time.monotonic() - began > timeout:
                raise TimeoutError(f"after {timeout:g} s the agents are at {state}")
            await asyncio.sleep(0.05)
        return time.monotonic() - began


class Scene:
    """A server whose stores know all clusters, and its agents, none of them started. An async context."""

    def __init__(self, directory: Path, clusters: int, agents: int) -> None:
        self._counts = clusters, agents
        self._stack = AsyncExitStack()
        self.directory = directory
        self.platform = Platform(directory / "platform")
        self.agents: Agents
        self.seeded = 0.0

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            began = time.monotonic()
            pems = seed(self.platform.state, *self._counts)
            self.seeded = time.monotonic() - began
            await stack.enter_async_context(self.platform)
            known = Seed(self.directory / "agents.json", self.platform.ca.decode(), self.platform.agents_port, pems)
            known.save()
            self.agents = await stack.enter_async_context(Agents(known.path))
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    def usage(self) -> Usage:
        """The server's, its CPU by the scheduler's own count: the usual one is in hundredths of a second."""
        pid = self.platform.server().pid
        threads = [path.read_text().split()[0] for path in Path(f"/proc/{pid}/task").glob("*/schedstat")]
        return replace(Usage.of(pid), cpu=sum(map(int, threads)) / 1e9)

    async def restart(self) -> float:
        """kill -9 and a new start; gives the seconds until the server is ready."""
        await self.platform.stop_server(signal.SIGKILL)
        began = time.monotonic()
        await self.platform.start_server()
        return time.monotonic() - began

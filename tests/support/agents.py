"""Several agents of one cluster, as its Deployment runs them: each a process with a name and a state of its own."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import yaml

from tests.support.cluster import Cluster
from tests.support.cluster_api import until
from tests.support.cluster_helpers import agent_identity, token_kubeconfig
from tests.support.https import Answer, Broken, Https, User
from tests.support.platform import Platform
from tests.support.processes import Process


@dataclass
class Agents:
    """Those of one cluster. `settings` are of each agent's configuration."""

    platform: Platform
    cluster: Cluster
    settings: dict[str, Any] = field(default_factory=dict)
    processes: dict[str, Process] = field(default_factory=dict)

    async def start(self, *names: str) -> None:
        """Start them, and wait until each is attached."""
        for name in names:
            self.processes[name] = self.platform.run_agent(name, await self._configure(name))
        for name in names:
            await until(lambda name=name: self._attached(name), f"{name} to be attached", 15)  # type: ignore[misc]

    async def _attached(self, name: str) -> bool:
        process = self.processes[name]
        assert process.exited is None, process.tail(30)
        return '"attached"' in process.log.read_text(errors="replace")

    async def _configure(self, name: str) -> Any:
        platform, cluster = self.platform, self.cluster
        identity = await agent_identity(cluster)
        kubeconfig = await token_kubeconfig(cluster, identity.token, f"{name}.kubeconfig")
        token = platform.directory / f"{name}.token"
        token.write_text(platform.join_token(cluster.name))
        document = {
            "servers": [f"https://localhost:{platform.agents_port}"],
            "cluster": cluster.name,
            "joinTokenFile": str(token),
            "caFile": str(platform.state / "ca.crt"),
            "kubeconfig": str(kubeconfig),
            "agent": name,
            "stateDir": str(platform.directory / f"{name}.agent"),
        }
        path = platform.directory / f"{name}.yaml"
        path.write_text(yaml.safe_dump(document | self.settings))
        return path

    def send(self, name: str, signal_number: int) -> None:
        """A signal for one of them."""
        self.processes[name].send(signal_number)

    async def stop(self) -> None:
        """End those that are left, at once."""
        for name, process in self.processes.items():
            process.send(signal.SIGCONT)
            await self.platform.stop_agent(name, signal.SIGKILL)

    def served(self, prefix: str = "") -> Counter[str]:
        """How many requests each has completed, by the audit log; `prefix` is of their paths."""
        found: Counter[str] = Counter()
        for event in self.platform.audit():
            if event["stage"] == "ResponseComplete" and event["requestURI"].startswith(prefix):
                found[event["annotations"].get("kulvert.dev/agent", "")] += 1
        return found


@dataclass
class Load:
    """Requests without a pause, by as many connections; what went wrong, and how long the slowest took."""

    done: int = 0
    failures: list[Answer | Exception] = field(default_factory=list)
    slowest: float = 0.0

    def told(self, answer: Answer) -> None:
        """One more."""
        self.done += 1
        self.slowest = max(self.slowest, answer.seconds)
        if answer.status not in (200, 201):
            self.failures.append(answer)

    @asynccontextmanager
    async def by(self, user: User, connections: int, ask: Callable[[Https], Awaitable[Answer]]) -> AsyncIterator[Load]:
        """Goes on until the block's end."""
        stop = asyncio.Event()

        async def one() -> None:
            while not stop.is_set():
                connection = await user.connect()
                async with connection:
                    with suppress(_Closed):
                        await self._on(connection, ask, stop)

        async with asyncio.TaskGroup() as group:
            for number in range(connections):
                group.create_task(one(), name=f"load {number}")
            try:
                yield self
            finally:
                stop.set()

    async def _on(self, connection: Https, ask: Callable[[Https], Awaitable[Answer]], stop: asyncio.Event) -> None:
        while not stop.is_set():
            try:
                answer = await ask(connection)
            except (Broken, TimeoutError) as error:
                self.failures.append(error)
                raise _Closed from None
            self.told(answer)
            if answer.headers.get("connection") == "close":
                raise _Closed


class _Closed(Exception):
    """This connection is used no more."""


async def some(user: User, connections: int, count: int, ask: Callable[[Https], Awaitable[Answer]]) -> float:
    """So many requests, all of which succeed; gives the seconds they took."""
    left = iter(range(count))

    async def one() -> None:
        async with await user.connect() as connection:
            for _ in left:
                assert (await ask(connection)).status == 200

    began = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for number in range(connections):
            group.create_task(one(), name=f"client {number}")
    return time.monotonic() - began

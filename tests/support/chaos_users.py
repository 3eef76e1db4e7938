"""Users who go on whatever happens, and remember what they were told.

Every request has an id, `CLUSTER-USER-NUMBER`, in its target: what a user was told, what stubs and agents did and what
the API server got are compared by it.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.cluster import Cluster
from tests.support.kubectl import Running as Kubectl
from tests.support.loadclient import Client, Failed, Line

PATIENCE = 20.0
PAUSE = 0.3


@dataclass
class Told:
    """What all users have seen."""

    wrong: list[str] = field(default_factory=list)
    """Answers of another cluster, or for another request."""
    made: set[str] = field(default_factory=set)
    """Ids of writes that were answered with success."""
    tried: set[str] = field(default_factory=set)
    failures: Counter[str] = field(default_factory=Counter)
    successes: Counter[str] = field(default_factory=Counter)

    def failed(self, what: str, why: str) -> None:
        """Shortened, so that the like is counted together."""
        self.failures[f"{what}: {why[:60]}"] += 1


class User:
    """One loop, until it is stopped."""

    def __init__(self, name: str, told: Told) -> None:
        self.name = name
        self.told = told
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self.run(), name=self.name)

    async def stop(self) -> None:
        """End at once. Raises what went wrong within."""
        if self._task is not None:
            self._task.cancel()
            done = await asyncio.gather(self._task, return_exceptions=True)
            if isinstance(done[0], Exception):
                raise done[0]

    async def run(self) -> None:
        """For ever."""
        raise NotImplementedError


class Asking(User):
    """Reads and writes by one route, from one cluster after another."""

    def __init__(
        self, name: str, urls: dict[str, str], tls: ssl.SSLContext, told: Told, *, write: bool, every: float = PAUSE
    ) -> None:
        super().__init__(name, told)
        self._clients = {cluster: Client(url, tls, patience=PATIENCE) for cluster, url in urls.items()}
        self._write = write
        self._every = every

    async def run(self) -> None:
        """See `User`."""
        number = 0
        try:
            while True:
                for cluster, client in self._clients.items():
                    number += 1
                    await self._one(client, cluster, f"{cluster}-{self.name}-{number}")
                    await asyncio.sleep(self._every)
        finally:
            for client in self._clients.values():
                client.close()

    async def _one(self, client: Client, cluster: str, key: str) -> None:
        what = "write" if self._write else "read"
        path = "/api/v1/namespaces/default/configmaps"
        try:
            if self._write:
                self.told.tried.add(key)
                answer = await client.ask("POST", f"{path}?fieldManager={key}", b'{"kind":"ConfigMap"}')
            else:
                answer = await client.ask("GET", f"{path}/{key}")
        except Failed as failed:
            self.told.failed(what, str(failed))
            return
        if answer.status not in (200, 201):
            self.told.failed(what, f"{answer.status} {_message(answer.body)}")
            return
        said = json.loads(answer.body)
        if said.get("cluster") != cluster or key not in said.get("target", ""):
            self.told.wrong.append(f"{key}: {said}")
            return
        self.told.successes[what] += 1
        if self._write:
            self.told.made.add(key)


def _message(body: bytes) -> str:
    try:
        return str(json.loads(body).get("message", ""))
    except ValueError:
        return body[:60].decode(errors="replace")


class Watching(User):
    """One watch by one route, begun again whenever it ends. Its API server says something each second."""

    def __init__(self, name: str, cluster: str, url: str, tls: ssl.SSLContext, told: Told) -> None:
        super().__init__(name, told)
        self._client = Client(url, tls, patience=PATIENCE)
        self._cluster = cluster
        self._number = 0
        self.last = time.monotonic()
        """When it heard something last, or was told clearly that it hears nothing."""
        self.ticked = 0.0
        """When it heard something last."""
        self.begun = 0.0

    async def run(self) -> None:
        """See `User`."""
        try:
            while True:
                await self._watch()
                self.last = time.monotonic()
                await asyncio.sleep(0.3)
        finally:
            self._client.close()

    async def _watch(self) -> None:
        self._number += 1
        key = f"{self._cluster}-{self.name}-{self._number}"
        try:
            async with asyncio.timeout(None) as patience:
                patience.reschedule(asyncio.get_running_loop().time() + PATIENCE)
                async with self._client.open("GET", f"/api/v1/namespaces/{key}/events?watch=1") as (status, _, line):
                    patience.reschedule(None)
                    await self._read(status, line)
        except Failed as failed:
            self.told.failed("watch cut", str(failed))
        except TimeoutError:
            self.told.failed("watch", f"no head within {PATIENCE:g} s")

    async def _read(self, status: int, line: Line) -> None:
        held = b""
        self.begun = time.monotonic()
        async for piece in line.pieces():
            self.last = time.monotonic()
            *whole, held = (held + piece).split(b"\n")
            if status != 200:
                continue
            for text in whole:
                self._heard(json.loads(text))
        self.told.failed("watch ended", str(status))

    def _heard(self, said: dict[str, dict[str, object]]) -> None:
        if "cluster" not in said["object"]:
            self.told.failed("watch ended", str(said["object"].get("message", "")))
            return
        if said["object"]["cluster"] != self._cluster:
            self.told.wrong.append(f"{self.name}: {said}")
        self.ticked = time.monotonic()
        self.told.successes["event"] += 1


class Running(User):
    """`kubectl exec -i … cat` again and again: each number comes back before the next is sent."""

    def __init__(self, name: str, cluster: Cluster, pod: str, kubeconfig: Path, told: Told) -> None:
        super().__init__(name, told)
        self._cluster = cluster
        self._command = ("exec", "-i", pod, "--", "cat")
        self._kubeconfig = kubeconfig
        self.last = self.ticked = self.begun = time.monotonic()

    async def run(self) -> None:
        """See `User`."""
        while True:
            await self._session()
            self.last = time.monotonic()
            await asyncio.sleep(1.0)

    async def _session(self) -> None:
        self.begun = time.monotonic()
        async with self._cluster.commands.running(*self._command, kubeconfig=self._kubeconfig) as running:
            number = 0
            while True:
                number += 1
                said = "" if running.stdin.is_closing() else await self._said(running, number)
                if not said:
                    self.told.failed("exec ended", "")
                    return
                if said != str(number):
                    self.told.wrong.append(f"{self.name}: {said!r} after {number - 1}")
                    return
                self.last = self.ticked = time.monotonic()
                self.told.successes["exec"] += 1
                await asyncio.sleep(0.2)

    @staticmethod
    async def _said(running: Kubectl, number: int) -> str:
        """What came back; empty where the session has ended."""
        try:
            running.stdin.write(b"%d\n" % number)
            await running.stdin.drain()
        except (OSError, RuntimeError):  # uvloop's word for a transport that is closed already
            return ""
        return await running.line(None)

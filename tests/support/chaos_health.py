"""Whether all is well again: everybody is served by every way, each agent is where its cluster's owner is, nothing is
left over.
"""

from __future__ import annotations

import asyncio
import os
import re
import ssl
import time
from collections import Counter, defaultdict
from dataclasses import dataclass

from tests.support.chaos_scene import AGENTS, CLUSTERS, REPLICAS, Scene
from tests.support.loadclient import Client, Failed
from tests.support.platform import Usage

_SAMPLE = re.compile(r'(kulvert_[a-z_]+)(?:\{cluster="([^"]*)"\})? ([0-9.e+-]+)')
_GAUGES = ("kulvert_agents", "kulvert_exchanges", "kulvert_own_links", "kulvert_requests_long_running",
           "kulvert_requests_in_flight", "kulvert_connections")  # fmt: skip
ROUTES = (*REPLICAS, "balancer")
MORE_FILES = 12
"""Descriptors that a process may have more than at the beginning: it may lead now, and keep warm links."""
MORE_MEMORY = 60 << 20
"""Bytes that it may have grown by, fragmentation and caches included."""


@dataclass(frozen=True, slots=True)
class Gauges:
    """Of one replica: by name and cluster (empty: of all)."""

    values: dict[tuple[str, str], float]

    def of(self, name: str) -> dict[str, float]:
        """By cluster."""
        return {cluster: value for (found, cluster), value in self.values.items() if found == name}

    def total(self, name: str) -> float:
        """All clusters'."""
        return sum(self.of(name).values())


class Health:
    """Asks a scene."""

    def __init__(self, scene: Scene, tls: ssl.SSLContext) -> None:
        self._scene = scene
        self._tls = tls

    async def well(self, since: float, patience: float) -> tuple[float, str]:
        """Seconds from `since` until everybody is served, and all agents are attached at their cluster's owner; and
        what was still wrong when the patience was over.
        """
        while wrong := await self._wrong():
            if time.monotonic() - since > patience:
                return time.monotonic() - since, wrong
            await asyncio.sleep(0.3)
        return time.monotonic() - since, ""

    async def _wrong(self) -> str:
        for agent in self._scene.agents.values():
            if agent.process is None or agent.process.exited is not None:
                return f"{agent.name} does not run"
        answers = await asyncio.gather(*(self._served(route, cluster) for route in ROUTES for cluster in CLUSTERS))
        if wrong := next((one for one in answers if one), ""):
            return wrong
        return await self._attached(only=False)

    async def _served(self, route: str, cluster: str) -> str:
        client = Client(self._scene.installation.url_of(route, cluster), self._tls, patience=3.0)
        try:
            answer = await client.ask("GET", f"/api/v1/namespaces/default/pods/{cluster}-demo")
        except Failed as failed:
            return f"{cluster} by {route}: {failed}"
        finally:
            client.close()
        return "" if answer.status == 200 else f"{cluster} by {route}: {answer.status} {answer.body[:300]!r}"

    async def _attached(self, *, only: bool) -> str:
        """Sessions that were handed over stay for as long as their streams do: `only` without those."""
        try:
            agents = {name: (await self.gauges(name)).of("kulvert_agents") for name in REPLICAS}
        except Failed as failed:
            return f"/metrics: {failed}"
        for cluster in CLUSTERS:
            at = {name: found[cluster] for name, found in agents.items() if found.get(cluster)}
            owner = await self._scene.installation.owner(cluster)
            if at.get(owner, 0) < AGENTS or (only and at != {owner: AGENTS}):
                return f"{cluster} is {owner or 'nobody'}'s, and its agents are at {at}"
        return ""

    async def gauges(self, name: str) -> Gauges:
        """What a replica's /metrics says. Raises Failed."""
        client = Client(self._scene.installation.replica_root(name), self._tls, patience=10.0)
        try:
            answer = await client.ask("GET", "/metrics")
        finally:
            client.close()
        found: dict[tuple[str, str], float] = {}
        for line in answer.body.decode().splitlines():
            if (sample := _SAMPLE.fullmatch(line)) and sample[1] in _GAUGES:
                found[sample[1], sample[2] or ""] = float(sample[3])
        return Gauges(found)

    # --- leaks

    def usage(self) -> dict[str, Usage]:
        """Of all replicas and agents, by name."""
        return {name: Usage.of(self._scene.process(name).pid) for name in (*REPLICAS, *self._scene.agents)}

    async def quiet(self, before: dict[str, Usage], patience: float) -> list[str]:
        """What is left over when nobody asks for anything, once it does not get less any more."""
        deadline = time.monotonic() + patience
        while wrong := [*await self._busy(), *self._grown(before)]:
            if time.monotonic() > deadline:
                return wrong
            await asyncio.sleep(0.5)
        return []

    async def _busy(self) -> list[str]:
        wrong = []
        for name in REPLICAS:
            try:
                gauges = await self.gauges(name)
            except Failed as failed:
                wrong.append(f"/metrics of {name}: {failed}")
                continue
            left = {
                "exchanges": gauges.total("kulvert_exchanges"),
                "streams": gauges.total("kulvert_requests_long_running"),
                "requests": gauges.total("kulvert_requests_in_flight") - 1,
                "connections": gauges.total("kulvert_connections") - 1,
            }
            if any(left.values()):
                wrong.append(f"{name} still has {left}")
        attached = await self._attached(only=True)
        return [*wrong, attached] if attached else wrong

    def _grown(self, before: dict[str, Usage]) -> list[str]:
        """A replica may be the leader now, and another was at the beginning: they are compared with the largest."""
        most: dict[str, tuple[int, int]] = defaultdict(lambda: (0, 0))
        for name, usage in before.items():
            files, memory = most[_kind(name)]
            most[_kind(name)] = max(files, usage.fds), max(memory, usage.rss)
        wrong = []
        for name, usage in self.usage().items():
            files, memory = most[_kind(name)]
            if usage.fds > files + MORE_FILES or usage.rss > memory + MORE_MEMORY:
                first = f"at first at most {files}, {memory >> 20} MB"
                kinds = _files(self._scene.process(name).pid)
                wrong.append(f"{name} has {usage.fds} descriptors, {usage.rss >> 20} MB; {first}: {kinds}")
        return wrong


def _kind(name: str) -> str:
    return "replica" if name in REPLICAS else "agent"


def _files(pid: int) -> dict[str, int]:
    found: Counter[str] = Counter()
    for number in os.listdir(f"/proc/{pid}/fd"):
        try:
            found[os.readlink(f"/proc/{pid}/fd/{number}").partition(":")[0]] += 1
        except OSError:
            continue
    return dict(found.most_common(5))

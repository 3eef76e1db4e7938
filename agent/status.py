"""What an agent says of its cluster: small, bounded, and the same for as long as nothing that counts has changed.

Health is what `agent.health` found last; version and nodes are read here, seldom: the nodes at most once a minute, and
never for more than a hundredth of the time, however many there are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import orjson
import structlog

from agent.health import HealthReport
from agent.nodes import NODES, Nodes, NoNodes, read_nodes
from agent.pool import UpstreamPool
from agent.question import ask
from tunnel.calls import Params
from tunnel.errors import ExchangeReset

log = structlog.get_logger("kulvert.agent")

VERSION: Final = b"/version"
CARRIAGE: Final = "websocket"
SHARE: Final = 100
"""Nodes are read again after this many times what the last reading took, at the earliest."""
_JITTER_MS: Final = 50
_MAX_MESSAGE: Final = 512


@dataclass(frozen=True, slots=True)
class AgentName:
    """Which agent speaks, and what it is."""

    name: str
    software: str


@dataclass(frozen=True, slots=True)
class StatusTiming:
    """Seconds: between readings of the version, of the nodes, after a failure, and for one answer."""

    version: float = 600.0
    nodes: float = 60.0
    retry: float = 30.0
    answer: float = 20.0


@dataclass(frozen=True, slots=True)
class Status:
    """One state of a cluster, as one agent sees it. `nodes` is None where the agent may not list them."""

    agent: AgentName
    health: HealthReport
    version: str = ""
    nodes: Nodes | None = None

    def params(self) -> Params:
        """As it is sent."""
        health, nodes = self.health, self.nodes
        message = "".join(one if one.isprintable() else " " for one in health.message[:_MAX_MESSAGE])
        made: Params = {
            "agent": {"name": self.agent.name, "software": self.agent.software, "carriage": CARRIAGE},
            "apiServer": {"ready": health.ready, "message": message, "roundTripMs": health.latency_ms},
            "kubernetes": self.version,
        }
        if nodes is not None:
            made["provider"] = nodes.provider
            made["nodes"] = {"count": nodes.count, "ready": nodes.ready}
            made["capacity"], made["allocatable"] = dict(nodes.capacity), dict(nodes.allocatable)
        return made

    def is_news_after(self, before: Status) -> bool:
        """Whether it is worth telling at once: a round trip is that from twice (or half) the time on."""
        same = replace(before.health, latency_ms=self.health.latency_ms)
        if replace(before, health=same) != self:
            return True
        low, high = sorted((before.health.latency_ms, self.health.latency_ms))
        return high > 2 * low and high - low > _JITTER_MS


class StatusReader:
    """`status` is what is known now; `look` reads what is old, and belongs into one task."""

    def __init__(
        self,
        agent: AgentName,
        questions: UpstreamPool,
        health: Callable[[], HealthReport | None],
        timing: StatusTiming,
    ) -> None:
        self._agent = agent
        self._questions = questions
        self._health = health
        self._timing = timing
        self._version, self._version_due = "", float("-inf")
        self._nodes: Nodes | None = None
        self._nodes_due = float("-inf")
        self._said = ""

    @property
    def status(self) -> Status | None:
        """None before the first answer of the API server, or its absence."""
        health = self._health()
        return Status(self._agent, health, self._version, self._nodes) if health is not None else None

    async def run(self, every: float = 1.0) -> None:
        """Until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(every)

    async def look(self) -> None:
        """Reads what is due. What cannot be read is what it was, and the reason is said once."""
        now = self._questions.now()
        try:
            if now >= self._version_due:
                self._version_due = now + self._timing.retry
                self._version = await self._read_version()
                self._version_due = now + self._timing.version
            if now >= self._nodes_due:
                self._nodes_due = now + self._timing.retry
                self._nodes = await read_nodes(self._questions, self._timing.answer)
                took = self._questions.now() - now
                self._nodes_due = now + max(self._timing.nodes, SHARE * took)
                self._say("" if self._nodes is not None else _MAY_NOT, log.info)
        except (ExchangeReset, NoNodes) as error:
            self._say(str(error), log.warning)

    async def _read_version(self) -> str:
        reply = await ask(self._questions, VERSION, self._timing.answer)
        try:
            found = orjson.loads(reply.body).get("gitVersion")
        except (orjson.JSONDecodeError, AttributeError):
            return ""
        return found[:64] if isinstance(found, str) and found.isprintable() else ""

    def _say(self, why: str, level: Callable[..., object]) -> None:
        if why and why != self._said:
            level("this cluster's status is reported in part", reason=why)
        self._said = why


_MAY_NOT: Final = f"nodes are left out, {NODES} is not for the agent: the ClusterRole kulvert-agent-status lets it"

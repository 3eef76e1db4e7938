"""A process of simulated agents for `benchmarks.scale`: real sessions over real TLS, no cluster behind them.

Each is the real agent's own loop (`agent.attach`) with its dialler, back-off, own links and certificate; only what
asks an API server is missing: GETs are answered here, by as many bytes as `?bytes=N` says. Told what to do by lines of
JSON on stdin, and says how far it is to each on stdout; the end of stdin ends it.
"""

from __future__ import annotations

import asyncio
import gc
import random
import secrets
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import orjson
import structlog
import uvloop

from agent.address import Address, Allowed
from agent.attach import Agent, Attaching, between_attempts
from agent.dial import Dialler, DialSettings
from agent.enrolment import Enrolment
from agent.health import HealthReport
from agent.heartbeat import Heartbeats, HeartbeatTiming
from agent.identityfile import AgentIdentity
from agent.nodes import Nodes
from agent.status import AgentName, Status
from agent.trust import Trust
from benchmarks.scale_scene import Seed, cluster_id
from gateway.rlimit import raise_descriptors
from tunnel.batch import Batch
from tunnel.ports import AgentExchange, Headers, RequestBlock, RequestSink, ResponseBlock

HEALTH = 15.0
"""Seconds between two health messages of an agent (`agent.health`)."""
SOFTWARE = "kulvert/benchmark"
NODES = Nodes(12, 12, "kwok", {"cpu": "96", "memory": "405Gi"}, {"cpu": "94", "memory": "390Gi"})
_HEADERS: Headers = [(b"content-type", b"application/json"), (b"audit-id", b"0")]


class _Member:
    """The part of `agent.membership.Membership` that attaching needs; its identity is there from the beginning."""

    doubted = False

    def failed(self) -> None:
        """A real agent would try without its certificate."""

    def announced(self, _bundle: str) -> None:
        """A real agent would trust it."""


class _Enrolled:
    """An `agent.enrolment.Enrolment` that has ended well."""

    def __init__(self, identity: AgentIdentity) -> None:
        self.membership = _Member()
        self._identity = identity

    async def ready(self, _target: object) -> AgentIdentity:
        """At once."""
        return self._identity


class _Answer:
    """The API server of all clusters: answers a GET when it has come, from within the input of the link."""

    def __init__(self, exchange: AgentExchange, head: RequestBlock) -> None:
        self._exchange = exchange
        _, _, size = head.target.partition(b"bytes=")
        body = bytes(int(size)) if size.isdigit() else b"{}"
        exchange.send_response(ResponseBlock(200, [*_HEADERS, (b"content-length", b"%d" % len(body))]))
        exchange.send_data(body)
        exchange.send_end()
        exchange.released()

    def on_data(self, data: bytes) -> None:
        """GETs have no body."""
        self._exchange.consumed(len(data))

    def on_end(self, trailers: Headers) -> None:
        """Nothing waits for it."""

    def on_reset(self, error: object) -> None:
        """Nothing is held."""

    def on_writable(self) -> None:
        """All of it was queued at once."""


def _answer(exchange: AgentExchange, head: RequestBlock) -> RequestSink:
    return cast(RequestSink, _Answer(exchange, head))


class Crowd:
    """The agents of this process, by number."""

    def __init__(self, seed: Seed, group: asyncio.TaskGroup) -> None:
        self._seed = seed
        self._group = group
        self._batch = Batch(asyncio.get_running_loop().call_soon)
        self._agents: dict[int, Agent] = {}
        self._tasks: dict[int, list[asyncio.Task[None]]] = {}

    def start(self, numbers: Sequence[int]) -> None:
        """Begin these agents; those that live are left alone."""
        for number in numbers:
            if number not in self._agents:
                agent = self._agents[number] = self._make(number)
                run = self._group.create_task(agent.run(), name=f"agent {number}")
                told = self._group.create_task(_tell_health(agent), name=f"health {number}")
                beats = self._group.create_task(_heartbeats(agent, number).run(), name=f"heartbeats {number}")
                self._tasks[number] = [run, told, beats]

    def stop(self, numbers: Sequence[int]) -> None:
        """End these agents, without a farewell."""
        for number in numbers:
            self._agents.pop(number, None)
            for task in self._tasks.pop(number, ()):
                task.cancel()

    def want(self, numbers: Sequence[int]) -> None:
        """What an exchange does that wants an own link: from then on the agents keep some warm."""
        for number in numbers:
            for session in self._agents[number].sessions:
                session.mux.on_links_wanted()

    def state(self) -> dict[str, Any]:
        """How many are attached, and with how many own links."""
        sessions = [session for agent in self._agents.values() for session in agent.sessions]
        attached = sum(agent.attached for agent in self._agents.values())
        return {"attached": attached, "own": sum(len(session.mux.own_links) for session in sessions)}

    def _make(self, number: int) -> Agent:
        seed = self._seed
        identity = seed.identity(number)
        address = Address.parse(f"127.0.0.1:{seed.agents_port}")
        tls = Trust(seed.ca, None).context(identity.pem())
        dialler = Dialler(DialSettings(Allowed((address,), ())), tls)
        setting = Attaching(
            cluster=seed.name(number),
            cluster_id=cluster_id(number),
            agent=f"agent-{number}",
            software=SOFTWARE,
            instance=secrets.token_hex(16),
        )
        enrolment = cast(Enrolment, _Enrolled(identity))
        return Agent(setting, enrolment, dialler, _answer, self._batch, between_attempts(random.random))


def _heartbeats(agent: Agent, number: int) -> Heartbeats:
    status = Status(AgentName(f"agent-{number}", SOFTWARE), HealthReport(True, "", 3), "v1.36.3", NODES)
    return Heartbeats(lambda: status, lambda: tuple(agent.sessions), random.random, HeartbeatTiming())


async def _tell_health(agent: Agent) -> None:
    await asyncio.sleep(HEALTH * random.random())
    while True:
        agent.tell_health(HealthReport(True, "", random.randrange(1, 9)))
        await asyncio.sleep(HEALTH)


async def _obey(crowd: Crowd) -> None:
    """One answer for each line, until stdin ends."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        order = orjson.loads(line)
        crowd.start(range(*order.get("start", (0, 0))))
        crowd.stop(range(*order.get("stop", (0, 0))))
        crowd.want(range(*order.get("want", (0, 0))))
        print(orjson.dumps(crowd.state() | {"cpu": time.process_time()}).decode(), flush=True)


async def _main(seed: Seed) -> None:
    try:
        async with asyncio.TaskGroup() as group:
            await _obey(Crowd(seed, group))
            raise _Ended
    except* _Ended:
        pass


class _Ended(Exception):
    """stdin has ended."""


def main() -> None:
    """`python -m benchmarks.scale_agents SEED`, which `benchmarks.scale_scene` writes."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("critical"))
    raise_descriptors()
    gc.disable()  # of thousands of agents at once it would take as long as a server waits for an answer
    uvloop.run(_main(Seed.load(Path(sys.argv[1]))))


if __name__ == "__main__":
    main()

"""The other replicas, composed: whose agents are asked for by whom, over real links."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from types import SimpleNamespace
from typing import Any, cast

from gateway.membership.heartbeats import Heartbeats
from gateway.replicas.exchange import NAME
from gateway.wiring.otherreplicas import OtherReplicas
from gateway.wiring.tasks import Tasks
from stub.ownership import Replica
from stub.sessions import ClusterState, Sessions
from tests.stub.peers.replicas import Server, two
from tests.support.attached import eventually
from tests.support.owners import Owners
from tunnel.calls import Params
from tunnel.ports import Exchange, RequestBlock, ResponseSink


class Agents:
    """Stands for stub.sessions.Sessions."""

    def __init__(self) -> None:
        self.sessions: list[Any] = []

    def of(self, cluster: str) -> list[Any]:
        return self.sessions if cluster == "edge" else []

    def all(self) -> list[Any]:
        return self.sessions

    def state(self, cluster: str) -> ClusterState:
        return ClusterState(len(self.of(cluster)), len(self.of(cluster)), 0, 0, "")


class Session:
    def __init__(self, uid: str, ready: bool = True) -> None:
        self.info = SimpleNamespace(cluster="edge", cluster_id=uid)
        self.health = SimpleNamespace(ready=ready)
        self.available = True

    async def call(self, method: str, params: Params, _timeout: float = 10.0) -> Params:
        return {"method": method, "ready": self.health.ready, **params}


class Long:
    """Everybody went long ago."""

    def last_connected(self, _cluster: str, _uid: str) -> float:
        return 0.0


class Side:
    """One replica."""

    def __init__(self, identity: str, other: str) -> None:
        self.owners = Owners(identity, Replica(other, "x:1"))
        self.agents = Agents()
        self.others: OtherReplicas

    async def start(self, server: Server, stack: AsyncExitStack, tasks: Tasks) -> None:
        clock, sessions = asyncio.get_running_loop().time, cast(Sessions, self.agents)
        self.others = OtherReplicas(self.owners.identity, self.owners, server.peers, sessions, clock, {})
        self.presence = self.others.presence(Long())
        self.others.start(Long(), Heartbeats(clock), stack, tasks)


async def test_agents_of_another_replica_are_known_and_called_and_count_for_a_name() -> None:
    one, other = Side("r", "o"), Side("o", "r")

    def opener(cluster: str, head: RequestBlock, sink: ResponseSink) -> Exchange:
        assert cluster == NAME
        return other.others.answering.open(head, sink)

    async with AsyncExitStack() as stack:
        r, o = await stack.enter_async_context(two(opener))
        tasks = await stack.enter_async_context(Tasks())
        await one.start(r, stack, tasks)
        await other.start(o, stack, tasks)
        for side in (one, other):
            side.owners.hold("o")
        others = one.others
        assert others.has("edge")
        assert not other.others.has("edge")
        assert len(others.agents("edge", "u1")) == 1, "it is not known yet, and whoever calls will hear"
        await eventually(lambda: others.agents("edge", "u1") == ())
        other.agents.sessions = [Session("u1", ready=False), Session("u2"), Session("u1")]
        await eventually(lambda: len(others.agents("edge", "u1")) == 1)
        assert others.agents("edge", "u3") == ()
        assert await others.agents("edge", "u1")[0].call("do", {"a": 1}, 5.0) == {"method": "do", "ready": True, "a": 1}
        renewal = others.renewal("edge")
        assert renewal is not None
        assert renewal.pulse.agents == 3
        assert one.presence.last_connected("edge", "u1") > time.time() - 5, "nobody has said that it is gone"
        assert other.others.renewal("edge") is None
        one.owners.hold("r")
        assert others.agents("edge", "u1") == ()

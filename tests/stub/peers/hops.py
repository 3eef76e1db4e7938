"""Two sessions one behind the other, in memory: a user's replica, the holder, and an agent of the holder's.

The first world joins the replica that asks with the holder, the second one the holder with its agent. They share their
time.
"""

from __future__ import annotations

from typing import Any

from stub.peers.asking import AskingMux, ask
from stub.peers.holding import HoldingMux
from stub.peers.relay import relayed
from tests.support.joined import World
from tests.support.joined_traffic import Client, Traffic
from tunnel.agentmux import Handler
from tunnel.mux import Mux
from tunnel.ports import Exchange, RequestBlock, ResponseSink

CLUSTER = "alpha"


class PeerWorld(World):
    """A session between two replicas."""

    stub_mux = AskingMux
    agent_mux = HoldingMux


def behind(first: World, handler: Handler, **options: Any) -> World:
    """A world of the same time as another one's."""

    def shared(name: str) -> property:
        return property(lambda _self: getattr(first, name), lambda _self, value: _set(name, value))

    def _set(name: str, value: Any) -> None:
        if name == "_count":
            first._count = max(first._count, value)

    names = ("now", "_count", "_events", "dirty")
    kind = type("Behind", (World,), {name: shared(name) for name in names})
    world: World = kind(handler, **options)
    return world


class Hops(Traffic):
    """Traffic that goes over both sessions."""

    second: World

    def opener(self, cluster: str, head: RequestBlock, sink: ResponseSink) -> Exchange:
        """The holder's own sessions."""
        assert cluster == CLUSTER
        exchange = self.second.stub.open(head, sink)
        exchange.agent = "agent-1"
        return exchange

    def enter(self, block: RequestBlock, client: Client) -> Exchange:
        return ask(self.world.stub, CLUSTER, block, client)

    @property
    def settled(self) -> bool:
        return super().settled and not self.second.stub.exchanges and not self.second.agent.exchanges

    @property
    def muxes(self) -> list[Mux]:
        """All four."""
        return [self.world.stub, self.world.agent, self.second.stub, self.second.agent]


def hopping(**options: Any) -> Hops:
    """Two worlds and their traffic; `second` has options of its own for the second one."""
    traffic = Hops()
    more = options.pop("second", {})
    traffic.world = PeerWorld(lambda exchange, head: relayed(exchange, head, traffic.opener), **options)
    traffic.second = behind(traffic.world, traffic.handler, **options | more)
    return traffic

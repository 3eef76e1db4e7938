"""What must hold of two joined cores: at every moment, and when nothing is left to happen."""

from __future__ import annotations

from tests.support.joined import World
from tests.support.joined_traffic import Traffic
from tunnel.exchange import TunnelExchange
from tunnel.link import Link
from tunnel.mux import Mux


def check_always(world: World) -> None:
    """No bug, no wrong byte, and no credit that was overdrawn."""
    assert not world.bugs, world.bugs
    assert not world.violations, world.violations
    assert not world.errors, world.errors
    for mux in (world.stub, world.agent):
        for exchange in mux.exchanges.values():
            _check_credit(exchange)


def _check_credit(exchange: TunnelExchange) -> None:
    assert exchange._sent <= exchange._limit, f"{exchange.id} sent beyond its credit"
    assert exchange._consumed <= exchange._received <= exchange.granted, f"{exchange.id} holds wrong credit"
    limits = exchange.mux.limits
    assert exchange._queued < limits.send_queue + limits.frame_payload, f"{exchange.id} queues too much"


def check_over(world: World, traffic: Traffic) -> None:
    """Nothing is open, nothing is held, everybody knows what became of everything, and the session is usable."""
    check_always(world)
    for client in traffic.clients:
        assert client.clean, f"client {client.key} was told nothing"
        server = traffic.servers.get(client.key)
        if server is not None:
            told = server.over or client.early or (client.plan.upgrade and server.error)
            assert told, f"server {client.key} was told nothing"
            assert server.error is None or not server.upstream_open, f"the upstream of {client.key} is still open"
            assert not client.whole or client.received == server.sent
    if world.stub.closed_reason is None and world.agent.closed_reason is None:
        _check_links(world)
    for mux in (world.stub, world.agent):
        _check_empty(mux)


def _check_links(world: World) -> None:
    """Own links are free at both ends, or attached at neither."""
    stub, agent = world.stub.own_links, world.agent.own_links
    assert stub.keys() == agent.keys(), "the ends do not agree on their own links"
    for number, link in agent.items():
        assert link.exchange is None, f"own link {number} is stuck at the agent"
        assert stub[number].exchange is None, f"own link {number} is stuck at the stub"
        assert link in world.agent.free, f"own link {number} is not free"
    assert len(world.agent.free) == len(agent), "a link is free twice, or gone and free"


def _check_empty(mux: Mux) -> None:
    assert not mux.exchanges, f"exchanges are left: {list(mux.exchanges)[:5]}"
    for link in [mux.shared, *mux.own_links.values()]:
        _check_link_empty(link)


def _check_link_empty(link: Link) -> None:
    if not link.closed:
        assert link.idle, "a link still has something to write"

"""Two cores of the link protocol, joined by wires that exist only in memory and run on virtual time.

A wire keeps its bytes in order, cuts them anywhere and delivers them late; two wires know nothing of one another: what
goes over different links is reordered. It has a capacity, as a socket buffer has. Everything random comes from
one seed.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any

from tunnel import frames
from tunnel.agentmux import AgentMux, Handler
from tunnel.errors import ProtocolError
from tunnel.exchange import TunnelExchange
from tunnel.limits import KIB, LinkLimits, Timing
from tunnel.link import Link
from tunnel.mux import Mux
from tunnel.stubmux import StubMux

EPOCH = 7


class End:
    """One end of a joint: what `tunnel.adapter` is on a socket."""

    def __init__(self, world: World, mux: Mux, link: Link) -> None:
        self.world = world
        self.mux = mux
        self.link = link
        self.peer: End = self
        self.in_flight = 0
        self.arrives = 0.0
        self.slowness = 1.0
        self.gone = False
        self.deaf = False
        link.on_output = self._on_output
        link.on_close = self.close

    def _on_output(self) -> None:
        self.world.dirty.append(self)

    def flush(self) -> None:
        """Write what was committed, as a batch's end does."""
        if not self.gone and not self.link.paused:
            self.write(b"".join(self.link.take()))
            if self.link.unfinished:
                self.world.at(0.0, self.flush)

    def write(self, data: bytes) -> None:
        """Bytes into the wire, in random pieces, each a little later than the one before."""
        world = self.world
        at = 0
        while at < len(data):
            size = world.cut(data, at)
            self.in_flight += size
            self.arrives = max(self.arrives, world.now + self.slowness * world.lag())
            world.at(self.arrives - world.now, partial(self._arrive, data[at : at + size]))
            at += size
        if self.in_flight > world.capacity:
            self.link.paused = True

    def _arrive(self, piece: bytes) -> None:
        if self.deaf:
            return
        self.in_flight -= len(piece)
        if self.link.paused and self.in_flight <= self.world.capacity // 4:
            self.link.resume()
        self.peer.receive(piece)

    def receive(self, data: bytes) -> None:
        """Bytes out of the wire."""
        if self.gone:
            return
        try:
            self.link.receive(data)
        except ProtocolError as error:
            self.world.errors.append(str(error))
            self.link.close(str(error))

    def close(self, reason: str) -> None:
        """This end closes: what is committed goes out, then the peer hears of it."""
        if self.gone:
            return
        if not self.link.paused:
            self.write(b"".join(self.link.take()))
        self.lost(reason)
        self.arrives = max(self.arrives, self.world.now)
        self.world.at(self.arrives - self.world.now, self._tell_peer)

    def _tell_peer(self) -> None:
        if not self.deaf:
            self.peer.lost("the peer closed the link")

    def lost(self, reason: str) -> None:
        """This end notices that there is no connection."""
        if not self.gone:
            self.gone = self.link.closed = True
            self.mux.detach(self.link, reason)


class Joint:
    """Both ends of one link."""

    def __init__(self, world: World, stub: Link, agent: Link) -> None:
        self.world = world
        self.stub = End(world, world.stub, stub)
        self.agent = End(world, world.agent, agent)
        self.stub.peer, self.agent.peer = self.agent, self.stub

    @property
    def alive(self) -> bool:
        """Neither end has noticed an end."""
        return not self.stub.gone and not self.agent.gone

    def slow(self, factor: float) -> None:
        """This link's wires are that much slower than the others."""
        self.stub.slowness = self.agent.slowness = factor

    def kill(self, stub_after: float = 0.0, agent_after: float = 0.0) -> None:
        """The network is gone: what is in flight is lost, and each end notices when it does."""
        self.stub.deaf = self.agent.deaf = True
        self.world.at(stub_after, lambda: self.stub.lost("killed"))
        self.world.at(agent_after, lambda: self.agent.lost("killed"))


class World:
    """A session of two cores, its links, and the time that passes between them."""

    stub_mux = StubMux
    agent_mux = AgentMux

    def __init__(
        self,
        handler: Handler,
        *,
        seed: int = 0,
        own_links: int = 4,
        delay: float = 0.002,
        cuts: bool = True,
        capacity: int = 128 * KIB,
        limits: LinkLimits | None = None,
        timing: Timing | None = None,
        max_exchanges: int = 20_000,
    ) -> None:
        self.rng = Random(seed)
        self.now = 0.0
        self.delay = delay
        self.cuts = cuts
        self.by_frame = False
        self.capacity = capacity
        self.own_links = own_links
        self.limits = limits or LinkLimits()
        self.dirty: list[End] = []
        self.errors: list[str] = []
        self.bugs: list[BaseException] = []
        self.messages: list[dict[str, Any]] = []
        self.violations: list[str] = []
        self._events: list[tuple[float, int, Callable[[], object]]] = []
        self._count = 0
        self._dialling = 0
        self._last_link = 0
        timing = timing or Timing()
        common: dict[str, Any] = {
            "epoch": EPOCH,
            "max_exchanges": max_exchanges,
            "peer_credit": self.limits.shared_credit,
            "clock": self.clock,
            "limits": self.limits,
            "timing": timing,
            "on_message": self.messages.append,
            "on_bug": self._on_bug,
        }
        self.stub = self.stub_mux(**common)
        self.agent = self.agent_mux(handler=handler, on_links_wanted=self.dial, **common)
        self.shared = Joint(self, self.stub.shared, self.agent.shared)
        self.owns: list[Joint] = []
        self.period = timing.sweep
        self.at(self.period, self._sweep)

    def clock(self) -> float:
        """Virtual seconds."""
        return self.now

    def lag(self) -> float:
        """How long the next piece takes."""
        return self.rng.uniform(0.2, 1.0) * self.delay

    def cut(self, data: bytes, at: int) -> int:
        """How much of what is written arrives together."""
        size = len(data) - at
        if self.by_frame:
            return frames.HEADER_SIZE + int(frames.HEADER.unpack_from(data, at)[2])
        if not self.cuts or size < 2:
            return size
        return self.rng.choice((size, size, min(size, self.rng.randint(1, 64 * KIB)), self.rng.randint(1, size)))

    def _on_bug(self, exchange: TunnelExchange | None, error: BaseException) -> None:
        self.bugs.append(error)

    # --- links

    def dial(self) -> None:
        """The agent wants own links: one more is under way, while there may be more."""
        if len([j for j in self.owns if not j.agent.gone]) + self._dialling < self.own_links:
            self._dialling += 1
            self.at(2 * self.lag(), self._dialled)

    def _dialled(self) -> None:
        self._dialling -= 1
        if self.shared.alive:
            self.attach()

    def attach(self) -> Joint:
        """One more own link, greeted and attached at both ends."""
        self._last_link += 1
        links = [Link(mux, own=True, link_id=self._last_link, limits=self.limits) for mux in (self.stub, self.agent)]
        joint = Joint(self, *links)
        self.owns.append(joint)
        self.stub.attach(links[0])
        self.agent.attach(links[1])
        return joint

    # --- time

    def at(self, delay: float, call: Callable[[], object]) -> None:
        """Call it after that time."""
        self._count += 1
        heapq.heappush(self._events, (self.now + max(0.0, delay), self._count, call))

    def _sweep(self) -> None:
        if self.stub.closed_reason is None or self.agent.closed_reason is None:
            self.stub.sweep(self.now)
            self.agent.sweep(self.now)
            self.at(self.period, self._sweep)

    def step(self) -> bool:
        """One event, and the writes that it brings. False: nothing is left to happen."""
        self.settle()
        if not self._events:
            return False
        self.now, _, call = heapq.heappop(self._events)
        call()
        self.settle()
        return True

    def settle(self) -> None:
        """The end of a turn: write what was gathered."""
        while self.dirty:
            self.dirty.pop(0).flush()

    def run(self, until: Callable[[], bool] = lambda: False, seconds: float = 120.0) -> bool:
        """Let time pass until something holds. False: it never did."""
        end = self.now + seconds
        self.settle()
        while not until():
            if not self._events or self._events[0][0] > end:
                self.now = max(self.now, end)
                return until()
            self.step()
        return True

    # --- what is held

    def held(self) -> int:
        """Bytes of exchanges that stand in both cores and in the wires."""
        joints = [self.shared, *self.owns]
        ends = [end for joint in joints for end in (joint.stub, joint.agent) if not end.gone]
        wires = sum(end.in_flight for end in ends)
        committed = sum(end.link.backlog for end in ends)
        exchanges = [*self.stub.exchanges.values(), *self.agent.exchanges.values()]
        return wires + committed + sum(exchange.held for exchange in exchanges)

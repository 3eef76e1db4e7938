"""The gateway, composed: everything between the users' sockets and the port towards the stub."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from types import TracebackType

from aiohttp import web
from prometheus_client.registry import Collector

from auth.frontproxy import FrontProxies
from gateway.access import Access, Authenticate, Decide
from gateway.arrivals import Arrivals
from gateway.audit.trail import AuditTrail
from gateway.clusters import Clusters
from gateway.credentials import no_front_proxies
from gateway.door import Door
from gateway.handover import Handover, ManagementPort
from gateway.limits import DoorLimits, DoorTimeouts
from gateway.listener import Listener
from gateway.management import Attached, Check, Management, nothing_to_ask
from gateway.membership.registry import Cluster, ClusterRegistry
from gateway.metrics import Traffic, TrafficCollector, registry_of
from gateway.opening import Opening
from gateway.passage import Passage
from gateway.pipeline import Pipeline
from gateway.rechecking import Rechecking
from gateway.replicas.keeping import Keeping
from gateway.route import Router
from gateway.settling import Settling
from tunnel.batch import Batch

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class GatewayParts:
    """What the gateway is made of. `attached` is what the stub says of a cluster; `sockets` are bound already."""

    clusters: Clusters
    registry: ClusterRegistry
    authenticator: Authenticate
    grants: Decide
    audit: AuditTrail
    batch: Batch
    sockets: tuple[socket.socket, ...]
    tls: ssl.SSLContext | None
    clock: Callable[[], float]
    wall: Callable[[], float]
    version: str
    arrivals: Arrivals | None = None
    domain: str = ""
    manage: Callable[[Handover], ManagementPort] = lambda here: here
    """What serves Kulvert's own API: this process, or the replica that leads."""
    keeping: Keeping | None = None
    attached: Callable[[str], Attached] = lambda _cluster: Attached()
    refresh: Callable[[Collection[str]], Awaitable[None]] = nothing_to_ask
    """See `gateway.management.Management`."""
    checks: Mapping[str, Check] = field(default_factory=dict)
    warnings: Mapping[str, Check] = field(default_factory=dict)
    shown: Callable[[Cluster], Mapping[str, object]] | None = None
    collectors: tuple[Collector, ...] = ()
    metrics_group: str = "kulvert:admins"
    routes: tuple[web.RouteDef, ...] = ()
    front: Callable[[], FrontProxies | None] = no_front_proxies
    prepare: Callable[[Passage], None] = lambda _passage: None
    limits: DoorLimits = field(default_factory=DoorLimits)
    timeouts: DoorTimeouts = field(default_factory=DoorTimeouts)


class Gateway:
    """An asynchronous context: inside it, the listeners accept; at its end, they drain and stop."""

    def __init__(self, parts: GatewayParts) -> None:
        self._parts = parts
        self.traffic = Traffic()
        self.listeners: list[Listener] = []
        self.draining = self._stopping = False
        self._settling = Settling()
        self._runner: web.AppRunner | None = None
        self._pipeline: Pipeline | None = None
        self._clockwork: asyncio.TimerHandle | None = None

    @property
    def ports(self) -> tuple[int, ...]:
        """Where it listens."""
        return tuple(listener.port for listener in self.listeners)

    async def __aenter__(self) -> Gateway:
        loop = asyncio.get_running_loop()
        handover = Handover(await self._management(), loop)
        access = self._make_access()
        pipeline = self._pipeline = self._make_pipeline(access, self._parts.manage(handover))
        rechecking = Rechecking(access, self._settling, self._parts.wall, _on_bug)
        self._tell_date(loop, pipeline)
        for sock in self._parts.sockets:
            self.listeners.append(self._make_listener(pipeline, rechecking, sock))
        for listener in self.listeners:
            await listener.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.drain()
        for listener in self.listeners:
            await listener.stop()
        if self._clockwork is not None:
            self._clockwork.cancel()
        await self._settling.close()
        if self._runner is not None:
            await self._runner.cleanup()

    def refuse_readiness(self) -> None:
        """This server is about to stop: load balancers are told, each user with an answer, and all are served still."""
        self._stopping = True
        for listener in self.listeners:
            listener.door.leave()

    async def drain(self) -> None:
        """Readiness fails, nothing new is accepted, current answers get their time. Harmless when done before."""
        if not self.draining:
            self.draining = True
            self.refuse_readiness()
            await asyncio.sleep(self._parts.timeouts.lameduck)
            patience = self._parts.timeouts.drain
            await asyncio.gather(*(listener.drain(patience) for listener in self.listeners))

    # --- composition

    async def _management(self) -> Callable[[], asyncio.Protocol]:
        parts = self._parts
        doors = _Doors(self.listeners)
        metrics = registry_of([TrafficCollector(self.traffic, doors), *parts.collectors])
        checks = {"shutdown": lambda: "draining" if self.draining or self._stopping else None, **parts.checks}
        management = Management(
            parts.registry,
            parts.grants,
            parts.attached,
            metrics,
            checks,
            parts.version,
            parts.wall,
            parts.metrics_group,
            parts.routes,
            parts.warnings,
            parts.shown,
            parts.keeping,
            parts.refresh,
        )
        app = management.application()
        self._runner = web.AppRunner(
            app, handle_signals=False, access_log=None, keepalive_timeout=0, tcp_keepalive=False, shutdown_timeout=1.0
        )
        await self._runner.setup()
        server = self._runner.server
        assert server is not None
        return server

    def _make_access(self) -> Access:
        parts = self._parts
        return Access(parts.authenticator, parts.grants, parts.registry, parts.front)

    def _make_pipeline(self, access: Access, management: ManagementPort) -> Pipeline:
        parts = self._parts
        arrivals = parts.arrivals or Arrivals(parts.clock, ())
        return Pipeline(
            router=Router(parts.domain),
            access=access,
            opening=Opening(parts.clusters, arrivals, self._settling, self.traffic),
            management=management,
            audit=parts.audit,
            traffic=self.traffic,
            settling=self._settling,
            clock=parts.clock,
            wall=parts.wall,
            large_body=parts.limits.large_body,
            on_bug=_on_bug,
            prepare=parts.prepare,
        )

    def _make_listener(self, pipeline: Pipeline, rechecking: Rechecking, sock: socket.socket) -> Listener:
        parts = self._parts
        door = Door(pipeline, rechecking, parts.batch, parts.limits, parts.timeouts, parts.clock())
        return Listener(door, sock, parts.tls, parts.clock)

    def _tell_date(self, loop: asyncio.AbstractEventLoop, pipeline: Pipeline) -> None:
        """The Date header, made once a second."""
        pipeline.date = formatdate(self._parts.wall(), usegmt=True).encode("ascii")
        self._clockwork = loop.call_later(1.0, self._tell_date, loop, pipeline)


def _on_bug(error: BaseException) -> None:
    _log.error("a request met a bug", exc_info=error)


class _Doors:
    """The doors of listeners that may not be there yet."""

    def __init__(self, listeners: list[Listener]) -> None:
        self._listeners = listeners

    def __iter__(self) -> Iterator[Door]:
        return iter([listener.door for listener in self._listeners])

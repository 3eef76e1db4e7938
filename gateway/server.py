"""The composition root of the server: the only place where gateway, stub, auth and their stores are wired together.

What belongs to one concern is made in `gateway.wiring`; here the parts meet, begin and end in their order.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import time
from contextlib import AsyncExitStack
from dataclasses import replace
from types import TracebackType
from typing import Self

from gateway.audit.log import AuditLogs
from gateway.audit.service import AuditService
from gateway.audit.trail import AuditTrail
from gateway.config import ServerConfig, host_and_port
from gateway.gateway import Gateway, GatewayParts
from gateway.hub.client import Hub
from gateway.hub.informermetrics import InformersCollector
from gateway.listener import listening_socket
from gateway.membership.registry import SqliteRegistry
from gateway.mirror.tables import stop_sharing
from gateway.recording.recordings import RecordingCollector, Recordings
from gateway.rlimit import raise_descriptors, shortage
from gateway.state import State
from gateway.watcher import Watcher
from gateway.wiring.authentication import Authentication
from gateway.wiring.authorization import Authorization
from gateway.wiring.clusters import Clusters
from gateway.wiring.part import Part, united
from gateway.wiring.replicas import Replicas
from gateway.wiring.several import Several
from gateway.wiring.sharing import Sharing
from gateway.wiring.tasks import Tasks
from gateway.workers.boot import Boot
from gateway.workers.worker import Workers
from stub.attachment import Attachment
from stub.door import AgentsDoor
from stub.sessions import Sessions
from tunnel.batch import Batch

_log = logging.getLogger(__name__)
WATCH = 1.0
"""Seconds between looks at what others may change: the registry, the grants, certificates."""
PATIENCE = 0.05
"""Seconds that the whole server waits for another process's write to the registry; then a poll tries again."""


class Server:
    """A whole server. An asynchronous context: inside it users and agents are served; at its end both are drained."""

    def __init__(self, config: ServerConfig, version: str, worker: Boot | None = None) -> None:
        """`worker`: it is one of several workers, by what their parent says."""
        self.config = config
        self._worker = worker
        self.state = State(config.state_dir)
        self._version = version
        self._stack = AsyncExitStack()
        self.gateway: Gateway
        self.sessions: Sessions
        self.registry: SqliteRegistry
        self.authentication: Authentication
        self.authorization: Authorization
        self.clusters: Clusters
        self.watcher: Watcher
        self.replicas: Several | None = None
        self.workers: Workers | None = None
        self._audit: AuditService
        self._recordings: Recordings
        self._tasks: Tasks
        self._informers = InformersCollector(time.monotonic)
        self.port = 0
        self.agents_port = 0

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await self._start(stack)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    def reopen(self) -> None:
        """For SIGHUP: the audit log goes on in a new file, and policies are read anew."""
        self._audit.reopen()
        self._recordings.reload()

    async def _start(self, stack: AsyncExitStack) -> None:
        config, loop = self.config, asyncio.get_running_loop()
        _look_at_descriptors(config)
        self.state.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        hub = await stack.enter_async_context(Hub(config.hub)) if config.hub.wanted else None
        sharing = await self._share(stack, hub)
        self.registry = SqliteRegistry(self.state.registry, patience=PATIENCE)
        stack.callback(self.registry.close)
        self._audit = await stack.enter_async_context(AuditService(config.audit, self.state.directory))
        trail = self._audit.trail(loop.time, time.time)
        self._recordings = Recordings(config.recording, self.state.directory, loop.time, time.time)
        self.sessions = Sessions(clock=loop.time, interval=0.25, on_change=self._agents_changed)
        self.sessions.start()
        stack.callback(self.sessions.close, "the server is stopping")
        self._tasks = await stack.enter_async_context(Tasks())
        batch = Batch(loop.call_soon)
        if hub is not None and sharing is not None:
            authority = self.state.replicas_authority(time.time())
            replicas = self.replicas = Replicas(config, hub, self.sessions, batch, authority, sharing)
            await replicas.start(stack, self._tasks)
        elif self._worker is not None:
            self.replicas = self.workers = Workers(self._worker, self.sessions, batch)
            await self.workers.start(stack, self._tasks)
        part = await self._compose(stack, hub, trail)
        if sharing is not None:
            sharing.follow(self.registry.database)
            stack.callback(sharing.forget)
        if self.workers is not None:
            self.workers.follow(self.registry.database)
        await self._open_doors(stack, batch, trail, part)
        stack.push_async_callback(self._leave)
        self._tasks.start("watch what others may change", self.watcher.run)

    @property
    def _first(self) -> bool:
        """It is no worker, or the one that does what is done once."""
        return self._worker is None or self._worker.number == 0

    async def _share(self, stack: AsyncExitStack, hub: Hub | None) -> Sharing | None:
        """Several replicas have the keys and stores of the installation before anything is made here."""
        if hub is None or not self.config.replicas.several:
            if self._first:
                stop_sharing(self.state.registry)
            return None
        sharing = Sharing(self.config, self.state, hub, self._informers)
        await sharing.start(stack)
        return sharing

    async def _compose(self, stack: AsyncExitStack, hub: Hub | None, trail: AuditTrail) -> Part:
        """The parts, begun; what they add to the whole, as one."""
        config, state, database = self.config, self.state, self.registry.database
        owners = self.replicas.ownership if self.replicas is not None else None
        known = (self.registry, self.sessions, self._trusted, hub, self._version, owners)
        far = self.replicas.others if self.replicas is not None else None
        self.clusters = Clusters(config, state, *known, replicas=far)
        stack.push_async_callback(self.clusters.lifecycle.close)
        self.authentication = Authentication(config, state, database, self.clusters.keys, hub, time.time())
        self.authorization = Authorization(config, state, database, self.registry, hub)
        self.clusters.keys.subscribe(self.authentication.forget)
        self.clusters.subscribe(stack)
        await self.authentication.start(self._tasks)
        journal = self._audit.log if self._first else AuditLogs(())
        self.authorization.start(self._tasks, journal, trail.new_id, self._informers)
        self.clusters.start(stack, self._tasks, self._audit.log, trail.new_id, self._informers)
        parts = [self.clusters.part(self.authorization), self.authentication.part, self.authorization.part]
        if self.replicas is not None:
            parts += [self.replicas.part, self.replicas.shared]
        part = united([*parts, self._own_part()])
        self.watcher = Watcher(part.looks, WATCH)
        return part

    def _trusted(self) -> str:
        return self.authentication.certificates.trust

    def _own_part(self) -> Part:
        return Part(
            checks={"registry": lambda: self.watcher.problem("registry"), "audit": self._audit.problem},
            warnings={"watcher": lambda: self.watcher.any_problem, "tasks": lambda: self._tasks.problem},
            collectors=[self._audit.collector(), RecordingCollector(self._recordings), self._informers],
        )

    async def _leave(self) -> None:
        """Agents and users are sent elsewhere; what is under way has its time."""
        if self.replicas is None:
            self.sessions.drain()
            return await self.gateway.drain()
        self.gateway.refuse_readiness()
        try:
            await self.replicas.leave()
        finally:
            await asyncio.gather(self.gateway.drain(), self.replicas.finish(self.config.timeouts.drain))
        return None

    def _agents_changed(self, cluster: str) -> None:
        if self.replicas is not None:
            self.replicas.agents_changed(cluster)

    async def _open_doors(self, stack: AsyncExitStack, batch: Batch, trail: AuditTrail, part: Part) -> None:
        """The agents' first: who comes by the users' finds them attached."""
        await self._open_agents_door(stack, batch, self.authentication.certificates.agents)
        self.gateway = await stack.enter_async_context(Gateway(self._parts(batch, trail, part)))
        self.port = self.gateway.ports[0]

    async def _open_agents_door(self, stack: AsyncExitStack, batch: Batch, tls: ssl.SSLContext) -> None:
        setting = self._attachment()
        ports = []
        if self.workers is not None:
            door = AgentsDoor(setting, batch, tls)
            stack.push_async_callback(door.stop)
            return door.receive(self.workers.agents)
        for address in self.config.agents_listen:
            door = AgentsDoor(setting, batch, tls)
            ports.append(await door.start(*host_and_port(address)))
            stack.push_async_callback(door.stop)
        self.agents_port = ports[0]
        return None

    def _attachment(self) -> Attachment:
        single = Attachment(
            self.clusters.lifecycle.authority,
            self.sessions,
            server=self.config.server_id,
            epoch=0 if self.replicas is not None else self.state.next_epoch(time.time()),
            max_links_in_all=self.config.agent_links,
            clock=asyncio.get_running_loop().time,
            methods=self.clusters.methods,
        )
        return single if self.replicas is None else self.replicas.attachment(single)

    def _users_sockets(self) -> tuple[socket.socket, ...]:
        if self.workers is not None:
            return self.workers.users
        return tuple(listening_socket(*host_and_port(address)) for address in self.config.listen)

    def _parts(self, batch: Batch, trail: AuditTrail, part: Part) -> GatewayParts:
        config, several = self.config, self.replicas
        single = GatewayParts(
            clusters=self.sessions,
            registry=self.registry,
            authenticator=self.authentication.chain,
            grants=self.authorization.decider,
            audit=trail,
            batch=batch,
            sockets=self._users_sockets(),
            tls=self.authentication.certificates.users,
            clock=asyncio.get_running_loop().time,
            wall=time.time,
            version=self._version,
            domain=config.domain,
            attached=self.clusters.attached,
            refresh=self.clusters.refresh,
            checks=part.checks,
            warnings=part.warnings,
            shown=self.clusters.api(self.authorization).shown,
            routes=tuple(part.routes),
            collectors=tuple(part.collectors),
            metrics_group=config.metrics_group,
            front=self.authentication.trust.front,
            prepare=self._recordings.prepare,
            limits=config.limits,
            timeouts=config.timeouts,
        )
        if several is None:
            return single
        return replace(
            single,
            clusters=several.clusters,
            arrivals=several.arrivals,
            manage=several.manage,
            keeping=several.keeping,
        )


def _look_at_descriptors(config: ServerConfig) -> None:
    """As many as this process may have; who counts on more is told before they are missing."""
    if (why := shortage(raise_descriptors(), config.limits.connections, config.agent_links)) is not None:
        _log.warning("%s", why)

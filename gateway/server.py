"""The composition root of the server: the only place where gateway, stub, auth and their stores are wired together.

What belongs to one concern is made in `gateway.wiring`; here the parts meet, begin and end in their order.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

from gateway.audit.service import AuditService
from gateway.audit.trail import AuditTrail
from gateway.config import ServerConfig, host_and_port
from gateway.gateway import Gateway, GatewayParts
from gateway.hub.client import Hub
from gateway.listener import listening_socket
from gateway.membership.registry import SqliteRegistry
from gateway.recording.recordings import RecordingCollector, Recordings
from gateway.state import State
from gateway.watcher import Watcher
from gateway.wiring.authentication import Authentication
from gateway.wiring.authorization import Authorization
from gateway.wiring.clusters import Clusters
from gateway.wiring.part import Part, united
from gateway.wiring.tasks import Tasks
from stub.attaching import Attachment
from stub.door import AgentsDoor
from stub.sessions import Sessions
from tunnel.batch import Batch

WATCH = 1.0
"""Seconds between looks at what others may change: the registry, the grants, certificates."""
PATIENCE = 0.05
"""Seconds that the whole server waits for another process's write to the registry; then a poll tries again."""


class Server:
    """A whole server. An asynchronous context: inside it users and agents are served; at its end both are drained."""

    def __init__(self, config: ServerConfig, version: str) -> None:
        self.config = config
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
        self._audit: AuditService
        self._recordings: Recordings
        self._tasks: Tasks
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
        self.state.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.registry = SqliteRegistry(self.state.registry, patience=PATIENCE)
        stack.callback(self.registry.close)
        hub = await stack.enter_async_context(Hub(config.hub)) if config.hub.wanted else None
        self._audit = await stack.enter_async_context(AuditService(config.audit, self.state.directory))
        trail = self._audit.trail(loop.time, time.time)
        self._recordings = Recordings(config.recording, self.state.directory, loop.time, time.time)
        self.sessions = Sessions(clock=loop.time, interval=0.25)
        self.sessions.start()
        stack.callback(self.sessions.close, "the server is stopping")
        self._tasks = await stack.enter_async_context(Tasks())
        part = await self._compose(stack, hub, trail)
        await self._open_doors(stack, trail, part)
        stack.callback(self.sessions.drain)
        self._tasks.start("watch what others may change", self.watcher.run)

    async def _compose(self, stack: AsyncExitStack, hub: Hub | None, trail: AuditTrail) -> Part:
        """The parts, begun; what they add to the whole, as one."""
        config, state, database = self.config, self.state, self.registry.database
        self.clusters = Clusters(config, state, self.registry, self.sessions, self._trusted, hub, self._version)
        stack.push_async_callback(self.clusters.lifecycle.close)
        self.authentication = Authentication(config, state, database, self.clusters.keys, hub, time.time())
        self.authorization = Authorization(config, state, database, self.registry, hub)
        self.clusters.keys.subscribe(self.authentication.forget)
        self.clusters.subscribe(stack)
        await self.authentication.start(self._tasks)
        self.authorization.start(self._tasks, self._audit.log, trail.new_id)
        self.clusters.start(stack, self._tasks, self._audit.log, trail.new_id)
        parts = [self.clusters.part(self.authorization), self.authentication.part, self.authorization.part]
        part = united([*parts, self._own_part()])
        self.watcher = Watcher(part.looks, WATCH)
        return part

    def _trusted(self) -> str:
        return self.authentication.certificates.trust

    def _own_part(self) -> Part:
        return Part(
            checks={"registry": lambda: self.watcher.problem("registry"), "audit": self._audit.problem},
            warnings={"watcher": lambda: self.watcher.any_problem, "tasks": lambda: self._tasks.problem},
            collectors=[self._audit.collector(), RecordingCollector(self._recordings)],
        )

    async def _open_doors(self, stack: AsyncExitStack, trail: AuditTrail, part: Part) -> None:
        """The agents' first: who comes by the users' finds them attached."""
        batch = Batch(asyncio.get_running_loop().call_soon)
        await self._open_agents_door(stack, batch, self.authentication.certificates.agents)
        self.gateway = await stack.enter_async_context(Gateway(self._parts(batch, trail, part)))
        self.port = self.gateway.ports[0]

    async def _open_agents_door(self, stack: AsyncExitStack, batch: Batch, tls: ssl.SSLContext) -> None:
        setting = Attachment(
            self.clusters.lifecycle.authority,
            self.sessions,
            server=self.config.server_id,
            epoch=self.state.next_epoch(time.time()),
            clock=asyncio.get_running_loop().time,
            methods=self.clusters.methods,
        )
        ports = []
        for address in self.config.agents_listen:
            door = AgentsDoor(setting, batch, tls)
            ports.append(await door.start(*host_and_port(address)))
            stack.push_async_callback(door.stop)
        self.agents_port = ports[0]

    def _parts(self, batch: Batch, trail: AuditTrail, part: Part) -> GatewayParts:
        config = self.config
        return GatewayParts(
            clusters=self.sessions,
            registry=self.registry,
            authenticator=self.authentication.chain,
            grants=self.authorization.decider,
            audit=trail,
            batch=batch,
            sockets=tuple(listening_socket(*host_and_port(address)) for address in config.listen),
            tls=self.authentication.certificates.users,
            clock=asyncio.get_running_loop().time,
            wall=time.time,
            version=self._version,
            domain=config.domain,
            attached=self.clusters.lifecycle.attendance.attached,
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

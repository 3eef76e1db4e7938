"""The composition root of the server: the only place where gateway, stub, auth and their stores are wired together."""

from __future__ import annotations

import asyncio
import os
import ssl
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from auth.authenticator import Authenticator
from auth.chain import AuthenticatorChain
from auth.decision import Decision
from auth.grantsfile import GrantsFile
from auth.identity import Identity
from auth.tokens import TokenAuthenticator
from auth.x509 import CertificateAuthenticator
from gateway.agents import Attendance, RegistryAuthority, SessionsCollector
from gateway.audit import AuditIds, AuditLog
from gateway.auditsinks import AuditSink, FileSink, OutputSink
from gateway.audittrail import AuditTrail
from gateway.certificates import Certificates
from gateway.config import ServerConfig, host_and_port
from gateway.gateway import Gateway, GatewayParts
from gateway.listener import listening_socket
from gateway.registry import SqliteRegistry
from gateway.state import AUDIENCE, ISSUER, State
from gateway.watcher import Watcher
from stub.attaching import Attachment
from stub.door import AgentsDoor
from stub.sessions import Sessions
from tunnel.batch import Batch

KNOWN_FOR = 20.0
"""Seconds that an authenticated credential is remembered. With the 10 s between looks at live streams that makes 30."""
WATCH = 1.0
"""Seconds between looks at the files that others may change: the registry, the grants, certificates."""
PATIENCE = 0.05
"""Seconds that the whole server waits for another process's write to the registry; then a poll tries again."""


class CurrentGrants:
    """Decides by the newest grants of a file (`gateway.pipeline.Decide`)."""

    def __init__(self, file: GrantsFile) -> None:
        self._file = file

    def decide(self, identity: Identity, cluster: str) -> Decision:
        """See `auth.grants.Decisions.decide`."""
        return self._file.decisions.decide(identity, cluster)


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
        self.watcher: Watcher
        self._audit: AuditLog
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
        """For log rotation: the audit log goes on in a new file."""
        self._audit.reopen()

    async def _start(self, stack: AsyncExitStack) -> None:
        now, loop = time.time(), asyncio.get_running_loop()
        self.state.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.registry = SqliteRegistry(self.state.registry, patience=PATIENCE)
        stack.callback(self.registry.close)
        grants = GrantsFile(self.config.grants or self.state.grants)
        batch = Batch(loop.call_soon)
        audit = self._audit = AuditLog(self._audit_sink(), loop.call_soon, later=loop.call_later)
        stack.callback(audit.close)
        self.sessions = Sessions(clock=loop.time, interval=0.25)
        self.sessions.start()
        stack.callback(self.sessions.close, "the server is stopping")
        attendance = Attendance(self.sessions)
        stack.callback(self.registry.subscribe(attendance.changed))
        certificates = Certificates(self.config.tls, self.config.names, self.state, now)
        self.watcher = self._watcher(grants, certificates)
        await self._open_agents_door(stack, batch, certificates.agents, now)
        parts = self._parts(batch, audit, grants, attendance, certificates.users, now)
        self.gateway = await stack.enter_async_context(Gateway(parts))
        self.port = self.gateway.ports[0]
        stack.callback(self.sessions.drain)
        watching = loop.create_task(self.watcher.run(), name="watch what others may change")
        stack.callback(watching.cancel)

    def _watcher(self, grants: GrantsFile, certificates: Certificates) -> Watcher:
        async def look_at_registry() -> None:
            self.registry.poll()

        async def look_at_grants() -> None:
            # In a thread: thousands of grants take a while to parse, in which nobody would be served.
            grants.take(await asyncio.to_thread(grants.look))

        async def look_at_certificates() -> None:
            certificates.poll(time.time())

        looks = {"registry": look_at_registry, "grants": look_at_grants, "certificates": look_at_certificates}
        return Watcher(looks, WATCH)

    async def _open_agents_door(self, stack: AsyncExitStack, batch: Batch, tls: ssl.SSLContext, now: float) -> None:
        setting = Attachment(
            RegistryAuthority(self.registry),
            self.sessions,
            server=self.config.server_id,
            epoch=self.state.next_epoch(now),
            clock=asyncio.get_running_loop().time,
        )
        ports = []
        for address in self.config.agents_listen:
            door = AgentsDoor(setting, batch, tls)
            ports.append(await door.start(*host_and_port(address)))
            stack.push_async_callback(door.stop)
        self.agents_port = ports[0]

    def _parts(
        self,
        batch: Batch,
        audit: AuditLog,
        grants: GrantsFile,
        attendance: Attendance,
        tls: ssl.SSLContext,
        now: float,
    ) -> GatewayParts:
        config = self.config
        return GatewayParts(
            clusters=self.sessions,
            registry=self.registry,
            authenticator=self._authenticator(now),
            grants=CurrentGrants(grants),
            audit=AuditTrail(audit, AuditIds(os.urandom), time.time),
            batch=batch,
            sockets=tuple(listening_socket(*host_and_port(address)) for address in config.listen),
            tls=tls,
            clock=asyncio.get_running_loop().time,
            wall=time.time,
            version=self._version,
            domain=config.domain,
            attached=attendance.attached,
            checks={
                "grants": lambda: grants.problem or self.watcher.problem("grants"),
                "registry": lambda: self.watcher.problem("registry"),
                "audit": lambda: audit.problem,
            },
            collectors=(SessionsCollector(self.sessions),),
            metrics_group=config.metrics_group,
            limits=config.limits,
            timeouts=config.timeouts,
        )

    def _authenticator(self, now: float) -> AuthenticatorChain:
        signer = self.state.signer()
        first: list[Authenticator] = [CertificateAuthenticator.from_pem(self.state.authority(now).certificate_pem)]
        tokens = TokenAuthenticator(ISSUER, AUDIENCE, [signer.verification_key])
        return AuthenticatorChain([*first, tokens], ttl=KNOWN_FOR)

    def _audit_sink(self) -> AuditSink | None:
        where = self.config.audit
        if where == "none":
            return None
        if where == "-":
            return OutputSink(sys.stdout.fileno())
        return FileSink(Path(where) if where else self.state.directory / "audit.log")

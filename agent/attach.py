"""The agent's loop: dial, prove, attach, serve, and again with back-off (docs/protocol.md, 3 and 9)."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import structlog

from agent.attaching import AttachFailed, Greeting
from agent.backoff import BackOff
from agent.dial import DialFailed, Dialler
from agent.links import LinkPoolLimits, OwnLinks
from agent.session import AgentSession, HealthReport, Identity
from tunnel import proof
from tunnel.adapter import LinkConnection
from tunnel.agentmux import AgentMux, Handler
from tunnel.batch import Batch
from tunnel.carriage import WebSocketClient
from tunnel.errors import TunnelError
from tunnel.handshake import Challenge, Hello, Refused, Welcome
from tunnel.limits import LinkLimits, Timing
from tunnel.link import Link
from tunnel.messages import Message

log = structlog.get_logger("kulvert.agent")

EPOCH_MEMORY = 600.0
"""Seconds for which the highest epoch is remembered: a Lease that was made anew is not refused for ever."""
GREETING = 15.0


@dataclass(frozen=True, slots=True)
class Attaching:
    """What an agent says of itself. `join_key` proves its join token (`tunnel.proof.join_key`)."""

    cluster: str
    cluster_id: str
    agent: str
    token_id: str
    join_key: bytes = field(repr=False)
    software: str
    exchanges: int = 10_000
    links: LinkPoolLimits = field(default_factory=LinkPoolLimits)
    limits: LinkLimits = field(default_factory=LinkLimits)
    timing: Timing = field(default_factory=Timing)
    patience: float = 30.0
    stable: float = 10.0
    """Seconds that a session has to last for the back-off to begin anew."""


class Agent:
    """Keeps one session attached until it is cancelled; `run` is its whole life."""

    def __init__(
        self,
        setting: Attaching,
        dialler: Dialler,
        handler: Handler,
        batch: Batch,
        backoff: BackOff,
        randomness: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self._setting = setting
        self._dialler = dialler
        self._handler = handler
        self._batch = batch
        self._backoff = backoff
        self._randomness = randomness
        self._instance = randomness(16).hex()
        self._epochs: tuple[int, float] = (0, 0.0)
        self._last: Identity | None = None
        self._report: HealthReport | None = None
        self._retry_after = 0
        self._draining = False
        self.sessions: set[AgentSession] = set()

    @property
    def attached(self) -> bool:
        """Whether a session is up that takes exchanges."""
        return any(not session.draining for session in self.sessions)

    def tell_health(self, report: HealthReport) -> None:
        """Report the API server's health to every session, and to those to come."""
        self._report = report
        for session in self.sessions:
            session.tell_health(report)

    async def run(self) -> None:
        """Attach, and attach again, until cancelled or drained."""
        async with asyncio.TaskGroup() as group:
            while not self._draining:
                session = await self._attach()
                if session is None:
                    await asyncio.sleep(max(self._backoff.next(), self._retry_after))
                    continue
                if self._draining:
                    session.close("the agent is stopping")
                served = group.create_task(self._serve(session), name=f"session {session.identity.session[:8]}")
                await self._until_replaced(session, served)

    async def _until_replaced(self, session: AgentSession, served: asyncio.Task[None]) -> None:
        began = asyncio.get_running_loop().time()
        replaced = asyncio.create_task(session.replaced.wait(), name="wait for a drain")
        try:
            await asyncio.wait((served, replaced), return_when=asyncio.FIRST_COMPLETED)
        finally:
            replaced.cancel()
        if self._draining:
            return
        if asyncio.get_running_loop().time() - began < self._setting.stable:
            await asyncio.sleep(self._backoff.next())
            return
        self._backoff.reset()
        if not session.replaced.is_set():  # its server was lost, and all other agents' with it
            await asyncio.sleep(self._backoff.scatter())

    async def _serve(self, session: AgentSession) -> None:
        links = OwnLinks(session, self._dial_own, self._setting.links)
        session.mux.on_links_wanted = links.wanted
        self.sessions.add(session)
        if self._report is not None:
            session.tell_health(self._report)
        work: list[asyncio.Task[None]] = []
        try:
            async with asyncio.TaskGroup() as group:
                work.append(group.create_task(session.sweep(), name="session: sweep"))
                if self._setting.links.most:
                    work.append(group.create_task(links.run(), name="session: own links"))
                reason = await session.ended()
                log.warning("detached", reason=reason)
                for task in work:
                    task.cancel()
        finally:
            self.sessions.discard(session)
            session.close("the agent is stopping")
            await session.gone()

    async def drain(self) -> None:
        """Attach no more, and finish what is under way; call it before `run` is cancelled."""
        self._draining = True
        async with asyncio.TaskGroup() as group:
            for session in self.sessions:
                group.create_task(session.drain(self._setting.patience), name="drain")

    # --- attaching

    async def _attach(self) -> AgentSession | None:
        made: list[AgentSession] = []

        def admit(connection: LinkConnection, challenge: Challenge, welcome: Welcome) -> Link:
            session = self._session(challenge, welcome)
            made.append(session)
            return session.attach_shared(connection)

        self._retry_after = 0
        try:
            name = await self._greet(lambda name: Greeting(lambda c: self._shared_hello(name, c), admit, own=False))
        except Refused as refused:
            log.error("refused by the server", reason=refused.reason, message=refused.message)
            self._retry_after = refused.retry_after
            self._dialler.rotate()
            return None
        except DialFailed as error:
            log.warning("not attached", error=str(error))
            return None
        except (TunnelError, OSError, TimeoutError) as error:
            log.warning("not attached", error=str(error) or "the server said nothing in time")
            self._dialler.rotate()
            return None
        session = made[0]
        session.name = name
        self._last = session.identity
        log.info("attached", cluster=self._setting.cluster, session=session.identity.session[:8])
        return session

    async def _greet(self, greeter: Callable[[str], Greeting], name: str | None = None) -> str:
        greetings: list[Greeting] = []
        names: list[str] = []
        connections: list[LinkConnection] = []

        def factory(host: str) -> LinkConnection:
            names.append(host)
            greetings.append(greeter(host))
            connections.append(LinkConnection(WebSocketClient(host), greetings[-1], self._batch, self._setting.limits))
            return connections[-1]

        try:
            async with asyncio.timeout(GREETING):
                await self._dialler.dial(factory, name)
                await greetings[-1].attached
                return names[-1]
        except BaseException:
            for connection in connections:
                connection.abort("not attached")
            for greeting in greetings:
                if greeting.attached.done() and not greeting.attached.cancelled():
                    greeting.attached.exception()
            raise

    def _shared_hello(self, name: str, challenge: Challenge) -> Hello:
        self._check_epoch(challenge)
        setting, nonce = self._setting, proof.encode(self._randomness(32))
        version = challenge.version()
        args = (challenge.nonce, nonce, challenge.epoch, challenge.server, name)
        signed = proof.shared(setting.join_key, *args, setting.cluster, setting.cluster_id, self._instance)
        replaced: dict[str, Any] = {}
        if self._last is not None and not self._lives(self._last):
            again = proof.supersede(self._last.secret, challenge.nonce, nonce, self._last.session)
            replaced = {"supersedes": self._last.session, "supersedes_proof": again}
        return Hello(
            version, "shared", name, nonce, signed,
            cluster=setting.cluster, cluster_id=setting.cluster_id, agent=setting.agent, instance=self._instance,
            token=setting.token_id, software=setting.software, credit=setting.limits.shared_credit,
            exchanges=setting.exchanges, links=setting.links.most, **replaced,
        )  # fmt: skip

    def _lives(self, identity: Identity) -> bool:
        """One that only drains finishes what it has: its successor must not end it."""
        return any(session.identity == identity for session in self.sessions)

    def _check_epoch(self, challenge: Challenge) -> None:
        now = asyncio.get_running_loop().time()
        highest, seen = self._epochs
        if challenge.epoch < highest and now - seen < EPOCH_MEMORY:
            raise AttachFailed(
                f"the stub's epoch {challenge.epoch} is older than {highest}: it is not the holder any more"
            )
        self._epochs = (challenge.epoch, now)

    def _session(self, challenge: Challenge, welcome: Welcome) -> AgentSession:
        setting = self._setting

        def told(message: Message) -> None:
            session.on_message(message)

        mux = AgentMux(
            epoch=challenge.epoch,
            max_exchanges=min(setting.exchanges, welcome.exchanges),
            handler=self._handler,
            peer_credit=welcome.credit,
            clock=asyncio.get_running_loop().time,
            limits=setting.limits,
            timing=setting.timing,
            on_message=told,
            on_bug=_tell_bug,
        )
        try:
            identity = Identity(welcome.session, proof.decode(welcome.secret))
        except ValueError as error:
            raise AttachFailed("welcome: its secret is malformed") from error
        session = AgentSession(mux, challenge, identity)
        return session

    # --- own links

    async def _dial_own(self, session: AgentSession, link_id: int) -> None:
        identity = session.identity

        def hello(name: str, challenge: Challenge) -> Hello:
            nonce = proof.encode(self._randomness(32))
            args = (challenge.nonce, nonce, challenge.epoch, challenge.server, name)
            signed = proof.own(identity.secret, *args, identity.session, link_id)
            version = challenge.version()
            return Hello(version, "own", name, nonce, signed, session=identity.session, link_id=link_id)

        def admit(connection: LinkConnection, _challenge: Challenge, _welcome: Welcome) -> Link:
            if session.mux.closed_reason is not None:
                raise AttachFailed("the session has ended meanwhile")
            return session.attach_own(link_id, connection)

        await self._greet(lambda name: Greeting(lambda c: hello(name, c), admit, own=True), session.name)


def _tell_bug(_exchange: object, error: BaseException) -> None:
    log.error("internal error in an exchange", exc_info=error)

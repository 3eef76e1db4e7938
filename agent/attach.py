"""The agent's loop: dial, prove, attach, serve, and again with back-off (docs/protocol.md, 3 and 9)."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import structlog

from agent.attaching import AttachFailed, LinkGreeting
from agent.backoff import BackOff
from agent.dial import DialFailed, Dialler
from agent.enrolment import PENDING, Enrolment
from agent.epochs import Epochs
from agent.identityfile import AgentIdentity
from agent.knock import knock
from agent.links import LinkPoolLimits, OwnLinks
from agent.session import AgentSession, HealthReport, Identity
from tunnel import proof
from tunnel.adapter import LinkConnection
from tunnel.agentmux import AgentMux, Handler
from tunnel.batch import Batch
from tunnel.calls import CallFailed, Method, Params
from tunnel.errors import TunnelError
from tunnel.handshake import MAX_TRUST, Challenge, Hello, Refused, Welcome
from tunnel.limits import LinkLimits, Timing
from tunnel.link import Link
from tunnel.messages import Message, block

log = structlog.get_logger("kulvert.agent")


@dataclass(frozen=True, slots=True)
class Attaching:
    """What an agent says of itself. `instance` is another one for each start."""

    cluster: str
    cluster_id: str
    agent: str
    software: str
    instance: str
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
        enrolment: Enrolment,
        dialler: Dialler,
        handler: Handler,
        batch: Batch,
        backoff: BackOff,
        randomness: Callable[[int], bytes] = secrets.token_bytes,
        methods: Mapping[str, Method] | None = None,
    ) -> None:
        self._setting = setting
        self._enrolment = enrolment
        self.membership = enrolment.membership
        self._dialler = dialler
        self._handler = handler
        self._batch = batch
        self._backoff = backoff
        self._randomness = randomness
        self._methods = methods or {}
        self._epochs = Epochs()
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

    async def call(self, method: str, params: Params, timeout: float) -> Params:
        """Ask the stub, over a session, something rare. Raises `tunnel.calls.CallFailed`."""
        session = next((session for session in self.sessions if not session.draining), None)
        if session is None:
            raise CallFailed("closed", "the agent is not attached")
        return await session.call(method, params, timeout)

    async def run(self) -> None:
        """Attach, and attach again, until cancelled or drained."""
        async with asyncio.TaskGroup() as group:
            while not self._draining:
                session = await self._attach()
                if session is None:
                    await asyncio.sleep(self._pause())
                    continue
                if self._draining:
                    session.close("the agent is stopping")
                served = group.create_task(self._serve(session), name=f"session {session.identity.session[:8]}")
                await self._until_replaced(session, served)

    def _pause(self) -> float:
        """Those that were told to come back at the same time do not."""
        pause = self._backoff.next()
        return max(pause, self._retry_after + self._backoff.scatter()) if self._retry_after else pause

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
            known = await self._enrolment.ready()
            name = await self._knock(lambda n: LinkGreeting(lambda c: self._hello(known, n, c), admit, own=False))
        except Refused as refused:
            self._refused(refused)
            return None
        except (TunnelError, OSError, TimeoutError) as error:
            log.warning("not attached", error=str(error) or "the server said nothing in time")
            self.membership.failed()
            if not isinstance(error, DialFailed):
                self._dialler.rotate()
            return None
        session = made[0]
        session.name = name
        self._last = session.identity
        log.info("attached", cluster=self._setting.cluster, session=session.identity.session[:8])
        return session

    def _refused(self, refused: Refused) -> None:
        self._retry_after = refused.retry_after
        if refused.reason == PENDING:
            return  # told when it changes; and this is the server that knows of the request
        log.error("refused by the server", reason=refused.reason, message=refused.message)
        self.membership.doubted = refused.reason == "certificate"
        self._dialler.rotate()

    async def _knock(self, greeter: Callable[[str], LinkGreeting], name: str | None = None) -> str:
        name, _ = await knock(self._dialler, self._batch, self._setting.limits, greeter, name)
        return name

    def _hello(self, known: AgentIdentity, name: str, challenge: Challenge) -> Hello:
        self._epochs.check(challenge.epoch, asyncio.get_running_loop().time())
        setting, nonce = self._setting, proof.encode(self._randomness(32))
        version = challenge.version()
        bound = (challenge.nonce, nonce, challenge.epoch, challenge.server, name)
        lines = proof.shared(*bound, setting.cluster, setting.cluster_id, setting.instance, known.der)
        replaced: dict[str, Any] = {}
        if self._last is not None and not self._lives(self._last):
            again = proof.supersede(self._last.secret, challenge.nonce, nonce, self._last.session)
            replaced = {"supersedes": self._last.session, "supersedes_proof": again}
        return Hello(
            version, "shared", name, nonce, proof.sign(known.key, lines),
            cluster=setting.cluster, cluster_id=setting.cluster_id, agent=setting.agent, instance=setting.instance,
            certificate=proof.encode(known.der), software=setting.software, credit=setting.limits.shared_credit,
            exchanges=setting.exchanges, links=setting.links.most, **replaced,
        )  # fmt: skip

    def _lives(self, identity: Identity) -> bool:
        """One that only drains finishes what it has: its successor must not end it."""
        return any(session.identity == identity for session in self.sessions)

    def _session(self, challenge: Challenge, welcome: Welcome) -> AgentSession:
        setting = self._setting

        def told(message: Message) -> None:
            if message["kind"] == "trust":
                self.membership.announced(block(message, "bundle", MAX_TRUST))
            elif message["kind"] == "refused":
                refused = Refused.parse(message)
                log.error("sent away by the server", reason=refused.reason, message=refused.message)
            else:
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
        session = AgentSession(mux, challenge, identity, self._methods)
        self.membership.announced(welcome.trust)
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

        await self._knock(lambda name: LinkGreeting(lambda c: hello(name, c), admit, own=True), session.name)


def _tell_bug(_exchange: object, error: BaseException) -> None:
    log.error("internal error in an exchange", exc_info=error)

"""From nowhere to a session: one round of attempts at the places where a stub may be (docs/protocol.md, 3 and 9)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import structlog

from agent.address import BadAddress, Target
from agent.attaching import AttachFailed, LinkGreeting
from agent.course import Course
from agent.dial import DialFailed
from agent.enrolment import PENDING, Enrolment
from agent.epochs import Epochs
from agent.identityfile import AgentIdentity
from agent.knock import ELSEWHERE, Knocking, knock
from agent.session import AgentSession, Identity
from tunnel import proof
from tunnel.adapter import LinkConnection
from tunnel.agentmux import AgentMux, Handler
from tunnel.calls import Method
from tunnel.errors import TunnelError
from tunnel.handshake import DRAINING, MAX_TRUST, MOVED, STANDBY, Challenge, Hello, Refused, Welcome
from tunnel.link import Link
from tunnel.messages import Message, block

if TYPE_CHECKING:
    from agent.attach import Attaching

log = structlog.get_logger("kulvert.agent")


class Arrival:
    """Knows what is remembered between attempts: the last session, epochs, and where the agent was sent to."""

    def __init__(
        self,
        setting: Attaching,
        enrolment: Enrolment,
        place: Knocking,
        handler: Handler,
        randomness: Callable[[int], bytes],
        methods: Mapping[str, Method],
    ) -> None:
        self._setting = setting
        self._enrolment = enrolment
        self._membership = enrolment.membership
        self._place = place
        self._handler = handler
        self._randomness = randomness
        self._methods = methods
        self._epochs = Epochs()
        self._last: Identity | None = None
        self._ahead: Target | None = None
        self._said = ""
        self.retry_after = 0
        """Seconds after which a server that refused said to come again."""

    def leave(self, address: str = "") -> None:
        """The server that was good is so no more; `address` is where it has sent the agent to."""
        self._place.dialler.rotate()
        self._ahead = self._told(address) if address else None

    async def attach(self, sessions: Collection[AgentSession]) -> AgentSession | None:
        """Try every place once, until one takes the agent. None: none did. `sessions` are those there are already."""
        self.retry_after = 0
        ahead, self._ahead = self._ahead, None
        course = Course(([ahead] if ahead else []) + await self._place.dialler.targets())
        failures: list[str] = []
        while (target := course.next()) is not None:
            try:
                return await self._attach_at(target, sessions, None if course.last else ELSEWHERE)
            except Refused as refused:
                if self._elsewhere(refused, course, target):
                    failures.append(f"{target}: {refused.message}")
            except (TunnelError, OSError, TimeoutError) as error:
                why = str(error) or "the server said nothing in time"
                failures.append(why if isinstance(error, DialFailed) else f"{target}: {why}")
                course.failed = True
        if failures:
            log.warning("not attached", error="; ".join(dict.fromkeys(failures)))
        if not course.pending:
            self._place.dialler.rotate()
        if course.failed:
            self._membership.failed()
        return None

    def _elsewhere(self, refused: Refused, course: Course, tried: Target) -> bool:
        """Whether another place may take the agent. If not, all would say the same."""
        self.retry_after = max(self.retry_after, refused.retry_after)
        if refused.reason == MOVED:
            target = self._told(refused.address) if refused.address else _with_hint(tried, refused.hint)
            if target is not None:
                course.sent_to(target)
            return True
        if refused.reason in (STANDBY, DRAINING):
            return True
        if refused.reason == PENDING:
            course.wait()  # told when it changes; and this is the server that knows of the request
        else:
            log.error("refused by the server", reason=refused.reason, message=refused.message)
            self._membership.doubted = refused.reason == "certificate"
            course.give_up()
        return False

    def _told(self, url: str, server_name: str = "") -> Target | None:
        """Where a server wants this agent to go, if its configuration allows that; otherwise it is said, once."""
        try:
            return self._place.dialler.allowed.told(url, server_name)
        except BadAddress as error:
            if str(error) != self._said:
                log.warning("the server's address is not followed", error=str(error))
            self._said = str(error)
            return None

    async def _attach_at(
        self, target: Target, sessions: Collection[AgentSession], patience: float | None
    ) -> AgentSession:
        made: list[AgentSession] = []

        def admit(connection: LinkConnection, challenge: Challenge, welcome: Welcome) -> Link:
            session = self._session(target, challenge, welcome, sessions)
            made.append(session)
            return session.attach_shared(connection)

        def greeting(name: str) -> LinkGreeting:
            hints = not target.hint  # whom a hint has not led there is passed on by the server itself
            return LinkGreeting(
                lambda challenge: self._hello(known, name, challenge, sessions, hints), admit, own=False
            )

        known = await self._enrolment.ready(target)
        await knock(self._place, target, greeting, patience)
        session = made[0]
        self._last = session.identity
        self._place.dialler.good(target)
        log.info("attached", cluster=self._setting.cluster, session=session.identity.session[:8], server=str(target))
        return session

    def _hello(
        self, known: AgentIdentity, name: str, challenge: Challenge, sessions: Collection[AgentSession], hints: bool
    ) -> Hello:
        self._epochs.check(challenge.epoch, asyncio.get_running_loop().time())
        setting, nonce = self._setting, proof.encode(self._randomness(32))
        version = challenge.version()
        bound = (challenge.nonce, nonce, challenge.epoch, challenge.server, name)
        lines = proof.shared(*bound, setting.cluster, setting.cluster_id, setting.instance, known.der)
        replaced: dict[str, Any] = {}
        last = self._last
        # one that only drains finishes what it has: its successor must not end it
        if last is not None and not any(one.identity == last and not one.over for one in sessions):
            again = proof.supersede(last.secret, challenge.nonce, nonce, last.session)
            replaced = {"supersedes": last.session, "supersedes_proof": again}
        return Hello(
            version, "shared", name, nonce, proof.sign(known.key, lines),
            cluster=setting.cluster, cluster_id=setting.cluster_id, agent=setting.agent, instance=setting.instance,
            certificate=proof.encode(known.der), software=setting.software, credit=setting.limits.shared_credit,
            exchanges=setting.exchanges, links=setting.links.most, hints=hints, **replaced,
        )  # fmt: skip

    def _session(
        self, target: Target, challenge: Challenge, welcome: Welcome, sessions: Collection[AgentSession]
    ) -> AgentSession:
        """The session of a welcome. Whatever an earlier holder of the cluster says from now on is too late."""
        now = asyncio.get_running_loop().time()
        epoch = challenge.epoch if welcome.epoch is None else welcome.epoch
        try:
            identity = Identity(welcome.session, proof.decode(welcome.secret))
        except ValueError as error:
            raise AttachFailed("welcome: its secret is malformed") from error
        self._epochs.attached(epoch, now)
        for earlier in sessions:
            if earlier.mux.epoch < epoch:
                earlier.mux.fenced = True
        links_at = self._told(welcome.address, welcome.server_name) if welcome.address else None
        links_at = _with_hint(links_at or target, welcome.hint) or links_at
        mux = self._mux(epoch, welcome, lambda message: self._hear(session, message))
        session = AgentSession(mux, challenge, identity, self._methods, links_at or target)
        self._membership.announced(welcome.trust)
        return session

    def _mux(self, epoch: int, welcome: Welcome, hear: Callable[[Message], None]) -> AgentMux:
        setting = self._setting
        return AgentMux(
            epoch=epoch,
            max_exchanges=min(setting.exchanges, welcome.exchanges),
            handler=self._handler,
            silence=welcome.silence,
            peer_credit=welcome.credit,
            clock=asyncio.get_running_loop().time,
            limits=setting.limits,
            timing=setting.timing,
            on_message=hear,
            on_bug=_tell_bug,
        )

    def _hear(self, session: AgentSession, message: Message) -> None:
        if message["kind"] == "trust":
            self._membership.announced(block(message, "bundle", MAX_TRUST))
        elif message["kind"] == "refused":
            refused = Refused.parse(message)
            log.error("sent away by the server", reason=refused.reason, message=refused.message)
        else:
            session.on_message(message)

    # --- own links

    async def attach_own(self, session: AgentSession, link_id: int) -> None:
        """Dial one own link; where a replica knows better than we do where that is, there. Raises TunnelError, OSError
        or TimeoutError.
        """
        try:
            await self._attach_own_at(session, link_id)
        except Refused as refused:
            elsewhere = self._told(refused.address) if refused.reason == MOVED else None
            if elsewhere is None or elsewhere == session.links_at:
                raise
            session.links_at = elsewhere
            await self._attach_own_at(session, link_id)

    async def _attach_own_at(self, session: AgentSession, link_id: int) -> None:
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

        def greeting(name: str) -> LinkGreeting:
            return LinkGreeting(lambda challenge: hello(name, challenge), admit, own=True)

        await knock(self._place, session.links_at, greeting)


def _with_hint(target: Target, hint: str) -> Target | None:
    """The same place, and which process there; None where no hint says so, or it has been followed already."""
    return replace(target, hint=hint) if hint and hint != target.hint else None


def _tell_bug(_exchange: object, error: BaseException) -> None:
    log.error("internal error in an exchange", exc_info=error)

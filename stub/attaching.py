"""One connection from its first byte until it is a link: challenge, hello, proof, welcome (docs/protocol.md, 3)."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import structlog

from stub.authority import AgentAuthority
from stub.enrolling import enrol
from stub.names import named
from stub.session import AgentInfo, Session, address_of, info_of
from stub.sessions import Sessions
from stub.standing import Standing, peer_certificate, proved, renewal_methods
from tunnel import proof
from tunnel.adapter import LinkConnection
from tunnel.calls import Calls, Method
from tunnel.enrolment import LINK, EnrolHello
from tunnel.errors import ProtocolError
from tunnel.frames import CONTROL, HEADER_SIZE, FrameReader, encode
from tunnel.handshake import VERSIONS, Challenge, Hello, Refused, Welcome
from tunnel.limits import LinkLimits, Timing
from tunnel.messages import parse_message
from tunnel.stubmux import StubMux

log = structlog.get_logger("kulvert.stub")

RETRY_AFTER = 10
"""Seconds after which one that found no room should try again: half-open sessions have ended, others perhaps."""


@dataclass(frozen=True, slots=True)
class Attachment:
    """What every connection of the agents' door needs. `names` are those that agents may dial, without ports, and
    `*.domain` for all below it; empty: any. `max_links` is for a session, `max_sessions` for a cluster, and
    `max_links_in_all` for this process: beyond it neither own links nor sessions are taken.
    """

    authority: AgentAuthority
    sessions: Sessions
    server: str
    epoch: int
    limits: LinkLimits = field(default_factory=LinkLimits)
    timing: Timing = field(default_factory=Timing)
    names: frozenset[str] = frozenset()
    max_links: int = 10_000
    max_sessions: int = 16
    max_links_in_all: int = 20_000
    links: set[LinkConnection] = field(default_factory=set)
    """Connections that are links, until they are closed: those that send their last bytes hold a socket, too."""
    clock: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    randomness: Callable[[int], bytes] = secrets.token_bytes
    methods: Callable[[AgentInfo], Mapping[str, Method]] = lambda _agent: {}
    """What an agent may call (`tunnel.calls`) besides the renewal of its certificate: each session gets its own."""


class Attaching:
    """The greeter of one connection."""

    def __init__(self, setting: Attachment) -> None:
        self._setting = setting
        self._on_done: Callable[[], None] = lambda: None
        self._done = False
        self._reader = FrameReader(setting.limits.hello_bytes)
        self._challenge = Challenge(proof.encode(setting.randomness(32)), VERSIONS, setting.epoch, setting.server)
        self._deadline: asyncio.TimerHandle | None = None
        self._received = 0

    def begin(self, connection: LinkConnection, on_done: Callable[[], None]) -> None:
        """End the connection where hello is not complete in time. `on_done` is called once: it is a link, or gone."""
        self._on_done = on_done
        loop = asyncio.get_running_loop()
        self._deadline = loop.call_later(self._setting.timing.hello, connection.abort, "no hello in time")

    def on_open(self, connection: LinkConnection) -> None:
        connection.send(encode(CONTROL, payload=self._challenge.encode()))

    def on_bytes(self, connection: LinkConnection, data: bytes) -> None:
        self._received += len(data)
        if self._done or self._received > self._setting.limits.hello_bytes + HEADER_SIZE:
            raise ProtocolError("more than hello before the welcome")
        frames = self._reader.feed(data)
        if not frames:
            return
        if frames[0].type != CONTROL or self._received > HEADER_SIZE + len(frames[0].payload):
            raise ProtocolError("something else than hello before the welcome")
        message = parse_message(frames[0].payload, self._setting.limits.hello_bytes)
        hello = EnrolHello.parse(message) if message.get("link") == LINK else Hello.parse(message)
        try:
            self._accept(connection, hello)
        except Refused as refused:
            tell = log.info if refused.reason == "pending" else log.warning
            tell("agent refused", reason=refused.reason, message=refused.message, cluster=hello.cluster)
            connection.send(encode(CONTROL, payload=refused.encode()))
            connection.end(refused.message)

    def on_lost(self, connection: LinkConnection, reason: str) -> None:
        self._finish()

    def _finish(self) -> None:
        if not self._done:
            self._done = True
            self._on_done()
        if self._deadline is not None:
            self._deadline.cancel()

    def _accept(self, connection: LinkConnection, hello: Hello | EnrolHello) -> None:
        if hello.version not in VERSIONS:
            raise Refused("version", f"this server speaks the versions {VERSIONS} of the link protocol")
        if not named(hello.name, self._setting.names):
            raise Refused("name", f"this server is not known as {hello.name!r}")
        if isinstance(hello, EnrolHello):
            self._accept_enrolment(connection, hello)
        elif hello.link == "own":
            self._accept_own(connection, hello)
        else:
            self._accept_shared(connection, hello)

    def _become_link(self, connection: LinkConnection) -> None:
        self._finish()
        self._setting.links.add(connection)

    def _check_links(self, leaving: int = 0) -> None:
        if len(self._setting.links) - leaving >= self._setting.max_links_in_all:
            raise Refused("overloaded", "this server has as many links as it takes", retry_after=RETRY_AFTER)

    def _check_sessions(self, cluster: str, leaving: int) -> None:
        if len(self._setting.sessions.of(cluster)) - leaving >= self._setting.max_sessions:
            message = f"cluster {cluster!r} has as many agents as this server takes of one"
            raise Refused("sessions", message, retry_after=RETRY_AFTER)

    # --- enrolment

    def _accept_enrolment(self, connection: LinkConnection, hello: EnrolHello) -> None:
        setting = self._setting
        if setting.sessions.draining:
            raise Refused("draining", "this server is shutting down")
        self._check_links()
        issued = enrol(
            setting.authority, self._challenge, hello, address_of(connection), setting.wall(), setting.randomness
        )
        log.info("agent enrolled", cluster=hello.cluster, agent=hello.agent)
        self._become_link(connection)  # until it is closed it uses a place, as a link does
        connection.send(encode(CONTROL, payload=issued.encode()))
        connection.finish("enrolled")

    # --- own links

    def _accept_own(self, connection: LinkConnection, hello: Hello) -> None:
        session = self._setting.sessions.get(hello.session)
        if session is None:
            raise Refused("session", "this server has no such session")
        challenge = self._challenge
        args = (challenge.nonce, hello.nonce, challenge.epoch, challenge.server, hello.name)
        expected = proof.own(session.secret, *args, hello.session, hello.link_id)
        if not proof.matches(expected, hello.proof):
            raise Refused("proof", "the proof of this own link is wrong")
        why = session.refuses(hello.link_id)
        if why:
            raise Refused("link", why)
        self._check_links()
        self._become_link(connection)
        connection.send(encode(CONTROL, payload=Welcome(hello.version).encode()))
        session.attach_own(hello.link_id, connection)

    # --- shared links

    def _accept_shared(self, connection: LinkConnection, hello: Hello) -> None:
        standing = self._proved(connection, hello)
        if self._setting.sessions.draining:
            raise Refused("draining", "this server is shutting down")
        refused = standing.refuses()
        if refused is not None:
            raise refused
        old = self._superseded(hello)
        self._check_links(1 + len(old.mux.own_links) if old else 0)
        self._check_sessions(hello.cluster, 1 if old else 0)
        if old is not None:
            old.mux.close("the agent has attached anew")
            self._setting.sessions.remove(old)
        self._become_link(connection)
        session = self._make_session(hello, connection, standing)
        welcome = Welcome(
            hello.version,
            session.id,
            proof.encode(session.secret),
            self._setting.limits.shared_credit,
            session.mux.max_exchanges,
            trust=self._setting.authority.trust,
        )
        connection.send(encode(CONTROL, payload=welcome.encode()))
        self._attach(session, connection)

    def _proved(self, connection: LinkConnection, hello: Hello) -> Standing:
        setting = self._setting
        known = proved(setting.authority, self._challenge, hello, peer_certificate(connection))
        return Standing(setting.authority, known, setting.clock, setting.wall)

    def _superseded(self, hello: Hello) -> Session | None:
        """The session that this one replaces: it makes room for it, too."""
        old = self._setting.sessions.get(hello.supersedes) if hello.supersedes else None
        if old is None or old.info.cluster != hello.cluster:
            return None
        expected = proof.supersede(old.secret, self._challenge.nonce, hello.nonce, old.id)
        return old if proof.matches(expected, hello.supersedes_proof) else None

    def _make_session(self, hello: Hello, connection: LinkConnection, standing: Standing) -> Session:
        setting = self._setting
        mux = StubMux(
            epoch=setting.epoch,
            max_exchanges=min(hello.exchanges, setting.limits.exchanges),
            peer_credit=hello.credit,
            clock=setting.clock,
            limits=setting.limits,
            timing=setting.timing,
            on_message=lambda message: session.on_message(message),
            on_bug=_tell_bug,
        )
        links = min(hello.links, setting.max_links)
        info = info_of(hello, connection)
        methods = {**setting.methods(info), **renewal_methods(standing)}
        calls = Calls(mux.shared.message, methods, lambda error: _tell_bug(None, error))
        secret = setting.randomness(32)
        session: Session = Session(setting.randomness(16).hex(), secret, info, mux, calls, standing, links)
        return session

    def _attach(self, session: Session, connection: LinkConnection) -> None:
        mux, sessions = session.mux, self._setting.sessions

        def detached(_link: object, reason: str) -> None:
            mux.detach(mux.shared, reason)
            session.calls.close(reason)
            sessions.remove(session)
            log.info("agent detached", cluster=session.info.cluster, agent=session.info.agent, reason=reason)

        connection.attach(mux.shared, detached, session.crowded)
        sessions.add(session)
        mux.ping()
        log.info("agent attached", cluster=session.info.cluster, agent=session.info.agent, address=session.info.address)


def _tell_bug(_exchange: object, error: BaseException) -> None:
    log.error("internal error in an exchange", exc_info=error)

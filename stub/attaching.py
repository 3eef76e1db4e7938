"""One connection from its first byte until it is a link: challenge, hello, proof, welcome (docs/protocol.md, 3)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from stub.attachment import Attachment
from stub.enrolling import enrol
from stub.establishing import attach, make_session
from stub.names import named
from stub.ownership import Place, Replica
from stub.placements import Placed
from stub.placing import Elsewhere, moved, whither
from stub.session import Session, address_of
from stub.standing import Standing, peer_certificate, proved
from tunnel import proof
from tunnel.adapter import LinkConnection
from tunnel.enrolment import LINK, EnrolHello, Issued
from tunnel.errors import ProtocolError
from tunnel.frames import CONTROL, HEADER_SIZE, FrameReader, encode
from tunnel.handshake import VERSIONS, Challenge, Hello, Refused, Welcome
from tunnel.messages import Message, parse_message

log = structlog.get_logger("kulvert.stub")

_ORDINARY = frozenset(("pending", "moved", "standby", "draining"))
RETRY_AFTER = 10
"""Seconds after which one that found no room should try again: half-open sessions have ended, others perhaps."""


class Attaching:
    """The greeter of one connection. `challenge` is given where another replica, `via`, has greeted: see `accept`."""

    def __init__(self, setting: Attachment, challenge: Challenge | None = None, via: str = "") -> None:
        self._setting = setting
        self._adopted = challenge is not None
        self._via = via
        self._on_done: Callable[[], None] = lambda: None
        self._done = False
        self._reader = FrameReader(setting.limits.hello_bytes)
        nonce = proof.encode(setting.randomness(32))
        self._challenge = challenge or Challenge(nonce, VERSIONS, setting.epoch, setting.server)
        self._peer: bytes | None = None
        self._address = ""
        self._deadline: asyncio.TimerHandle | None = None
        self._received = 0

    def begin(self, connection: LinkConnection, on_done: Callable[[], None]) -> None:
        """End the connection where hello is not complete in time. `on_done` is called once: it is a link, or gone."""
        self._on_done = on_done
        loop = asyncio.get_running_loop()
        self._deadline = loop.call_later(self._setting.timing.hello, connection.abort, "no hello in time")

    def on_open(self, connection: LinkConnection) -> None:
        if not self._adopted:
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
        self.accept(connection, message, peer_certificate(connection), address_of(connection))

    def accept(self, connection: LinkConnection, message: Message, peer: bytes | None, address: str) -> None:
        """Take a hello, refuse it, or let it wait. `peer` is the certificate (DER) that TLS has seen, `address` where
        the agent comes from; both, and the challenge, are another replica's word where that has greeted. Raises
        ProtocolError.
        """
        self._peer, self._address = peer, address
        hello = EnrolHello.parse(message) if message.get("link") == LINK else Hello.parse(message)
        self._answering(connection, hello, lambda: self._accept(connection, hello, message))

    def _answering(self, connection: LinkConnection, hello: Hello | EnrolHello, answer: Callable[[], None]) -> None:
        try:
            answer()
        except Refused as refused:
            tell = log.info if refused.reason in _ORDINARY else log.warning
            tell("agent refused", reason=refused.reason, message=refused.message, cluster=hello.cluster)
            connection.send(encode(CONTROL, payload=refused.encode()))
            connection.end(refused.message)

    def on_lost(self, connection: LinkConnection, reason: str) -> None:
        if self._setting.room is not None:
            self._setting.room.leave(connection)
        self._finish()

    def _finish(self) -> None:
        if not self._done:
            self._done = True
            self._on_done()
        if self._deadline is not None:
            self._deadline.cancel()

    def _accept(self, connection: LinkConnection, hello: Hello | EnrolHello, message: Message) -> None:
        if hello.version not in VERSIONS:
            raise Refused("version", f"this server speaks the versions {VERSIONS} of the link protocol")
        if not named(hello.name, self._setting.names):
            raise Refused("name", f"this server is not known as {hello.name!r}")
        if isinstance(hello, EnrolHello):
            self._accept_enrolment(connection, hello, message)
        elif hello.link == "own":
            self._accept_own(connection, hello, message)
        else:
            self._accept_shared(connection, hello, message)

    def _check_way(self) -> None:
        """What is passed on ends with the replica that does it. One that leaves has its agents sent elsewhere by the
        holder, once: who comes after that would be cut off in the middle.
        """
        if self._via and self._via not in {one.identity for one in self._setting.owners.replicas()}:
            raise Refused("draining", f"replica {self._via!r}, which passes this on, is leaving")

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

    # --- where it belongs

    def _placed(
        self,
        connection: LinkConnection,
        hello: Hello | EnrolHello,
        message: Message,
        find: Callable[[], Place],
        here: Callable[[int], None],
    ) -> None:
        """Do `here` with the epoch of this replica's holding, pass the agent on, or let it wait until either can be."""
        setting = self._setting

        def place() -> bool:
            found = whither(find(), setting.owners.replicas(), setting.reached)
            if isinstance(found, Elsewhere):
                self._send_on(connection, found.replica, message)
            elif found is not None:
                here(found.epoch)
                setting.placements.count(message, Placed.HERE)
            return found is not None

        def again() -> bool:
            placed = True

            def answer() -> None:
                nonlocal placed
                placed = place()

            self._answering(connection, hello, answer)
            return placed

        if place():
            return
        if setting.sessions.draining or setting.room is None:
            raise Refused("standby", "no replica has this cluster's agents at present", retry_after=1)
        self._check_links()
        setting.room.enter(connection, again)
        setting.placements.count(message, Placed.WAITING)
        self._become_link(connection)  # until it is closed it uses a place, as a link does

    def _send_on(self, connection: LinkConnection, replica: Replica, message: Message) -> None:
        """At most once: two replicas that each take the other for the holder must not pass it to and fro."""
        if self._adopted:
            raise Refused("standby", "this replica does not have the cluster's agents any more", retry_after=1)
        if self._setting.sessions.draining and not replica.agents_address:
            raise Refused("draining", "this server is shutting down")
        if (refused := moved(replica, message)) is not None:
            self._setting.placements.count(message, Placed.MOVED)
            raise refused
        if self._setting.adopter is None:
            raise Refused("standby", "another replica has this cluster's agents")
        if not self._setting.reached(replica.identity):
            raise Refused("standby", "the replica where this link belongs is not reached", retry_after=1)
        self._check_links(int(connection in self._setting.links))
        self._setting.adopter.adopt(connection, replica, self._challenge, message)
        self._setting.placements.count(message, Placed.PASSED_ON)
        self._become_link(connection)

    # --- enrolment

    def _accept_enrolment(self, connection: LinkConnection, hello: EnrolHello, message: Message) -> None:
        """Where the stores are written: two replicas must not give one name to two clusters."""
        setting = self._setting

        def writer() -> Place:
            owners = setting.owners
            return Place(owners.leader(), owners.leading)

        self._placed(connection, hello, message, writer, lambda _epoch: self._enrol(connection, hello))

    def _enrol(self, connection: LinkConnection, hello: EnrolHello) -> None:
        setting = self._setting
        if setting.sessions.draining:
            raise Refused("draining", "this server is shutting down")
        self._check_links()
        kept = setting.keeping() if setting.keeping is not None else None
        issued = enrol(setting.authority, self._challenge, hello, self._address, setting.wall(), setting.randomness)
        log.info("agent enrolled", cluster=hello.cluster, agent=hello.agent)
        self._become_link(connection)
        if kept is None:
            self._hand_out(connection, issued)
        else:
            setting.later(self._hand_out_later(connection, issued, kept), "hand out a certificate")

    async def _hand_out_later(
        self, connection: LinkConnection, issued: Issued, kept: Callable[[], Awaitable[None]]
    ) -> None:
        """A certificate that no other replica knows would be refused by them."""
        try:
            await kept()
        except Exception as error:
            log.warning("a certificate is not handed out, since it cannot be kept", error=str(error))
            connection.end("the certificate cannot be kept")  # the agent asks again, with the same key
        else:
            self._hand_out(connection, issued)

    def _hand_out(self, connection: LinkConnection, issued: Issued) -> None:
        connection.send(encode(CONTROL, payload=issued.encode()))
        connection.finish("enrolled")

    # --- own links

    def _accept_own(self, connection: LinkConnection, hello: Hello, message: Message) -> None:
        session = self._setting.sessions.get(hello.session)
        if session is None:
            replica = self._setting.elsewhere(hello.session)
            if replica is not None:
                return self._send_on(connection, replica, message)
            raise Refused("session", "this server has no such session")
        challenge = self._challenge
        args = (challenge.nonce, hello.nonce, challenge.epoch, challenge.server, hello.name)
        expected = proof.own(session.secret, *args, hello.session, hello.link_id)
        if not proof.matches(expected, hello.proof):
            raise Refused("proof", "the proof of this own link is wrong")
        why = session.refuses(hello.link_id)
        if why:
            raise Refused("link", why)
        self._check_way()
        self._check_links()
        self._become_link(connection)
        self._setting.placements.count(message, Placed.HERE)
        connection.send(encode(CONTROL, payload=Welcome(hello.version).encode()))
        return session.attach_own(hello.link_id, connection, self._via)

    # --- shared links

    def _accept_shared(self, connection: LinkConnection, hello: Hello, message: Message) -> None:
        standing = self._proved(hello)
        refused = standing.refuses()
        if refused is not None:
            raise refused

        def find() -> Place:
            return self._setting.owners.place(hello.cluster)

        self._placed(connection, hello, message, find, lambda epoch: self._welcome(connection, hello, standing, epoch))

    def _welcome(self, connection: LinkConnection, hello: Hello, standing: Standing, epoch: int) -> None:
        if self._setting.sessions.draining:
            raise Refused("draining", "this server is shutting down")
        refused = standing.refuses()  # it may have waited
        if refused is not None:
            raise refused
        self._check_way()
        old = self._superseded(hello)
        self._check_links(1 + len(old.mux.own_links) if old else 0)
        self._check_sessions(hello.cluster, 1 if old else 0)
        if old is not None:
            old.mux.close("the agent has attached anew")
            self._setting.sessions.remove(old)
        self._become_link(connection)
        session = make_session(self._setting, hello, self._address, standing, epoch, self._via)
        welcome = Welcome(
            hello.version,
            session.id,
            proof.encode(session.secret),
            self._setting.limits.shared_credit,
            session.mux.max_exchanges,
            hint="" if self._adopted else self._setting.hint,
            trust=self._setting.authority.trust,
            epoch=epoch if self._setting.ownership is not None else None,
            silence=self._setting.timing.silence,
        )
        connection.send(encode(CONTROL, payload=welcome.encode()))
        attach(self._setting.sessions, session, connection)

    def _proved(self, hello: Hello) -> Standing:
        setting = self._setting
        known = proved(setting.authority, self._challenge, hello, self._peer)
        return Standing(setting.authority, known, setting.clock, setting.wall, setting.keeping)

    def _superseded(self, hello: Hello) -> Session | None:
        """The session that this one replaces: it makes room for it, too."""
        old = self._setting.sessions.get(hello.supersedes) if hello.supersedes else None
        if old is None or old.info.cluster != hello.cluster:
            return None
        expected = proof.supersede(old.secret, self._challenge.nonce, hello.nonce, old.id)
        return old if proof.matches(expected, hello.supersedes_proof) else None

"""The agent's side of attaching: from a dialled connection to a link (docs/protocol.md, 3)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tunnel.adapter import LinkConnection
from tunnel.enrolment import EnrolHello
from tunnel.errors import ProtocolError, TunnelError
from tunnel.frames import CONTROL, HEADER, HEADER_SIZE, encode
from tunnel.handshake import Challenge, Hello, Refused, Wait, Welcome
from tunnel.limits import KIB
from tunnel.link import Link
from tunnel.messages import Message, parse_message

MAX_GREETING = 64 * KIB
"""A certificate and a bundle of authorities, escaped as JSON does."""

Answer = Callable[[Challenge], Hello | EnrolHello]
Admit = Callable[[LinkConnection, Challenge, Welcome], Link]
"""Makes and attaches the link of a welcome, within the same input: what comes behind the welcome is the link's."""


class AttachFailed(TunnelError):
    """The link was not attached; the message says why, and what to do."""


class Greeting:
    """The greeter of one connection: answers the stub's challenge by `answer`. `attached` is awaited by who dialled."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._held = b""
        self._challenge: Challenge | None = None
        self._link: Link | None = None
        self.on_wait: Callable[[float], None] = lambda _seconds: None
        """The stub asks for patience: so many seconds more, from now on."""
        self.attached: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def take(self, connection: LinkConnection, challenge: Challenge, message: Message) -> Link | None:
        """The stub's answer to hello. Gives the link that it makes of the connection, if it does; raises Refused,
        AttachFailed or ProtocolError.
        """
        raise NotImplementedError

    def on_open(self, connection: LinkConnection) -> None:
        """The stub speaks first."""

    def on_bytes(self, connection: LinkConnection, data: bytes) -> None:
        if self.attached.cancelled():
            raise ProtocolError("nobody waits for this link any more")
        self._held += data
        while self._link is None and not self.attached.done():
            payload = self._cut()
            if payload is None:
                return
            self._step(connection, payload)
        if self._link is not None and self._held:
            rest, self._held = self._held, b""
            self._link.receive(rest)

    def _cut(self) -> bytes | None:
        if len(self._held) < HEADER_SIZE:
            return None
        kind, _, length, _ = HEADER.unpack_from(self._held)
        if kind != CONTROL or length > MAX_GREETING:
            raise ProtocolError("the stub says something else than a welcome")
        end = HEADER_SIZE + length
        if len(self._held) < end:
            return None
        payload, self._held = self._held[HEADER_SIZE:end], self._held[end:]
        return payload

    def _step(self, connection: LinkConnection, payload: bytes) -> None:
        message = parse_message(payload, MAX_GREETING)
        try:
            if self._challenge is None:
                self._challenge = Challenge.parse(message)
                connection.send(encode(CONTROL, payload=self._answer(self._challenge).encode()))
                return
            if message["kind"] == "wait":
                self.on_wait(Wait.parse(message).seconds)
                return
            self._link = self.take(connection, self._challenge, message)
        except (Refused, AttachFailed, ProtocolError) as refused:
            self._fail(refused)
            connection.end(str(refused))
            return
        self.attached.set_result(None)

    def _fail(self, error: Exception) -> None:
        if not self.attached.done():
            self.attached.set_exception(error)

    def on_lost(self, connection: LinkConnection, reason: str) -> None:
        self._fail(AttachFailed(f"the link ended before it was attached: {reason}"))


class LinkGreeting(Greeting):
    """The greeter of a connection that becomes a link, by `admit`."""

    def __init__(self, answer: Answer, admit: Admit, *, own: bool) -> None:
        super().__init__(answer)
        self._admit = admit
        self._own = own

    def take(self, connection: LinkConnection, challenge: Challenge, message: Message) -> Link:
        """Welcome."""
        return self._admit(connection, challenge, Welcome.parse(message, own=self._own))

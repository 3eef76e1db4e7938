"""An agent that attaches as it should, and then says whatever frames a test wants.

Only the proofs, the frames and the WebSocket are the product's: how an exchange is answered is the test's own.
"""

from __future__ import annotations

import asyncio
import secrets
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Self

from agent.enrolment import request as signing_request
from agent.identityfile import AgentIdentity, new_key
from tunnel import proof
from tunnel.carriage import WebSocketClient
from tunnel.enrolment import EnrolHello, Issued
from tunnel.errors import ProtocolError
from tunnel.frames import CONTROL, DATA, END, FLAG_MORE, HEAD, PING, PONG, Frame, FrameReader, encode
from tunnel.handshake import Challenge, Hello, Welcome
from tunnel.messages import parse_message

PATIENCE = 8.0
RESPONSE_END = 0x01
INTERIM = 0x04
UPGRADE = 0x10


class Gone(Exception):
    """The stub has ended this link."""


@dataclass(frozen=True)
class Request:
    """A request's HEAD."""

    id: int
    flags: int
    line: bytes
    headers: list[bytes]


class HostileLink:
    """One connection: TLS, a WebSocket, frames. PINGs are answered unless `mute`."""

    door: tuple[int, ssl.SSLContext]
    """Where it was dialled."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str) -> None:
        self._reader = reader
        self._writer = writer
        self.carriage = WebSocketClient(host)
        self._frames = FrameReader(1 << 20)
        self._queue: list[Frame] = []

    @classmethod
    async def dial(cls, port: int, tls: ssl.SSLContext) -> Self:
        """Connect, and ask for the upgrade."""
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=tls, server_hostname="localhost", ssl_shutdown_timeout=0.5
        )
        link = cls(reader, writer, f"localhost:{port}")
        link.door = port, tls
        writer.write(link.carriage.begin())
        return link

    def say(self, *frames: bytes) -> None:
        """All of them in one message."""
        self._writer.write(self.carriage.wrap([b"".join(frames)]))

    async def next(self) -> Frame:
        """The next frame that is no PING. Raises Gone."""
        async with asyncio.timeout(PATIENCE):
            while True:
                while self._queue:
                    frame = self._queue.pop(0)
                    if frame.type != PING:
                        return frame
                    self.say(encode(PONG, 0, 0, frame.payload))
                data = b""
                with suppress(ConnectionError, ssl.SSLError):
                    data = await self._reader.read(65536)
                if not data:
                    raise Gone
                try:
                    for piece in self.carriage.receive(data):
                        self._queue += self._frames.feed(piece)
                except ProtocolError as error:
                    raise Gone from error
                finally:
                    self._writer.write(self.carriage.pending())

    async def until(self, kind: int) -> Frame:
        """The next frame of a type; others are passed over. Raises Gone."""
        while (frame := await self.next()).type != kind:
            pass
        return frame

    async def gone(self) -> bool:
        """Whether the stub ends this link, in time."""
        try:
            while True:
                await self.next()
        except Gone:
            return True
        except TimeoutError:
            return False

    async def close(self) -> None:
        """Drop it."""
        self._writer.transport.abort()
        with suppress(ConnectionError, ssl.SSLError, TimeoutError):
            await self._writer.wait_closed()


class HostileAgent(HostileLink):
    """A shared link."""

    session = ""
    secret = b""

    async def attach(self, token: str, cluster: str, cluster_id: str, *, links: int = 8) -> None:
        """Enrol by the join token, on another connection, and attach. Raises tunnel.handshake.Refused, or Gone."""
        identity = await enrolled(*self.door, token, cluster, cluster_id)
        hello = self.hello(await self.challenge(), identity, cluster, cluster_id, links=links)
        self.say(encode(CONTROL, payload=hello.encode()))
        welcome = Welcome.parse(parse_message((await self.next()).payload, 65536), own=False)
        self.session, self.secret = welcome.session, proof.decode(welcome.secret)

    async def challenge(self) -> Challenge:
        """What the stub says first."""
        return Challenge.parse(parse_message((await self.next()).payload, 65536))

    def hello(
        self,
        challenge: Challenge,
        identity: AgentIdentity,
        cluster: str,
        cluster_id: str,
        *,
        links: int = 8,
        told: str = "",
    ) -> Hello:
        """The right hello to a challenge; `told` is the cluster that it names, where that is not the proven one."""
        nonce, name, instance = proof.encode(secrets.token_bytes(32)), "localhost", secrets.token_hex(16)
        bound = (challenge.nonce, nonce, challenge.epoch, challenge.server, name)
        lines = proof.shared(*bound, cluster, cluster_id, instance, identity.der)
        return Hello(
            1, "shared", name, nonce, proof.sign(identity.key, lines), cluster=told or cluster, cluster_id=cluster_id,
            agent="hostile", instance=instance, certificate=proof.encode(identity.der), exchanges=100, links=links,
        )  # fmt: skip

    async def own(self, port: int, tls: ssl.SSLContext, link_id: int) -> HostileLink:
        """A proven own link of this session."""
        link = await HostileLink.dial(port, tls)
        link.say(encode(CONTROL, payload=(await self.own_hello(link, link_id)).encode()))
        Welcome.parse(parse_message((await link.next()).payload, 65536), own=True)
        return link

    async def own_hello(self, link: HostileLink, link_id: int, session: str = "", key: bytes = b"") -> Hello:
        """The hello of an own link, for this session or another, by its secret or another."""
        challenge = Challenge.parse(parse_message((await link.next()).payload, 65536))
        session, nonce = session or self.session, proof.encode(secrets.token_bytes(32))
        args = (challenge.nonce, nonce, challenge.epoch, challenge.server, "localhost", session, link_id)
        return Hello(
            1, "own", "localhost", nonce, proof.own(key or self.secret, *args), session=session, link_id=link_id
        )

    async def request(self) -> Request:
        """The next request that a user sends here."""
        frame = await self.until(HEAD)
        block = frame.payload
        while frame.flags & FLAG_MORE:
            frame = await self.until(HEAD)
            block += frame.payload
        line, *headers = block[9:].split(b"\r\n")[:-1]
        return Request(frame.exchange, frame.flags, line, headers)


async def enrolled(port: int, tls: ssl.SSLContext, token: str, cluster: str, cluster_id: str) -> AgentIdentity:
    """A certificate for a cluster, by a join token. Raises tunnel.handshake.Refused, or Gone."""
    key, (token_id, secret) = new_key(), proof.parse_join_token(token)
    csr = signing_request(key, cluster, cluster_id)
    link = await HostileAgent.dial(port, tls)
    try:
        challenge = await link.challenge()
        nonce, name, instance = proof.encode(secrets.token_bytes(32)), "localhost", secrets.token_hex(16)
        bound = (challenge.nonce, nonce, challenge.epoch, challenge.server, name)
        signed = proof.enrol(proof.join_key(token_id, secret), *bound, cluster, cluster_id, instance, csr)
        hello = EnrolHello(1, name, nonce, signed, token_id, cluster, cluster_id, "hostile", instance, csr)
        link.say(encode(CONTROL, payload=hello.encode()))
        issued = Issued.parse(parse_message((await link.next()).payload, 65536))
    finally:
        await link.close()
    return AgentIdentity.of(key, issued.certificate, cluster, cluster_id)


@asynccontextmanager
async def attached(
    port: int, tls: ssl.SSLContext, token: str, cluster: str, cluster_id: str
) -> AsyncIterator[HostileAgent]:
    """A hostile agent that is attached, until the end."""
    agent = await HostileAgent.dial(port, tls)
    try:
        await agent.attach(token, cluster, cluster_id)
        yield agent
    finally:
        await agent.close()


def head(exchange: int, status: int, *lines: bytes, flags: int = 0) -> bytes:
    """A response's HEAD. `lines` are written as they are."""
    return encode(HEAD, flags, exchange, status.to_bytes(2, "big") + b"".join(line + b"\r\n" for line in lines))


def data(exchange: int, payload: bytes, *, end: bool = False) -> bytes:
    """DATA."""
    return encode(DATA, RESPONSE_END if end else 0, exchange, payload)


def end(exchange: int, trailers: bytes = b"") -> bytes:
    """END."""
    return encode(END, 0, exchange, trailers)

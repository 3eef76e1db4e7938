"""The agents' door on loopback, real agents and raw ones before it, and a look at what they leave behind."""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from agent.address import Address, Allowed
from agent.attach import Agent
from agent.attach import Attaching as AgentSetting
from agent.dial import Dialler, DialSettings
from agent.enrolment import Asking, Enrolment, request
from agent.identityfile import AgentIdentity, IdentityFile, new_key
from agent.links import LinkPoolLimits
from agent.membership import Membership
from agent.settings import JoinToken
from agent.trust import Trust
from stub.attachment import Attachment
from stub.door import AgentsDoor
from stub.sessions import Sessions
from tests.agent.pki import Authority
from tests.support.agentauthority import SECRET as SECRET
from tests.support.agentauthority import Book
from tunnel import proof
from tunnel.backoff import BackOff
from tunnel.batch import Batch
from tunnel.carriage import WebSocketClient
from tunnel.enrolment import EnrolHello
from tunnel.errors import ExchangeReset
from tunnel.frames import CONTROL, Frame, FrameReader, encode
from tunnel.handshake import Challenge, Hello, Welcome
from tunnel.limits import KIB, LinkLimits, Timing
from tunnel.messages import Message, parse_message
from tunnel.ports import AgentExchange, Headers, RequestBlock, RequestSink, ResponseBlock

QUICK = Timing(
    hello=0.4, ping_after=0.2, dead_after=1.0, ack_deadline=0.2, progress=1.0, flush=1.0, sweep=0.02, rest=0.02
)
"""The protocol's times, shortened for tests."""
UID = "uid-of-alpha"
HOST = "127.0.0.1"
TOKEN = JoinToken("join-a", SECRET)


async def eventually(question: Callable[[], object], timeout: float = 3.0) -> None:
    """Waits until the answer is a true one."""
    deadline = time.monotonic() + timeout
    while not question():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.01)


def sockets() -> int:
    """Open sockets of this process (a loop that listens keeps a spare descriptor, too)."""
    found = 0
    for entry in os.listdir("/proc/self/fd"):
        try:
            found += os.readlink(f"/proc/self/fd/{entry}").startswith("socket:")
        except OSError:  # the listing's own
            continue
    return found


@asynccontextmanager
async def nothing_left() -> AsyncIterator[None]:
    """What begins inside ends there: tasks and sockets."""
    tasks, held = asyncio.all_tasks(), sockets()
    yield
    tasks.add(asyncio.current_task())  # type: ignore[arg-type]  # a fixture's end is another task than its beginning
    await eventually(lambda: asyncio.all_tasks() <= tasks and sockets() <= held)


class Stub:
    """The server's half: door, sessions and their sweep. An async context."""

    def __init__(self, authority: Authority, directory: Path, **setting: Any) -> None:
        self.ca = authority.pem
        directory.mkdir(exist_ok=True)
        self.book: Book = setting.pop("book", None) or Book()
        self._tls = authority.issue("stub", HOST, "localhost").server_context(directory)
        if setting.pop("asks", True):  # agents for their certificates: a load balancer before it would not
            self._tls.load_verify_locations(cadata=self.book.ca.certificate_pem.decode())
            self._tls.verify_mode = ssl.CERT_OPTIONAL
        self._more = setting
        self.port = 0
        self.sessions: Sessions
        self.door: AgentsDoor
        self.setting: Attachment

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        timing: Timing = self._more.get("timing", QUICK)
        self.sessions = Sessions(clock=loop.time, interval=timing.sweep)
        self.sessions.start()
        defaults: dict[str, Any] = {"server": "stub-1", "epoch": 7, "timing": timing, "clock": loop.time}
        defaults["wall"] = lambda: self.book.wall()  # a test may put its own there
        self.setting = Attachment(self.book, self.sessions, **defaults | self._more)
        self.door = AgentsDoor(self.setting, Batch(loop.call_soon), self._tls)
        self.port = await self.door.start(HOST, self.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.door.stop()
        self.sessions.close("the test is over")
        await asyncio.sleep(0.05)

    @property
    def name(self) -> str:
        """What agents dial."""
        return f"{HOST}:{self.port}"

    async def dial(self) -> RawLink:
        """A connection that is no link yet."""
        return await RawLink.open(self.name, self.ca, self.book)


class RawLink:
    """An agent's connection, byte by byte: TLS and WebSocket are done, everything else is the test's to say."""

    def __init__(self, name: str, book: Book, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.name = name
        self.book = book
        self._reader = reader
        self._writer = writer
        self._carriage = WebSocketClient(name)
        self._frames = FrameReader(64 * KIB)
        self._waiting: list[Frame] = []

    @classmethod
    async def open(cls, name: str, ca: str, book: Book, identity: AgentIdentity | None = None) -> Self:
        host, port = name.split(":")
        tls = Trust(ca, None).context(identity.pem() if identity is not None else None)
        reader, writer = await asyncio.open_connection(host, int(port), ssl=tls)
        link = cls(name, book, reader, writer)
        writer.write(link._carriage.begin())
        return link

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.transport.abort()
        await asyncio.sleep(0.02)

    def say(self, data: bytes) -> None:
        """Bytes of the link's stream."""
        self._writer.write(self._carriage.wrap([data]))

    def tell(self, hello: Hello | EnrolHello) -> None:
        """A hello."""
        self.say(encode(CONTROL, payload=hello.encode()))

    async def frame(self, timeout: float = 3.0) -> Frame:
        """The next frame. Raises EOFError at the end."""
        async with asyncio.timeout(timeout):
            while not self._waiting:
                await self._read()
        return self._waiting.pop(0)

    async def _read(self) -> None:
        try:
            data = await self._reader.read(65_536)
        except ConnectionError:
            data = b""
        if not data:
            raise EOFError
        for piece in self._carriage.receive(data):
            self._waiting += self._frames.feed(piece)

    async def message(self) -> Message:
        """The next control message; other frames are passed over."""
        while True:
            found = await self.frame()
            if found.type == CONTROL:
                return parse_message(found.payload, 64 * KIB)

    async def challenge(self) -> Challenge:
        """What the stub says first."""
        return Challenge.parse(await self.message())

    async def welcome(self, *, own: bool = False) -> Welcome:
        """The stub's yes. Raises Refused, or EOFError."""
        return Welcome.parse(await self.message(), own=own)

    async def ended(self, timeout: float = 3.0) -> None:
        """Waits for the end of the connection."""
        async with asyncio.timeout(timeout):
            try:
                while True:
                    await self._read()
            except EOFError:
                return


def shared_hello(link: RawLink, challenge: Challenge, **changes: Any) -> Hello:
    """A hello of alpha's agent as it should be, but for `changes`; `identity`, `key` and `signed` change its proof."""
    cluster, uid = changes.get("cluster", "alpha"), changes.get("cluster_id", UID)
    identity: AgentIdentity = changes.pop("identity", None) or link.book.identity(cluster, uid)
    key: proof.PrivateKey = changes.pop("key", identity.key)
    signed: dict[str, Any] = changes.pop("signed", {})
    hello = Hello(
        1, "shared", link.name, proof.encode(os.urandom(32)), "", cluster=cluster, cluster_id=uid, agent="agent-1",
        instance="1" * 32, certificate=proof.encode(identity.der), software="test", exchanges=100, links=4,
    )  # fmt: skip
    hello = replace(hello, **changes)
    said = replace(hello, **signed)
    args = (challenge.nonce, said.nonce, challenge.epoch, challenge.server, said.name)
    lines = proof.shared(*args, said.cluster, said.cluster_id, said.instance, proof.decode(said.certificate))
    return replace(hello, proof=proof.sign(key, lines))


def enrol_hello(link: RawLink, challenge: Challenge, **changes: Any) -> EnrolHello:
    """A hello that asks for alpha's certificate as it should; `key` and `signed` change its proof."""
    key: bytes = changes.pop("key", proof.join_key(changes.get("token", "join-a"), SECRET))
    signed: dict[str, Any] = changes.pop("signed", {})
    hello = EnrolHello(
        1, link.name, proof.encode(os.urandom(32)), "", "join-a", "alpha", UID, "agent-1", "1" * 32,
        request(new_key(), changes.get("cluster", "alpha"), changes.get("cluster_id", UID)), "test",
    )  # fmt: skip
    hello = replace(hello, **changes)
    said = replace(hello, **signed)
    args = (challenge.nonce, said.nonce, challenge.epoch, challenge.server, said.name)
    return replace(hello, proof=proof.enrol(key, *args, said.cluster, said.cluster_id, said.instance, said.csr))


def supersedes(hello: Hello, challenge: Challenge, session: str, secret: bytes) -> Hello:
    """The same hello, with a claim to replace a session."""
    again = proof.supersede(secret, challenge.nonce, hello.nonce, session)
    return replace(hello, supersedes=session, supersedes_proof=again)


def own_hello(challenge: Challenge, name: str, session: str, secret: bytes, link_id: int = 1) -> Hello:
    """A hello of an own link."""
    nonce = proof.encode(os.urandom(32))
    args = (challenge.nonce, nonce, challenge.epoch, challenge.server, name)
    return Hello(1, "own", name, nonce, proof.own(secret, *args, session, link_id), session=session, link_id=link_id)


async def attach_raw(stub: Stub, **changes: Any) -> tuple[RawLink, Welcome]:
    """A raw agent whose session is up."""
    link = await stub.dial()
    link.tell(shared_hello(link, await link.challenge(), **changes))
    return link, await link.welcome()


# --- real agents


@dataclass
class Answering:
    """A `Handler` whose requests wait for the test, unless `body` is set: then they are answered with it."""

    body: bytes | None = b"hello"
    begun: list[tuple[AgentExchange, RequestBlock, Request]] = field(default_factory=list)

    def __call__(self, exchange: AgentExchange, head: RequestBlock) -> RequestSink:
        request = Request(exchange)
        self.begun.append((exchange, head, request))
        if self.body is not None:
            self.answer(exchange, self.body)
        return request

    def answer(self, exchange: AgentExchange, body: bytes) -> None:
        """A whole answer."""
        exchange.send_response(ResponseBlock(200, [(b"content-length", b"%d" % len(body))], ended=not body))
        if body:
            exchange.send_data(body)
            exchange.send_end()


class Request:
    """A `RequestSink` that takes everything."""

    def __init__(self, exchange: AgentExchange) -> None:
        self._exchange = exchange
        self.reset: ExchangeReset | None = None

    def on_data(self, data: bytes) -> None:
        self._exchange.consumed(len(data))

    def on_end(self, trailers: Headers) -> None: ...

    def on_reset(self, error: ExchangeReset) -> None:
        self.reset = error
        self._exchange.released()

    def on_writable(self) -> None: ...


class Asked:
    """A `ResponseSink`: what the gateway would have seen."""

    def __init__(self) -> None:
        self.head: ResponseBlock | None = None
        self.body = b""
        self.ended = False
        self.reset: ExchangeReset | None = None
        self.consume: Callable[[int], None] = lambda _count: None

    @property
    def over(self) -> bool:
        """Answered or failed."""
        return self.ended or self.reset is not None

    def on_response(self, head: ResponseBlock) -> None:
        self.head = head
        self.ended = head.ended

    def on_data(self, data: bytes) -> None:
        self.body += data
        self.consume(len(data))

    def on_end(self, trailers: Headers) -> None:
        self.ended = True

    def on_reset(self, error: ExchangeReset) -> None:
        self.reset = error

    def on_writable(self) -> None: ...


def get(*, long: bool = False) -> RequestBlock:
    """A request without a body."""
    return RequestBlock(b"GET", b"/api", [], long=long)


def ask(stub: Stub, cluster: str = "alpha", head: RequestBlock | None = None) -> Asked:
    """A request at the stub. Raises StubError."""
    asked = Asked()
    exchange = stub.sessions.open(cluster, head or get(), asked)
    asked.consume = exchange.consumed
    return asked


class Kept(IdentityFile):
    """An agent that was enrolled before."""

    def __init__(self, identity: AgentIdentity | None) -> None:
        super().__init__(None)
        self._identity = identity

    def load(self, cluster: str, cluster_id: str) -> AgentIdentity | None:
        return self._identity


class Real:
    """A real `Agent` with a scripted upstream half, running as a task. It is enrolled already, unless it has a `state`
    (directory), or `enrolled` is False.
    """

    def __init__(self, stub: Stub, handler: Answering | None = None, **setting: Any) -> None:
        self.handler = handler or Answering()
        servers = setting.pop("servers", (stub.name,))
        backoff = setting.pop("backoff", None) or BackOff(lambda: 0.0, first=0.05, most=0.2)
        token, state = setting.pop("token", TOKEN), setting.pop("state", None)
        kept, enrolled = setting.pop("file", None) or IdentityFile(state), setting.pop("enrolled", state is None)
        values: dict[str, Any] = {
            "cluster": "alpha", "cluster_id": UID, "agent": "agent-1", "software": "test", "instance": "1" * 32,
            "timing": QUICK, "stable": 0.0, "patience": 2.0, "limits": LinkLimits(),
            "links": LinkPoolLimits(warm=1, tidy=0.1, pause=0.05),
        }  # fmt: skip
        names = setting.pop("link_names", ())
        values |= setting
        who = values["cluster"], values["cluster_id"]
        allowed = Allowed(tuple(Address.parse(server) for server in servers), names)
        self.trust = Trust(stub.ca, state)
        self.dialler = Dialler(DialSettings(allowed, timeout=1.0), self.trust.context(None))
        batch = Batch(asyncio.get_running_loop().call_soon)
        file = Kept(stub.book.identity(*who)) if enrolled else kept
        self.membership = Membership(*who, file, self.trust, self.dialler.use, lambda: stub.book.wall())
        asking = Asking("agent-1", "test", "1" * 32, token)
        self.enrolment = Enrolment(asking, self.membership, self.dialler, batch)
        self.agent = Agent(AgentSetting(**values), self.enrolment, self.dialler, self.handler, batch, backoff)
        self.task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self.task = asyncio.create_task(self.agent.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self.task is not None
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


@asynccontextmanager
async def attached(stub: Stub, handler: Answering | None = None, **setting: Any) -> AsyncIterator[Real]:
    """A real agent whose session is up at both ends."""
    there = len(stub.sessions.all())
    async with Real(stub, handler, **setting) as real:
        await eventually(lambda: len(stub.sessions.all()) > there and real.agent.attached)
        await asyncio.sleep(0.02)  # its tasks have begun, too: `nothing_left` may look
        yield real


def insecure() -> ssl.SSLContext:
    """A client that trusts nobody in particular, for handshakes that are to fail or do not matter."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context

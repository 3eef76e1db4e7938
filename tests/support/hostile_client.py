"""A client that says exactly the bytes that a test wants, and reads answers with a plain reader of its own.

It shares no parser with Kulvert: what it takes for an answer is what any client on that connection would.
"""

from __future__ import annotations

import asyncio
import json
import re
import ssl
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

PATIENCE = 12.0
REVIEWS = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
_REVIEW = b'{"apiVersion":"authentication.k8s.io/v1","kind":"SelfSubjectReview"}'
_STATUS = re.compile(rb"HTTP/1\.1 ([1-9][0-9]{2}) [ -~]*\r\n")


@dataclass(frozen=True)
class Answer:
    """One final answer, with the 1xx that came before it."""

    status: int
    head: bytes
    body: bytes
    interims: tuple[int, ...] = ()

    def all(self, name: str) -> list[str]:
        """Every value of a header."""
        lines = self.head.decode("latin-1").split("\r\n")[1:]
        pairs = [line.split(": ", 1) for line in lines if line]
        return [value for found, value in pairs if found.lower() == name]

    def get(self, name: str) -> str | None:
        """The first value of a header."""
        found = self.all(name)
        return found[0] if found else None

    @property
    def json(self) -> Any:
        """The body."""
        return json.loads(self.body)


@dataclass(frozen=True)
class Seen:
    """Whom the API server took the request's sender for."""

    user: str
    groups: frozenset[str]
    extra: dict[str, list[str]]
    uid: str


class HostileClient:
    """One TLS connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def say(self, data: bytes) -> None:
        """Send bytes, in one write."""
        self._writer.write(data)
        with suppress(ConnectionError):
            await self._writer.drain()

    async def answer(self, method: str = "GET") -> Answer:
        """The next final answer. Anything that is none fails."""
        interims: list[int] = []
        async with asyncio.timeout(PATIENCE):
            while True:
                head = await self._reader.readuntil(b"\r\n\r\n")
                found = _STATUS.match(head)
                assert found, f"no answer begins with {head[:80]!r}"
                status = int(found[1])
                if status >= 200 or status == 101:
                    break
                interims.append(status)
            body = await self._body(status, head, method)
        return Answer(status, head, body, tuple(interims))

    async def _body(self, status: int, head: bytes, method: str) -> bytes:
        lowered = head.lower()
        lengths = re.findall(rb"\r\ncontent-length: (\d+)\r\n", lowered)
        chunked = b"\r\ntransfer-encoding: chunked\r\n" in lowered
        assert len(lengths) + chunked <= 1, f"an answer that is framed twice: {head!r}"
        if method == "HEAD" or status in (101, 204, 304):
            return b""
        if lengths:
            return await self._reader.readexactly(int(lengths[0]))
        if not chunked:
            return await self._reader.read()
        body = b""
        while size := int(await self._reader.readuntil(b"\r\n"), 16):
            body += (await self._reader.readexactly(size + 2))[:-2]
        while await self._reader.readuntil(b"\r\n") != b"\r\n":
            pass
        return body

    async def some(self, size: int) -> bytes:
        """Exactly so many opaque bytes."""
        async with asyncio.timeout(PATIENCE):
            return await self._reader.readexactly(size)

    async def rest(self) -> bytes:
        """Everything until the gateway closes, which it has to do in time."""
        data = b""
        async with asyncio.timeout(PATIENCE):
            try:
                while piece := await self._reader.read(65536):
                    data += piece
            except (ConnectionError, ssl.SSLError):
                pass
        return data

    async def silent(self, seconds: float = 0.3) -> bool:
        """Whether nothing comes for a while."""
        try:
            async with asyncio.timeout(seconds):
                return not await self._reader.read(1)
        except TimeoutError:
            return True

    async def whoami(self, cluster: str, *lines: str) -> Seen:
        """Ask a cluster's API server whom it sees."""
        await self.say(review(cluster, *lines))
        answer = await self.answer("POST")
        assert answer.status == 201, (answer.status, answer.body)
        return seen(answer)

    def end(self) -> None:
        """Close at once."""
        self._writer.transport.abort()


@asynccontextmanager
async def connected(port: int, tls: ssl.SSLContext, name: str = "localhost") -> AsyncIterator[HostileClient]:
    """A connection to 127.0.0.1, verified for `name`, that is closed at the end."""
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=tls, server_hostname=name, limit=1 << 20, ssl_shutdown_timeout=0.5
    )
    client = HostileClient(reader, writer)
    try:
        yield client
    finally:
        client.end()
        with suppress(ConnectionError, ssl.SSLError, TimeoutError):
            await writer.wait_closed()


def request(target: str, *lines: str, method: str = "GET", body: bytes = b"", host: str = "localhost") -> bytes:
    """A request. `lines` are whole header lines, as they are to be sent; a body's length is told."""
    told = [f"Content-Length: {len(body)}"] if body else []
    head = "\r\n".join([f"{method} {target} HTTP/1.1", f"Host: {host}", *told, *lines, "", ""])
    return head.encode("latin-1") + body


def review(cluster: str, *lines: str) -> bytes:
    """`kubectl auth whoami` of a cluster, or by host where `cluster` is empty."""
    prefix = f"/clusters/{cluster}" if cluster else ""
    return request(prefix + REVIEWS, "Content-Type: application/json", *lines, method="POST", body=_REVIEW)


def seen(answer: Answer) -> Seen:
    """What a SelfSubjectReview says."""
    info = answer.json["status"]["userInfo"]
    return Seen(info["username"], frozenset(info.get("groups", ())), info.get("extra", {}), info.get("uid", ""))


UPGRADE = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13")
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def upgrade(target: str, *lines: str, method: str = "GET", host: str = "localhost") -> bytes:
    """A WebSocket upgrade, with RFC 6455's own key."""
    return request(target, *UPGRADE, f"Sec-WebSocket-Key: {KEY}", *lines, method=method, host=host)


SWITCHED = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Accept: " + ACCEPT.encode() + b"\r\n\r\n"
)
"""The right answer to `upgrade`."""


async def exchanged(client: HostileClient, asked: bytes, method: str = "GET") -> Answer | None:
    """Ask; None where the gateway cut the answer off, or gave none, and closed."""
    await client.say(asked)
    try:
        return await client.answer(method)
    except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
        return None


async def assert_unpoisoned(client: HostileClient, user: str = "ada") -> bool:
    """What comes next on a connection is beta's own answer, or its end and nothing else. True: it is still open."""
    await client.say(review("beta"))
    try:
        answer = await client.answer("POST")
    except asyncio.IncompleteReadError as end:
        if end.partial:
            raise AssertionError(f"bytes of another answer: {end.partial[:200]!r}") from end
        return False
    except (ConnectionError, ssl.SSLError):
        return False
    assert answer.status == 201, (answer.status, answer.body)
    assert answer.get("x-poison") is None
    assert seen(answer).user == user
    return True


async def together(cases: Mapping[str, Coroutine[Any, Any, None]]) -> None:
    """All cases at once, since a gateway that closes lingers for two seconds; each failure names its case."""

    async def one(name: str, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as error:
            error.add_note(f"in the case {name!r}")
            raise

    async with asyncio.TaskGroup() as group:
        for name, work in cases.items():
            group.create_task(one(name, work))

"""A raw HTTPS client: what goes over the wire is the test's, and what comes back is seen as it is."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import ssl
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tests.support.cluster_api import until
from tests.support.platform import Platform

LIMIT = 1 << 20


@dataclass(frozen=True)
class Answer:
    """One HTTP answer, whole. `seconds` passed between the request and its end."""

    status: int
    headers: dict[str, str]
    body: bytes
    seconds: float

    @property
    def json(self) -> Any:
        """The body."""
        return json.loads(self.body)

    @property
    def audit_id(self) -> str:
        """By which the audit log knows it."""
        return self.headers.get("audit-id", "")

    @property
    def hop(self) -> str:
        """Where a failure of Kulvert's happened."""
        return self._cause("Hop")

    def _cause(self, reason: str) -> str:
        return str(next(cause["message"] for cause in self.json["details"]["causes"] if cause["reason"] == reason))

    def expect(self, status: int, reason: str, hop: str, *words: str, within: float = 2.0) -> Self:
        """A clear Status of Kulvert's own, in time. Itself, for more."""
        told = self.body.decode(errors="replace")
        assert self.status == status, f"{self.status}: {told}"
        found = self.json
        assert (found["kind"], found["apiVersion"], found["status"]) == ("Status", "v1", "Failure")
        assert (found["code"], found["reason"], self.hop) == (status, reason, hop), told
        assert all(word in found["message"] for word in words), told
        assert self.audit_id
        assert self._cause("AuditID") == self.audit_id
        assert self.seconds < within, f"it took {self.seconds:.2f} s"
        return self


class Broken(Exception):
    """The connection ended before an answer did; `got` is what came of it."""

    def __init__(self, got: bytes) -> None:
        super().__init__(f"the connection ended after {len(got)} bytes: {got[-200:]!r}")
        self.got = got


class Https:
    """One keep-alive connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.transport.abort()
        await asyncio.sleep(0)

    def say(self, method: str, target: str, *headers: str, body: bytes = b"") -> None:
        """Write a request, and do not wait."""
        lines = [f"{method} {target} HTTP/1.1", "Host: localhost", *headers]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        self.writer.write("\r\n".join([*lines, "", ""]).encode() + body)

    async def head(self) -> tuple[int, dict[str, str]]:
        """Status and headers (names in lower case) of the next answer. Raises Broken."""
        try:
            raw = await self.reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as error:
            raise Broken(error.partial) from None
        except ConnectionError:
            raise Broken(b"") from None
        first, *lines = raw.decode("latin-1").split("\r\n")[:-2]
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        return int(first.split()[1]), headers

    async def body(self, headers: dict[str, str]) -> bytes:
        """A body, by its framing. Raises Broken where it is not whole."""
        got = b""
        try:
            if "content-length" in headers:
                return await self.reader.readexactly(int(headers["content-length"]))
            assert headers.get("transfer-encoding") == "chunked", headers
            while size := int(await self.reader.readuntil(b"\r\n"), 16):
                got += (await self.reader.readexactly(size + 2))[:-2]
            await self.reader.readuntil(b"\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            raise Broken(got) from None
        return got

    async def answer(self, timeout: float = 20.0) -> Answer:
        """The next answer, whole. Raises Broken, or TimeoutError."""
        began = time.monotonic()
        async with asyncio.timeout(timeout):
            status, headers = await self.head()
            body = b"" if status in (101, 204, 304) else await self.body(headers)
        return Answer(status, headers, body, time.monotonic() - began)

    async def ask(self, method: str, target: str, *headers: str, body: bytes = b"", timeout: float = 20.0) -> Answer:
        """A request, and its answer."""
        self.say(method, target, *headers, body=body)
        return await self.answer(timeout)

    async def answered_end(self, timeout: float = 5.0) -> bytes:
        """The last chunk of a stream that ends whole, behind whatever else there is."""
        async with asyncio.timeout(timeout):
            return (await self.reader.readuntil(b"\r\n0\r\n\r\n"))[-5:]

    async def ended(self, timeout: float = 5.0) -> bytes:
        """Everything until the server closes."""
        got = b""
        async with asyncio.timeout(timeout):
            try:
                while data := await self.reader.read(LIMIT):
                    got += data
            except ConnectionError:
                pass
        return got


class User:
    """Somebody with a client certificate of a platform's."""

    def __init__(self, platform: Platform, name: str = "admin", groups: Iterable[str] = ("kulvert:admins",)) -> None:
        self._platform = platform
        self.name = name
        issued = platform.certificate(name, groups)
        self.context = ssl.create_default_context(cadata=platform.ca.decode())
        path = platform.directory / f"{name}.{os.urandom(4).hex()}.pem"
        path.touch(mode=0o600)
        path.write_bytes(issued.certificate + issued.key)
        self.context.load_cert_chain(path)

    async def connect(self, *, receive: int = 0) -> Https:
        """A connection; `receive` bounds its socket's buffer, for readers that are to stall early."""
        sock = socket.socket()
        sock.setblocking(False)
        if receive:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
        try:
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self._platform.port))
        except BaseException:
            sock.close()
            raise
        limit = min(LIMIT, receive or LIMIT)
        reader, writer = await asyncio.open_connection(
            sock=sock, ssl=self.context, server_hostname="localhost", limit=limit
        )
        return Https(reader, writer)

    async def ask(self, method: str, target: str, *headers: str, body: bytes = b"", timeout: float = 20.0) -> Answer:
        """One request on a connection of its own."""
        async with await self.connect() as connection:
            return await connection.ask(method, target, *headers, body=body, timeout=timeout)

    async def get(self, cluster: str, path: str = "/api/v1/namespaces/default", timeout: float = 20.0) -> Answer:
        """A read, at a cluster."""
        return await self.ask("GET", f"/clusters/{cluster}{path}", timeout=timeout)

    async def works(self, cluster: str, timeout: float = 10.0) -> float:
        """Waits until a read at a cluster succeeds; gives the seconds that took."""
        began = time.monotonic()
        while True:
            try:
                if (await self.get(cluster, timeout=timeout)).status == 200:
                    return time.monotonic() - began
            except (OSError, Broken):
                pass
            assert time.monotonic() - began < timeout, f"{cluster} did not answer within {timeout} s"
            await asyncio.sleep(0.05)


async def audit_of(platform: Platform, *audit_ids: str) -> list[dict[str, Any]]:
    """The records that complete these requests, one each: they are written right after the answers."""

    async def found() -> list[dict[str, Any]] | None:
        events = [e for e in platform.audit() if e["auditID"] in audit_ids and e["stage"] == "ResponseComplete"]
        return events if len(events) >= len(audit_ids) else None

    records = {event["auditID"]: event for event in await until(found, "audit records", 3) or ()}
    return [records[audit_id] for audit_id in audit_ids]


def children(pid: int) -> list[int]:
    """The processes below one."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]

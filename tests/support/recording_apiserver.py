"""An API server that writes down every byte it is sent, and answers what a test wants, honest or not.

It runs in threads of its own, with blocking sockets: one serves a whole test session, whatever loops the tests have.
What the agent asks for itself (its cluster's id, its health) is answered honestly, and kept apart.
"""

from __future__ import annotations

import json
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
_OWN = (
    b"GET /readyz ", b"GET /api/v1/namespaces/kube-system ", b"GET /.well-known/openid-configuration ",
    b"GET /openid/v1/jwks ", b"GET /version ", b"GET /api/v1/nodes?limit=50",
)  # fmt: skip
_IMPATIENT = 20.0
ISSUER = "https://kubernetes.default.svc"
"""Of its service accounts: the name that every cluster has."""


@dataclass
class Wire:
    """One accepted connection."""

    sock: ssl.SSLSocket
    number: int
    buffer: bytes = b""

    def head(self) -> bytes:
        """The next head; empty when the agent has closed."""
        while b"\r\n\r\n" not in self.buffer:
            if not self._more():
                return b""
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        return head + b"\r\n\r\n"

    def body(self, head: bytes) -> bytes:
        """A request's body, by its framing."""
        if found := re.search(rb"\r\ncontent-length: (\d+)\r\n", head, re.IGNORECASE):
            return self.exactly(int(found[1]))
        if not re.search(rb"\r\ntransfer-encoding: chunked\r\n", head, re.IGNORECASE):
            return b""
        body = b""
        while size := int(self.until(b"\r\n"), 16):
            body += self.exactly(size + 2)[:-2]
        self.until(b"\r\n")
        return body

    def exactly(self, count: int) -> bytes:
        """So many bytes."""
        while len(self.buffer) < count and self._more():
            pass
        data, self.buffer = self.buffer[:count], self.buffer[count:]
        return data

    def until(self, end: bytes) -> bytes:
        """Bytes up to an ending."""
        while end not in self.buffer and self._more():
            pass
        data, mark, self.buffer = self.buffer.partition(end)
        return data + mark

    def rest(self) -> bytes:
        """Everything until the agent closes."""
        while self._more():
            pass
        data, self.buffer = self.buffer, b""
        return data

    def say(self, data: bytes) -> None:
        """Send bytes."""
        self.sock.sendall(data)

    def _more(self) -> bool:
        data = self.sock.recv(65536)
        self.buffer += data
        return bool(data)


Reply = bytes | Callable[[Wire], None]
"""Bytes to say, or what to do; after either, the next request is read on the same connection."""
Script = Callable[[bytes], Reply]
"""Makes of a head its reply."""


@dataclass(frozen=True)
class Recorded:
    """A request, byte for byte."""

    connection: int
    head: bytes
    body: bytes

    @property
    def target(self) -> bytes:
        """As it stands in the request line."""
        return self.head.split(b" ", 2)[1]

    def all(self, name: bytes) -> list[bytes]:
        """Every value of a header, by its lower-cased name."""
        lines = self.head.split(b"\r\n")[1:-2]
        pairs = [line.split(b":", 1) for line in lines]
        return [value.strip() for found, value in pairs if found.lower() == name]


def always(reply: Reply) -> Script:
    """The same reply to every request."""
    return lambda _head: reply


def closing(data: bytes) -> Script:
    """Say this, and close."""

    def reply(wire: Wire) -> None:
        wire.say(data)
        raise EOFError

    return always(reply)


def honest(_head: bytes) -> Reply:
    """Says yes to everything."""
    return OK


@dataclass
class RecordingApiServer:
    """Context-managed. `requests` are those that were not the agent's own."""

    tls: ssl.SSLContext
    uid: str = "00000000-0000-4000-8000-00000000fa4e"
    requests: list[Recorded] = field(default_factory=list)
    own: list[Recorded] = field(default_factory=list)
    strays: list[bytes] = field(default_factory=list)
    """Bytes that were no whole request."""
    handshakes_failed: int = 0
    script: Script = honest
    issuer: dict[str, object] = field(default_factory=dict)
    """The key set of this cluster's service accounts; without one it names no issuer."""
    passed: bytes = b""
    """The one token of them that the test passes through."""

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._stopping = False
        self._threads: list[threading.Thread] = []
        self._socks: set[socket.socket] = set()
        self._accepting = threading.Thread(target=self._accept, name="recording API server")
        self._accepting.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping = True
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for sock in list(self._socks):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in [self._accepting, *self._threads]:
            thread.join(5.0)

    @contextmanager
    def answering(self, script: Script | bytes) -> Iterator[None]:
        """Answer so for a while: by a script, or always the same."""
        self.script = always(script) if isinstance(script, bytes) else script
        try:
            yield
        finally:
            self.script = honest

    def find(self, part: bytes) -> list[Recorded]:
        """The requests whose target holds this."""
        return [one for one in list(self.requests) if part in one.target]

    def wait(self, part: bytes, count: int = 1, timeout: float = 5.0) -> list[Recorded]:
        """The same, once there are so many."""
        deadline = time.monotonic() + timeout
        while len(found := self.find(part)) < count and time.monotonic() < deadline:
            time.sleep(0.005)
        assert len(found) >= count, f"{part!r} never reached the API server"
        return found

    @property
    def said(self) -> bytes:
        """Everything that ever arrived, but for the agent's own questions."""
        return b"".join([one.head + one.body for one in self.requests] + self.strays)

    def _accept(self) -> None:
        number = 0
        while not self._stopping:
            try:
                plain, _ = self._listener.accept()
            except OSError:
                return
            self._socks.add(plain)
            thread = threading.Thread(target=self._serve, args=(plain, number), name=f"API connection {number}")
            self._threads.append(thread)
            thread.start()
            number += 1

    def _serve(self, plain: socket.socket, number: int) -> None:
        plain.settimeout(_IMPATIENT)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socks.discard(plain)
        try:
            sock = self.tls.wrap_socket(plain, server_side=True)
        except (OSError, ValueError):
            self.handshakes_failed += 1
            plain.close()
            return
        self._socks.add(sock)
        wire = Wire(sock, number)
        try:
            while self._one(wire):
                pass
        except (OSError, EOFError, ValueError):
            pass
        finally:
            if wire.buffer:
                self.strays.append(wire.buffer)
            self._socks.discard(sock)
            sock.close()

    def _one(self, wire: Wire) -> bool:
        head = wire.head()
        if not head:
            return False
        if head.startswith(_OWN) and not re.search(rb"\r\n(?:impersonate|audit-id:)", head.lower()):
            self.own.append(Recorded(wire.number, head, b""))
            wire.say(_json(self._own_answer(head)))
            return True
        body = wire.body(head)
        self.requests.append(Recorded(wire.number, head, body))
        reply = self.script(head)
        if isinstance(reply, bytes):
            wire.say(reply)
        else:
            reply(wire)
        return True

    def _own_answer(self, head: bytes) -> object:
        if b"/openid-configuration " in head:
            return {"issuer": ISSUER} if self.issuer else {}
        if b"/jwks " in head:
            return self.issuer
        if b"/version " in head:
            return {"gitVersion": "v1.36.0"}
        return {"metadata": {"name": "kube-system", "uid": self.uid}}


def _json(value: object) -> bytes:
    body = json.dumps(value).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


def by_case(replies: Mapping[str, Reply]) -> Script:
    """The reply that the target's `case=NAME` names, NAME being a position in `replies`."""
    ordered = list(replies.values())

    def script(head: bytes) -> Reply:
        found = re.search(rb"case=(\d+)", head)
        return ordered[int(found[1])] if found else OK

    return script

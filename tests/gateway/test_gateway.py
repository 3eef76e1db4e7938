"""The composed gateway on real sockets: TLS, client certificates, draining."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import uvloop

from auth.chain import AuthenticatorChain
from auth.grants.grants import Decisions
from auth.pki import CertificateAuthority
from auth.x509 import CertificateAuthenticator
from gateway.audit.log import AuditIds, AuditLog
from gateway.audit.trail import AuditTrail
from gateway.connection import ClientConnection
from gateway.gateway import Gateway, GatewayParts
from gateway.limits import DoorTimeouts
from gateway.listener import TlsFiles, listening_socket, server_context
from gateway.passage import Passage
from tests.gateway.gate import GRANTS, Names, Tokens
from tests.gateway.wire import FakeClusters
from tunnel.batch import Batch

GET = b"GET /clusters/a/api/v1/pods HTTP/1.1\r\nHost: gateway\r\n"


class Pki:
    """The platform's authority, another one, and what they have signed, as files."""

    def __init__(self, at: Path) -> None:
        now = time.time()
        self.at = at
        self.users = CertificateAuthority.create("users", now)
        self.others = CertificateAuthority.create("others", now)
        self.tls = TlsFiles(*self._write("server", self.users.issue_server(["127.0.0.1"], now, 3600)), at / "ca.pem")
        (at / "ca.pem").write_bytes(self.users.certificate_pem)
        self.carol = self._write("carol", self.users.issue_client("carol", ["devs"], now, 3600))
        self.mallory = self._write("mallory", self.others.issue_client("carol", ["devs"], now, 3600))

    def _write(self, name: str, issued: Any) -> tuple[Path, Path]:
        certificate, key = self.at / f"{name}.pem", self.at / f"{name}.key"
        certificate.write_bytes(issued.certificate)
        key.write_bytes(issued.key)
        return certificate, key

    def client(self, files: tuple[Path, Path] | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.at / "ca.pem"))
        if files is not None:
            context.load_cert_chain(*files)
        return context


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


@asynccontextmanager
async def serving(
    pki: Pki, clusters: FakeClusters, drain: float = 1.0, timeouts: DoorTimeouts | None = None
) -> AsyncIterator[Gateway]:
    loop = asyncio.get_running_loop()
    sock = listening_socket("127.0.0.1", 0)
    if timeouts is not None:  # else the kernel would hold megabytes for who does not read
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16_384)
    authority = CertificateAuthenticator((pki.users.certificate,))
    parts = GatewayParts(
        clusters=clusters,
        registry=Names(["a", "b"]),
        authenticator=AuthenticatorChain([authority, Tokens()]),
        grants=Decisions(GRANTS),
        audit=AuditTrail(AuditLog(None, loop.call_soon), AuditIds(os.urandom), time.time),
        batch=Batch(loop.call_soon),
        sockets=(sock,),
        tls=server_context(pki.tls),
        clock=time.monotonic,
        wall=time.time,
        version="0.0.0",
        timeouts=timeouts or DoorTimeouts(drain=drain),
    )
    async with Gateway(parts) as gateway:
        yield gateway


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


async def opened(clusters: FakeClusters, count: int = 1) -> Any:
    for _ in range(500):
        if len(clusters.opened) >= count:
            return clusters.last
        await asyncio.sleep(0.005)
    raise AssertionError("nothing was opened")


def test_a_client_certificate_is_the_user(pki: Pki) -> None:
    async def main() -> None:
        clusters = FakeClusters()
        async with serving(pki, clusters) as gateway:
            reader, writer = await asyncio.open_connection("127.0.0.1", gateway.ports[0], ssl=pki.client(pki.carol))
            for _ in range(2):
                writer.write(GET + b"\r\n")
                exchange = await opened(clusters)
                assert exchange.header(b"impersonate-user") == [b"carol"]
                assert exchange.header(b"impersonate-group") == [b"devs"]
                exchange.respond(200, body=b"hello")
                head = await reader.readuntil(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 200 OK\r\n")
                assert await reader.readexactly(5) == b"hello"
                clusters.opened.clear()
            writer.close()

    run(main)


def test_a_certificate_of_an_unknown_authority_fails_the_handshake(pki: Pki) -> None:
    async def main() -> None:
        clusters = FakeClusters()
        async with serving(pki, clusters) as gateway:
            reader, writer = None, None
            with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):  # noqa: PT012
                reader, writer = await asyncio.open_connection(
                    "127.0.0.1", gateway.ports[0], ssl=pki.client(pki.mallory)
                )
                writer.write(GET + b"\r\n")
                await reader.readuntil(b"\r\n\r\n")  # TLS 1.3 tells the client after its own part
            assert not clusters.opened

    run(main)


def test_without_a_certificate_a_token_counts(pki: Pki) -> None:
    async def main() -> None:
        clusters = FakeClusters()
        async with serving(pki, clusters) as gateway:
            reader, writer = await asyncio.open_connection("127.0.0.1", gateway.ports[0], ssl=pki.client())
            writer.write(GET + b"\r\n")
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 401 ")
            writer.close()

    run(main)


def test_old_tls_and_other_protocols_are_refused(pki: Pki) -> None:
    context = server_context(pki.tls)
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert context.verify_mode == ssl.CERT_OPTIONAL
    assert server_context(TlsFiles(pki.tls.certificate, pki.tls.key)).verify_mode == ssl.CERT_NONE


def test_sockets_are_tuned() -> None:
    sock = listening_socket("127.0.0.1", 0)
    try:
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 0  # or a pager would be cut off
    finally:
        sock.close()


def test_draining_lets_current_answers_finish_and_closes_idle_connections(pki: Pki) -> None:
    async def main() -> None:
        clusters = FakeClusters()
        async with serving(pki, clusters, drain=5.0) as gateway:
            port = gateway.ports[0]
            idle, idle_writer = await asyncio.open_connection("127.0.0.1", port, ssl=pki.client())
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=pki.client(pki.carol))
            writer.write(GET + b"\r\n")
            exchange = await opened(clusters)
            draining = asyncio.ensure_future(gateway.drain())
            assert await idle.read() == b""
            exchange.respond(200, body=b"hello")
            answer = await reader.read()
            assert b"\r\nconnection: close\r\n" in answer
            assert answer.endswith(b"hello")
            await draining
            with pytest.raises(OSError):
                await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            idle_writer.close()

    run(main)


def test_a_stream_that_outlives_the_drain_is_ended(pki: Pki) -> None:
    async def main() -> None:
        clusters = FakeClusters()
        async with serving(pki, clusters, drain=0.2) as gateway:
            reader, writer = await asyncio.open_connection("127.0.0.1", gateway.ports[0], ssl=pki.client(pki.carol))
            writer.write(GET[:-2] + b"\r\n\r\n")
            exchange = await opened(clusters)
            exchange.begin()
            exchange.sink.on_data(b"first")
            await reader.readuntil(b"first\r\n")
            await gateway.drain()
            assert exchange.cancelled is not None
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                await reader.readuntil(b"0\r\n\r\n")
            writer.close()

    run(main)


def test_a_reader_that_stops_holds_a_bounded_amount(pki: Pki) -> None:
    """The transport's buffer, the exchange's credit, and what the kernel takes."""
    credit, size = 65_536, 16_384

    async def main() -> None:
        clusters = FakeClusters()
        async with serving(pki, clusters) as gateway:
            small = socket.socket()
            small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
            small.setblocking(False)
            await asyncio.get_running_loop().sock_connect(small, ("127.0.0.1", gateway.ports[0]))
            reader, writer = await asyncio.open_connection(
                sock=small, ssl=pki.client(pki.carol), server_hostname="127.0.0.1", limit=1024
            )
            writer.write(GET + b"\r\n")
            exchange = await opened(clusters)
            exchange.begin()
            pushed, unchanged = 0, 0
            while unchanged < 20:
                before = pushed
                while pushed + size <= exchange.paid + credit:
                    exchange.sink.on_data(b"x" * size)
                    pushed += size
                await asyncio.sleep(0.01)
                unchanged = unchanged + 1 if pushed == before else 0
            assert pushed - exchange.paid <= credit
            assert pushed < 16 * 1024 * 1024
            got = 0
            while got < pushed:
                got += (await asyncio.wait_for(reader.read(65_536), 5)).count(b"x")
            await asyncio.sleep(0.05)
            assert exchange.paid > pushed - credit
            writer.close()

    run(main)


async def narrow(gateway: Gateway, tls: ssl.SSLContext) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A client whose kernel takes little, and which reads when the test does."""
    small = socket.socket()
    small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
    small.setblocking(False)
    await asyncio.get_running_loop().sock_connect(small, ("127.0.0.1", gateway.ports[0]))
    return await asyncio.open_connection(sock=small, ssl=tls, server_hostname="127.0.0.1", limit=1024)


def resident() -> int:
    """Bytes of this process's memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_pipelining_stranger_that_does_not_read_holds_a_bounded_amount(pki: Pki) -> None:
    request = b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 1000 + b"\r\n\r\n"

    async def main() -> None:
        async with serving(pki, FakeClusters(), timeouts=DoorTimeouts(drain=1.0)) as gateway:
            reader, writer = await narrow(gateway, pki.client())
            await asyncio.sleep(0.1)
            (connection,) = gateway.listeners[0].door.connections
            before, sent = resident(), 0
            with suppress(TimeoutError):
                while sent < 60_000:
                    writer.write(request * 50)
                    sent += 50
                    await asyncio.sleep(0)
                    async with asyncio.timeout(1.0):
                        await writer.drain()
                    assert connection.transport.get_write_buffer_size() < 256 * 1024
            assert sent < 60_000
            assert not connection.reading
            assert resident() - before < 16 * 1024 * 1024
            answered = 0
            async with asyncio.timeout(60.0):
                while answered < sent:
                    answered += (await reader.readuntil(b"\r\n\r\n")).count(b"HTTP/1.1 401 ")
            writer.close()

    run(main)


async def stalled_at_its_end(clusters: FakeClusters) -> int:
    """An answer as long as there is credit for it, and its end. How long?"""
    exchange = await opened(clusters)
    exchange.begin()
    pushed, unchanged = 0, 0
    while unchanged < 20:
        before = pushed
        while pushed + 16_384 <= exchange.paid + 65_536:
            exchange.sink.on_data(b"x" * 16_384)
            pushed += 16_384
        await asyncio.sleep(0.01)
        unchanged = unchanged + 1 if pushed == before else 0
    exchange.sink.on_end([])
    return pushed


def test_a_reader_that_stands_still_at_the_end_gets_all_of_it(pki: Pki) -> None:
    async def main() -> None:
        clusters = FakeClusters()
        async with serving(pki, clusters, timeouts=DoorTimeouts(drain=1.0)) as gateway:
            reader, writer = await narrow(gateway, pki.client(pki.carol))
            writer.write(GET + b"Connection: close\r\n\r\n")
            pushed = await stalled_at_its_end(clusters)
            await asyncio.sleep(4.0)
            answer = await reader.read()
            assert answer.count(b"x") >= pushed
            assert answer.endswith(b"0\r\n\r\n")
            writer.close()

    run(main)


def test_a_reader_that_never_comes_back_is_ended(pki: Pki, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DoorTimeouts, "tail", 2.0, raising=False)

    async def main() -> None:
        clusters = FakeClusters()
        timeouts = DoorTimeouts(drain=1.0, linger=0.1, sweep=0.2)
        async with serving(pki, clusters, timeouts=timeouts) as gateway:
            _, writer = await narrow(gateway, pki.client(pki.carol))
            writer.write(GET + b"Connection: close\r\n\r\n")
            await stalled_at_its_end(clusters)
            door = gateway.listeners[0].door
            await asyncio.sleep(1.0)
            assert door.connections
            await asyncio.sleep(2.0)
            assert not door.connections
            writer.transport.abort()

    run(main)


def test_the_end_of_a_client_that_is_not_read_is_seen(pki: Pki) -> None:
    async def main() -> None:
        clusters = FakeClusters()
        timeouts = DoorTimeouts(drain=1.0, sweep=0.2)
        async with serving(pki, clusters, timeouts=timeouts) as gateway:
            _, writer = await asyncio.open_connection("127.0.0.1", gateway.ports[0], ssl=pki.client(pki.carol))
            writer.write(GET.replace(b"GET", b"POST") + b"Content-Length: 9999999\r\n\r\n")
            exchange = await opened(clusters)
            exchange.room = False
            for _ in range(8):
                writer.write(b"x" * 10_000)
                await asyncio.sleep(0.02)
            writer.transport.abort()  # a process that was killed: FIN, and no farewell of TLS
            for _ in range(100):
                if exchange.cancelled is not None:
                    break
                await asyncio.sleep(0.02)
            assert exchange.cancelled is not None

    run(main)


def test_nothing_keeps_a_closed_connection_alive(pki: Pki) -> None:
    """Not even until the garbage collector runs: 10,000 connections would wait for it together."""

    def alive() -> int:
        return sum(isinstance(one, ClientConnection | Passage) for one in gc.get_objects())

    # aiohttp remembers its last 1,024 handlers, and with them the applications of other tests and what hangs on those.
    gc.collect()
    before = alive()

    async def main() -> None:
        clusters = FakeClusters()
        async with serving(pki, clusters) as gateway:
            reader, writer = await asyncio.open_connection("127.0.0.1", gateway.ports[0], ssl=pki.client(pki.carol))
            writer.write(GET + b"\r\n")
            (await opened(clusters)).respond(200, body=b"hello")
            await reader.readuntil(b"hello")
            assert alive() > before
            clusters.opened.clear()
            gc.disable()
            try:
                writer.close()
                for _ in range(20):
                    await asyncio.sleep(0.05)
                    if alive() == before:
                        break
                assert alive() == before
            finally:
                gc.enable()

    run(main)

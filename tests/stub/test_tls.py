"""TLS of the agents' door, against asyncio's own at the other end."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, cast

import pytest

from agent.access import verifying_context
from stub import tls
from stub.tls import RECORD, STEP, TlsConnection
from tests.agent.pki import Authority
from tests.support.attached import HOST, eventually, nothing_left

MIB = 1024 * 1024


class Inner(asyncio.Protocol):
    """What is inside; it notes what it hears."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.data = b""
        self.transport: asyncio.Transport
        self.paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.heard.append("made")

    def data_received(self, data: bytes) -> None:
        self.data += data

    def eof_received(self) -> bool:
        self.heard.append("eof")
        return False

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False

    def connection_lost(self, exc: BaseException | None) -> None:
        self.heard.append("lost")


class Scene:
    """A listener whose connections are TlsConnections, and what became of them."""

    def __init__(self, context: ssl.SSLContext, ca: str) -> None:
        self.context = context
        self.ca = ca
        self.port = 0
        self.inner: list[Inner] = []
        self.outer: list[TlsConnection] = []
        self.failed = 0

    def make(self) -> Inner:
        self.inner.append(Inner())
        return self.inner[-1]

    def fail(self) -> None:
        self.failed += 1

    def accept(self) -> TlsConnection:
        self.outer.append(TlsConnection(self.context, self.make, self.fail))
        return self.outer[-1]

    async def connect(self, **more: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A client whose handshake is done."""
        context = verifying_context(self.ca)
        for name, value in more.items():
            setattr(context, name, value)
        reader, writer = await asyncio.open_connection(HOST, self.port, ssl=context)
        await eventually(lambda: self.inner)
        return reader, writer

    async def raw(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A client that speaks no TLS."""
        return await asyncio.open_connection(HOST, self.port)


@pytest.fixture
async def scene(authority: Authority, tmp_path: Path) -> AsyncIterator[Scene]:
    scene = Scene(authority.issue("stub", HOST).server_context(tmp_path), authority.pem)
    async with nothing_left():
        server = await asyncio.get_running_loop().create_server(scene.accept, HOST, 0)
        scene.port = server.sockets[0].getsockname()[1]
        yield scene
        server.close()
        for connection in scene.outer:
            connection.abort()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("size", [1, RECORD, RECORD + 1, 3 * MIB])
async def test_bytes_arrive_both_ways(scene: Scene, size: int, version: ssl.TLSVersion) -> None:
    reader, writer = await scene.connect(maximum_version=version)
    data = os.urandom(size)
    writer.write(data)
    await eventually(lambda: len(scene.inner[0].data) == size)
    assert scene.inner[0].data == data
    scene.inner[0].transport.write(data)
    async with asyncio.timeout(5):
        assert await reader.readexactly(size) == data
    writer.close()
    await eventually(lambda: scene.inner[0].heard == ["made", "eof", "lost"])


class Wire(asyncio.Transport):
    """A plain transport that only notes."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = b""
        self.ended = ""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.sent += data

    def close(self) -> None:
        self.ended = self.ended or "closed"

    def abort(self) -> None:
        self.ended = "aborted"

    def is_closing(self) -> bool:
        return bool(self.ended)

    def get_write_buffer_size(self) -> int:
        return len(self.sent)


class Client:
    """The other end of a Wire, in memory."""

    def __init__(self, ca: str) -> None:
        self.into, self.out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = verifying_context(ca).wrap_bio(self.into, self.out, server_hostname=HOST)

    def exchange(self, connection: TlsConnection, wire: Wire, feed: Callable[[bytes], list[bytes]]) -> None:
        """Handshake, in pieces that `feed` cuts."""
        for _ in range(4):
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                pass
            for piece in feed(self.out.read()):
                connection.data_received(piece)
            self.into.write(wire.sent)
            wire.sent = b""


def whole(data: bytes) -> list[bytes]:
    return [data]


def single(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


@pytest.fixture
def joined(scene: Scene) -> tuple[TlsConnection, Wire, Client]:
    connection, wire, client = scene.accept(), Wire(), Client(scene.ca)
    connection.connection_made(wire)
    return connection, wire, client


@pytest.mark.parametrize("feed", [whole, single])
async def test_bytes_come_however_they_are_cut(
    scene: Scene, joined: tuple[TlsConnection, Wire, Client], feed: Callable[[bytes], list[bytes]]
) -> None:
    connection, wire, client = joined
    client.exchange(connection, wire, feed)
    data = os.urandom(2 * STEP)
    client.tls.write(data)
    for piece in feed(client.out.read()):
        connection.data_received(piece)
    assert scene.inner[0].data == data


async def test_what_many_records_held_is_given_in_one(scene: Scene, joined: tuple[TlsConnection, Wire, Client]) -> None:
    connection, wire, client = joined
    client.exchange(connection, wire, whole)
    heard: list[int] = []
    scene.inner[0].data_received = lambda data: heard.append(len(data))  # type: ignore[method-assign]  # watched
    for _ in range(20):
        client.tls.write(b"x" * 1_000)
    connection.data_received(client.out.read())
    assert heard == [20_000]


async def test_openssl_is_given_little_at_a_time(
    scene: Scene, joined: tuple[TlsConnection, Wire, Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its memory BIOs keep what they once grew to, in each of thousands of connections."""
    connection, wire, client = joined
    client.exchange(connection, wire, whole)
    given: list[int] = []

    class Watched:
        def __init__(self, inside: ssl.MemoryBIO) -> None:
            self.inside = inside

        def write(self, data: bytes) -> None:
            given.append(len(data) + self.inside.pending)
            self.inside.write(data)

        @property
        def pending(self) -> int:
            return self.inside.pending

    monkeypatch.setattr(connection, "_incoming", Watched(connection._incoming))
    client.tls.write(bytes(RECORD))
    client.tls.write(bytes(RECORD))
    connection.data_received(client.out.read())
    assert scene.inner[0].data == bytes(2 * RECORD)
    assert max(given) <= STEP


async def test_rubbish_is_told_off_and_nobody_inside_hears_of_it(scene: Scene) -> None:
    _, writer = await scene.raw()
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 1_000)
    await eventually(lambda: scene.failed == 1)
    assert not scene.inner
    writer.transport.abort()


async def test_one_who_goes_during_the_handshake_is_noticed(scene: Scene) -> None:
    _, writer = await scene.raw()
    await eventually(lambda: scene.outer)
    writer.transport.abort()
    await eventually(lambda: scene.failed == 1)


async def test_a_record_that_was_changed_on_the_way_ends_the_connection(
    scene: Scene, joined: tuple[TlsConnection, Wire, Client]
) -> None:
    connection, wire, client = joined
    client.exchange(connection, wire, whole)
    client.tls.write(b"hello")
    record = bytearray(client.out.read())
    record[-1] ^= 1
    connection.data_received(bytes(record))
    assert wire.ended == "closed"
    assert scene.inner[0].data == b""
    connection.data_received(b"more")
    connection.connection_lost(None)
    assert scene.inner[0].heard == ["made", "lost"]


async def test_an_end_without_tls_own_is_an_end(scene: Scene) -> None:
    _, writer = await scene.connect()
    writer.transport.abort()
    await eventually(lambda: scene.inner[0].heard[-1] == "lost")


async def test_closing_sends_what_was_written_and_waits_for_the_peer(scene: Scene) -> None:
    reader, writer = await scene.connect()
    inner = scene.inner[0]
    inner.transport.write(b"x" * MIB)
    inner.transport.close()
    assert inner.transport.is_closing()
    inner.transport.write(b"too late")
    await asyncio.sleep(0.05)
    async with asyncio.timeout(5):
        assert await reader.read(-1) == b"x" * MIB
    writer.close()
    await eventually(lambda: inner.heard == ["made", "lost"])


async def test_a_peer_that_never_closes_is_cut_off(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls, "SHUTDOWN", 0.1)
    _, writer = await scene.connect()
    cast(Any, writer.transport).pause_reading()
    scene.inner[0].transport.close()
    await eventually(lambda: scene.inner[0].heard == ["made", "lost"])
    writer.transport.abort()


async def test_what_comes_after_close_is_dropped(scene: Scene, joined: tuple[TlsConnection, Wire, Client]) -> None:
    connection, wire, client = joined
    client.exchange(connection, wire, whole)
    connection.close()
    client.tls.write(b"late")
    connection.data_received(client.out.read())
    assert scene.inner[0].data == b""
    assert not wire.is_closing()
    try:
        client.tls.unwrap()
    except ssl.SSLWantReadError:
        pass
    connection.data_received(client.out.read())
    assert wire.ended == "closed"


async def test_a_full_socket_pauses_what_is_inside(scene: Scene) -> None:
    reader, writer = await scene.connect()
    inner = scene.inner[0]
    inner.transport.set_write_buffer_limits(high=64 * 1024)
    for _ in range(200):
        inner.transport.write(b"x" * 65_536)
    await eventually(lambda: inner.paused)
    assert inner.transport.get_write_buffer_size() > 64 * 1024
    async with asyncio.timeout(10):
        await reader.readexactly(200 * 65_536)
    await eventually(lambda: not inner.paused)
    writer.close()
    await eventually(lambda: inner.heard[-1] == "lost")


async def test_who_only_asks_and_never_reads_is_ended(
    joined: tuple[TlsConnection, Wire, Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    connection, wire, client = joined
    client.exchange(connection, wire, whole)
    monkeypatch.setattr(wire, "get_write_buffer_size", lambda: tls.ANSWERS + 1)
    connection._outgoing.write(b"an answer of TLS itself")
    client.tls.write(b"x")
    connection.data_received(client.out.read())
    assert wire.ended == "aborted"


async def test_it_tells_of_its_socket_and_its_tls(scene: Scene) -> None:
    _, writer = await scene.connect()
    transport = scene.inner[0].transport
    assert isinstance(transport.get_extra_info("ssl_object"), ssl.SSLObject)
    assert transport.get_extra_info("peername")[0] == HOST
    assert transport.get_extra_info("nothing", 7) == 7
    writer.transport.abort()
    await eventually(lambda: scene.inner[0].heard[-1] == "lost")
    assert transport.get_extra_info("peername") is None
    assert transport.get_write_buffer_size() == 0

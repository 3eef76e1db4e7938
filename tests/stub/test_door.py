"""The agents' door before any hello: TLS, the WebSocket, who may stand in it, and how it closes."""

from __future__ import annotations

import asyncio
import errno
import gc
import socket
from pathlib import Path

import pytest

from agent.access import verifying_context
from stub import door
from stub.attaching import Attaching
from tests.agent.pki import Authority
from tests.support.attached import HOST, Stub, attach_raw, eventually, insecure, nothing_left


async def test_what_speaks_no_tls_goes_and_leaves_nothing(stub: Stub) -> None:
    async with nothing_left():
        reader, writer = await asyncio.open_connection(HOST, stub.port)
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        async with asyncio.timeout(2):
            try:
                await reader.read()
            except ConnectionError:
                pass
        writer.transport.abort()
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\n\r\n"])
async def test_handshakes_that_fail_use_no_place_up(stub: Stub, monkeypatch: pytest.MonkeyPatch, said: bytes) -> None:
    """A load balancer's health check is a TCP connection and nothing more: it must not close the door in the end."""
    monkeypatch.setattr(door, "MAX_GREETING", 3)
    for _ in range(10):
        reader, writer = await asyncio.open_connection(HOST, stub.port)
        if said:
            writer.write(said)
            try:
                await reader.read()
            except ConnectionError:
                pass
        writer.transport.abort()
    await asyncio.sleep(0.05)
    link, _ = await attach_raw(stub)
    async with link:
        assert len(stub.sessions.all()) == 1


async def silent(stub: Stub) -> socket.socket:
    """A stranger whose TLS never begins."""
    sock = socket.socket()
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, (HOST, stub.port))
    return sock


async def test_who_finds_the_door_full_waits_and_comes_in_when_a_place_is_free(
    stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "MAX_GREETING", 3)
    waiting = [await stub.dial() for _ in range(3)]
    for link in waiting:
        await link.challenge()
    fourth = asyncio.create_task(attach_raw(stub))
    await asyncio.sleep(0.15)
    assert stub.door.standing == 3
    assert not stub.sessions.all()
    for link in waiting:
        async with link:
            await link.ended()  # no hello came in time
    link, _ = await fourth
    taken = [link, *[(await attach_raw(stub))[0] for _ in range(5)]]
    assert len(stub.sessions.all()) == 6  # a link does not stand in the door
    assert stub.door.standing == 0
    for link in taken:
        async with link:
            pass


async def test_who_stands_longest_makes_room_for_others(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "MAX_GREETING", 3)
    monkeypatch.setattr(door, "GRACE", 0.1)
    async with nothing_left():
        strangers = [await silent(stub) for _ in range(12)]
        async with asyncio.timeout(2):
            link, _ = await attach_raw(stub)
        async with link:
            assert len(stub.sessions.all()) == 1
            assert stub.door.standing <= 3
        for sock in strangers:
            sock.close()


async def test_one_who_greets_makes_room_too(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "MAX_GREETING", 1)
    monkeypatch.setattr(door, "GRACE", 0.1)
    async with await stub.dial() as idle:
        await idle.challenge()
        link, _ = await attach_raw(stub)
        async with link:
            await idle.ended(0.1)


async def test_handshakes_begin_one_by_one(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "PAUSE", 0.05)
    async with nothing_left():
        strangers = [await silent(stub) for _ in range(20)]
        await asyncio.sleep(0.12)
        assert 1 <= stub.door.standing <= 4
        for sock in strangers:
            sock.close()
        await eventually(lambda: not stub.door.standing)


async def test_a_handshake_that_does_not_get_on_ends(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "HANDSHAKE", 0.1)
    async with nothing_left():
        sock = await silent(stub)
        await eventually(lambda: stub.door.standing)
        await eventually(lambda: not stub.door.standing)
        sock.close()


async def test_without_descriptors_it_waits_says_so_once_and_goes_on(
    stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(door.log, "error", lambda event, **_: told.append(event))
    real, short = socket.socket.accept, [3]

    def accept(sock: socket.socket) -> object:
        if short[0]:
            short[0] -= 1
            raise OSError(errno.EMFILE, "Too many open files")
        return real(sock)

    monkeypatch.setattr(socket.socket, "accept", accept)
    link, _ = await attach_raw(stub)
    async with link:
        assert told == ["agents cannot be let in"]


async def test_another_path_is_a_404_and_no_subprotocol_a_400(stub: Stub) -> None:
    for path, subprotocol, status in (("/", True, b"404"), ("/kulvert/v1/link", False, b"400")):
        reader, writer = await asyncio.open_connection(HOST, stub.port, ssl=verifying_context(stub.ca))
        more = "Sec-WebSocket-Protocol: link.kulvert.dev.v1\r\n" if subprotocol else ""
        writer.write(
            f"GET {path} HTTP/1.1\r\nHost: stub\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{more}\r\n".encode()
        )
        async with asyncio.timeout(2):
            answer = await reader.read()
        assert answer.split()[1] == status
        assert b"challenge" not in answer
        writer.transport.abort()


@pytest.mark.parametrize("said", [b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", b"\x00" * 100, b"G" * 20_000])
async def test_what_is_no_websocket_gets_no_challenge(stub: Stub, said: bytes) -> None:
    reader, writer = await asyncio.open_connection(HOST, stub.port, ssl=insecure())
    writer.write(said)
    async with asyncio.timeout(2):
        try:
            answer = await reader.read()
        except ConnectionError:
            answer = b""
    assert b"challenge" not in answer
    writer.transport.abort()


async def test_a_door_that_closes_lets_go_of_those_who_stand_in_it(authority: Authority, tmp_path: Path) -> None:
    async with nothing_left():
        async with Stub(authority, tmp_path) as stub:
            link = await stub.dial()
            await link.challenge()
        async with link:
            await link.ended(0.3)


async def test_links_that_end_leave_nothing(stub: Stub) -> None:
    async with nothing_left():
        for _ in range(20):
            link, _ = await attach_raw(stub)
            async with link:
                pass
        await eventually(lambda: not stub.sessions.all())


async def test_a_link_keeps_nothing_of_its_greeting(stub: Stub) -> None:
    """It may live for months, with thousands of others."""
    link, _ = await attach_raw(stub)
    async with link:
        (connection,) = stub.setting.links
        gc.collect()
        held = gc.get_objects()
        assert not [one for one in held if isinstance(one, Attaching | door.Standing)]
        assert connection.transport is not None

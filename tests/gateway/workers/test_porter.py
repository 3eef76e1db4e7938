"""The agents' port in the parent: whom it passes to which worker, and what the slow and the hostile can do."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from gateway.workers import clienthello, control, porter
from gateway.workers.clienthello import hint
from gateway.workers.porter import GRACE, PATIENCE, Porter
from stub.door import listening
from tests.gateway.workers.test_clienthello import openssl


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Scene:
    porter: Porter
    clock: Clock
    port: int
    workers: list[socket.socket]
    """The workers' ends of their channels."""
    clients: list[socket.socket] = field(default_factory=list)

    async def client(self, data: bytes = b"") -> socket.socket:
        sock = socket.socket()
        self.clients.append(sock)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self.port))
        if data:
            await asyncio.get_running_loop().sock_sendall(sock, data)
        return sock

    async def passed(self, worker: int) -> bytes:
        """The next connection that a worker gets: what is to be read of it."""
        async with asyncio.timeout(2):
            while True:
                try:
                    _, descriptors, _, _ = socket.recv_fds(self.workers[worker], 1, 1)
                    break
                except BlockingIOError:
                    await asyncio.sleep(0.005)
        with socket.socket(fileno=descriptors[0]) as sock:
            return sock.recv(65_536)

    def nothing(self, worker: int) -> bool:
        try:
            socket.recv_fds(self.workers[worker], 1, 1)
        except BlockingIOError:
            return True
        return False

    async def until(self, count: int) -> None:
        """There are so many in the port."""
        async with asyncio.timeout(2):
            while len(self.porter) != count:  # noqa: ASYNC110 -- a test looks on
                await asyncio.sleep(0.005)


@asynccontextmanager
async def porting(workers: int = 3) -> AsyncIterator[Scene]:
    clock = Clock()
    listeners = await listening("127.0.0.1", 0)
    channels = [control.pair() for _ in range(workers)]
    made = Porter(listeners, [ours for ours, _ in channels], clock)
    made.start()
    scene = Scene(made, clock, listeners[0].getsockname()[1], [theirs for _, theirs in channels])
    try:
        yield scene
    finally:
        made.stop()
        for sock in [*listeners, *(end for ends in channels for end in ends), *scene.clients]:
            sock.close()


def ended(sock: socket.socket) -> bool:
    try:
        return sock.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


async def test_one_that_asks_for_a_worker_gets_it_with_all_its_bytes() -> None:
    hello = openssl(["http/1.1", hint(1)])
    async with porting() as scene:
        for _ in range(3):
            await scene.client(hello)
            assert await scene.passed(1) == hello
        assert scene.nothing(0)
        assert scene.nothing(2)
        assert len(scene.porter) == 0


async def test_those_that_ask_for_none_or_for_one_that_is_not_there_go_in_turn() -> None:
    async with porting() as scene:
        for hello in (openssl([]), openssl([hint(7)]), b"GET / HTTP/1.1\r\n\r\n"):
            await scene.client(hello)
        assert sorted([await scene.passed(worker) for worker in range(3)])
        assert len(scene.porter) == 0


async def test_one_that_comes_in_pieces_is_waited_for_without_turning_in_circles(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hello, looks = openssl(["http/1.1", hint(2)]), 0
    real = clienthello.look

    def counted(data: bytes) -> int | tuple[bytes, ...]:
        nonlocal looks
        looks += 1
        return real(data)

    monkeypatch.setattr(clienthello, "look", counted)
    async with porting() as scene:
        sock = await scene.client(hello[:1])
        for at in range(1, len(hello), 40):
            await asyncio.sleep(0.002)
            await asyncio.get_running_loop().sock_sendall(sock, hello[at : at + 40])
        assert await scene.passed(2) == hello
    assert looks <= 3, "woken for the first byte, a record's header, and its end"


async def test_one_that_ends_in_the_middle_is_let_go_of() -> None:
    async with porting() as scene:
        whole, cut = await scene.client(), await scene.client(openssl([])[:100])
        await scene.until(2)
        cut.shutdown(socket.SHUT_WR)
        await scene.until(1)
        whole.close()
        scene.clients.remove(whole)
        await scene.until(0)


async def test_one_that_says_nothing_has_its_time_and_makes_room_when_it_is_needed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(porter, "PLACES", 2)
    hello = openssl([hint(0)])
    async with porting() as scene:
        silent = [await scene.client(), await scene.client()]
        await scene.until(2)
        await scene.client(hello)
        await asyncio.sleep(3 * porter.AGAIN)
        assert scene.nothing(0), "both have their time still"
        scene.clock.now = GRACE
        assert await scene.passed(0) == hello
        assert [ended(sock) for sock in silent] == [True, False]
        scene.clock.now = GRACE + PATIENCE + 1
        await scene.until(0)
        assert ended(silent[1])


async def test_a_worker_that_takes_nothing_has_its_connections_wait_and_stops_nobody_elses() -> None:
    stuck, free = openssl([hint(0)]), openssl([hint(1)])
    async with porting() as scene:
        scene.workers[0].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        count = 0
        while len(scene.porter) < 3:
            await scene.client(stuck)
            await asyncio.sleep(0.002)
            count += 1
            assert count < 2_000
        await scene.client(free)
        assert await scene.passed(1) == free
        for _ in range(count):
            assert await scene.passed(0) == stuck
        assert len(scene.porter) == 0


async def test_those_that_waited_too_long_for_their_worker_are_ended() -> None:
    hello = openssl([hint(0)])
    async with porting() as scene:
        while len(scene.porter) < 2:
            last = await scene.client(hello)
            await asyncio.sleep(0.002)
        scene.clock.now = PATIENCE + 1
        await scene.until(0)
        assert ended(last)


async def test_its_end_lets_go_of_everybody_and_may_come_twice() -> None:
    async with porting() as scene:
        silent = await scene.client()
        await scene.until(1)
        scene.porter.stop()
        scene.porter.stop()
        assert ended(silent)
        assert len(scene.porter) == 0

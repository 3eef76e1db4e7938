"""One connection, from the dialling to the end of its greeting: what is left of it where that does not come."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agent.access import verifying_context
from agent.address import Address, Allowed, Target
from agent.attaching import AttachFailed, LinkGreeting
from agent.dial import Dialler, DialSettings
from agent.knock import Knocking, knock
from tests.agent.pki import Authority
from tests.support.attached import HOST, eventually, nothing_left
from tunnel.adapter import LinkConnection
from tunnel.batch import Batch
from tunnel.handshake import Challenge, Hello, Welcome
from tunnel.link import Link


class Mute:
    """A server that says nothing, and tells how many of its connections are open."""

    def __init__(self) -> None:
        self.port = 0
        self.begun = 0
        self.open = 0
        self.drop = asyncio.Event()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.begun += 1
        self.open += 1
        reading = asyncio.ensure_future(reader.read())
        dropping = asyncio.ensure_future(self.drop.wait())
        await asyncio.wait((reading, dropping), return_when=asyncio.FIRST_COMPLETED)
        for task in (reading, dropping):
            task.cancel()
        await asyncio.gather(reading, dropping, return_exceptions=True)
        writer.transport.abort()
        self.open -= 1


@asynccontextmanager
async def mute(tls: ssl.SSLContext) -> AsyncIterator[Mute]:
    server = Mute()
    listening = await asyncio.start_server(server.accept, HOST, 0, ssl=tls)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        server.drop.set()
        listening.close()


def never(name: str) -> LinkGreeting:
    def answer(_challenge: Challenge) -> Hello:
        raise AssertionError(name)

    def admit(_connection: LinkConnection, _challenge: Challenge, _welcome: Welcome) -> Link:
        raise AssertionError(name)

    return LinkGreeting(answer, admit, own=True)


class Bed:
    def __init__(self, authority: Authority, directory: Path) -> None:
        self.tls = authority.issue("mute", HOST).server_context(directory)
        self._trusted = verifying_context(authority.pem)

    async def knock(self, server: Mute) -> None:
        address = Address(HOST, server.port)
        dialler = Dialler(DialSettings(Allowed((address,))), self._trusted)
        place = Knocking(dialler, Batch(asyncio.get_running_loop().call_soon))
        await knock(place, Target(address), never)


@pytest.fixture
def bed(authority: Authority, tmp_path: Path) -> Bed:
    return Bed(authority, tmp_path)


async def test_a_cancelled_one_closes_its_connection(bed: Bed) -> None:
    async with nothing_left(), mute(bed.tls) as server:
        task = asyncio.create_task(bed.knock(server))
        await eventually(lambda: server.open)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await eventually(lambda: not server.open)


async def test_one_that_nobody_answers_is_given_up_and_closed(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.knock.GREETING", 0.2)
    async with nothing_left(), mute(bed.tls) as server:
        with pytest.raises(TimeoutError):
            await bed.knock(server)
        assert server.begun == 1
        await eventually(lambda: not server.open)


async def test_one_that_is_dropped_says_so(bed: Bed) -> None:
    async with nothing_left(), mute(bed.tls) as server:
        server.drop.set()
        with pytest.raises(AttachFailed, match="ended before it was attached"):
            await bed.knock(server)

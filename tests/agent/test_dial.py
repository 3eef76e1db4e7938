"""Dialling the stub: addresses in turn, through proxies, by TLS that is verified on every hop."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.access import verifying_context
from agent.address import Address, Allowed, BadAddress
from agent.dial import DialFailed, Dialler, DialSettings
from agent.proxies import Proxies
from tests.agent.apiserver import Client, ScriptedServer
from tests.agent.pki import Authority
from tests.agent.proxy import ConnectProxy

STUB = "stub.test"


class Line(asyncio.Protocol):
    """Says hello, and keeps what comes."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.made = 0
        self.data = asyncio.Queue[bytes]()
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.made += 1
        self.transport = transport  # type: ignore[assignment]
        self.transport.write(b"hello\r\n\r\n")  # type: ignore[union-attr]

    def data_received(self, data: bytes) -> None:
        self.data.put_nowait(data)


async def echo(client: Client) -> None:
    await client.say(b"you said " + await client.head())
    await client.rest()


@pytest.fixture
async def stub(authority: Authority, tmp_path: Path) -> AsyncIterator[ScriptedServer]:
    pair = authority.issue("stub", STUB, "127.0.0.1")
    async with ScriptedServer(pair.server_context(tmp_path), echo) as server:
        yield server


def dialler(
    authority: Authority, *servers: str, proxies: Proxies | None = None, names: tuple[str, ...] = (),
    server_name: str | None = None, proxy_tls: ssl.SSLContext | None = None,
) -> Dialler:  # fmt: skip
    allowed = Allowed(tuple(Address.parse(server) for server in servers), names)
    tls = verifying_context(authority.pem)
    return Dialler(DialSettings(allowed, proxies or Proxies(), proxy_tls, server_name, timeout=2.0), tls)


async def spoken(connected: tuple[asyncio.Transport, Line]) -> Line:
    """The protocol, after it had its answer."""
    transport, line = connected
    assert await asyncio.wait_for(line.data.get(), 2) == b"you said hello\r\n\r\n"
    assert line.made == 1
    transport.abort()
    await asyncio.sleep(0.01)
    return line


async def test_a_direct_connection_is_told_the_name_that_was_dialled(
    stub: ScriptedServer, authority: Authority
) -> None:
    line = await spoken(await dialler(authority, f"127.0.0.1:{stub.port}").dial(Line))
    assert line.name == f"127.0.0.1:{stub.port}"


async def test_the_next_address_is_tried_and_remembered(stub: ScriptedServer, authority: Authority) -> None:
    good = f"127.0.0.1:{stub.port}"
    dial = dialler(authority, "127.0.0.1:1", good)
    tried: list[str] = []

    def factory(name: str) -> Line:
        tried.append(name)
        return Line(name)

    await spoken(await dial.dial(factory))
    await spoken(await dial.dial(factory))
    assert tried[-1] == good
    assert tried.count("127.0.0.1:1") <= 1
    dial.rotate()
    await spoken(await dial.dial(factory))


async def test_when_none_answers_each_reason_is_told(authority: Authority) -> None:
    with pytest.raises(DialFailed, match=r"127\.0\.0\.1:1: .*refused.*; 127\.0\.0\.1:2: .*refused"):
        await dialler(authority, "127.0.0.1:1", "127.0.0.1:2").dial(Line)


async def test_only_allowed_names_are_dialled(stub: ScriptedServer, authority: Authority) -> None:
    dial = dialler(authority, f"127.0.0.1:{stub.port}", names=("*.links.test",))
    with pytest.raises(BadAddress, match="does not allow evil"):
        await dial.dial(Line, "evil.test")
    with pytest.raises(BadAddress):
        await dial.dial(Line, "127.0.0.1:1")
    await spoken(await dial.dial(Line, f"127.0.0.1:{stub.port}"))


async def test_a_wrong_ca_a_wrong_name_and_an_expired_certificate_are_refused(
    stub: ScriptedServer, authority: Authority, tmp_path: Path
) -> None:
    here = f"127.0.0.1:{stub.port}"
    with pytest.raises(DialFailed, match="certificate was refused"):
        await dialler(Authority("other"), here).dial(Line)
    with pytest.raises(DialFailed, match="certificate was refused"):
        await dialler(authority, here, server_name="other.test").dial(Line)
    await spoken(await dialler(authority, here, server_name=STUB).dial(Line))
    expired = authority.issue("stub", "127.0.0.1", days=-1)
    async with ScriptedServer(expired.server_context(tmp_path), echo) as server:
        with pytest.raises(DialFailed, match="expired"):
            await dialler(authority, f"127.0.0.1:{server.port}").dial(Line)


async def test_through_a_proxy_with_a_password(stub: ScriptedServer, authority: Authority) -> None:
    async with ConnectProxy(stub.port) as proxy:
        url = proxy.url.replace("://", "://me:p%40ss@")
        dial = dialler(authority, f"https://{STUB}", proxies=Proxies.of({"HTTPS_PROXY": url}))
        line = await spoken(await dial.dial(Line))
        assert line.name == STUB
        assert proxy.heads == [
            b"CONNECT stub.test:443 HTTP/1.1\r\nHost: stub.test:443\r\nProxy-Authorization: Basic bWU6cEBzcw==\r\n\r\n"
        ]


async def test_through_an_https_proxy(stub: ScriptedServer, authority: Authority, tmp_path: Path) -> None:
    tls = authority.issue("proxy", "127.0.0.1").server_context(tmp_path)
    async with ConnectProxy(stub.port, tls=tls) as proxy:
        proxies = Proxies.of({"HTTPS_PROXY": proxy.url})
        dial = dialler(authority, STUB, proxies=proxies, proxy_tls=verifying_context(authority.pem))
        await spoken(await dial.dial(Line))
        with pytest.raises(DialFailed, match="certificate was refused"):
            await dialler(authority, STUB, proxies=proxies, proxy_tls=verifying_context(None)).dial(Line)


async def test_the_stub_is_verified_behind_a_proxy_too(stub: ScriptedServer, authority: Authority) -> None:
    async with ConnectProxy(stub.port) as proxy:
        proxies = Proxies.of({"HTTPS_PROXY": proxy.url})
        with pytest.raises(DialFailed, match="certificate was refused"):
            await dialler(authority, "other.test", proxies=proxies).dial(Line)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"HTTP/1.1 407 Auth\r\nProxy-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n", "407"),
        (b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n", "403"),
        (b"HTTP/1.1 502 Bad\r\nContent-Length: 0\r\n\r\n", "status 502"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://x/\r\n\r\n", "status 302"),
        (b"HTTP/1.1 200 OK\r\n\r\nsurplus", "nobody asked for"),
        (b"SSH-2.0-x\r\n\r\n", "malformed"),
        (b"HTTP/1.1 200 OK\nX: y\r\n\r\n", "malformed"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 20_000, "malformed"),
    ],
)
async def test_a_proxy_that_does_not_connect_is_explained(answer: bytes, why: str, authority: Authority) -> None:
    async with ConnectProxy(0, answer) as proxy:
        url = proxy.url.replace("://", "://me:secret@")
        with pytest.raises(DialFailed, match=why) as caught:
            await dialler(authority, STUB, proxies=Proxies.of({"HTTPS_PROXY": url})).dial(Line)
        assert "secret" not in str(caught.value)
        await asyncio.sleep(0.02)


async def test_silence_ends_in_time(authority: Authority) -> None:
    async with ConnectProxy(0, b"") as proxy:
        dial = dialler(authority, STUB, proxies=Proxies.of({"HTTPS_PROXY": proxy.url}))
        object.__setattr__(dial._settings, "timeout", 0.2)
        with pytest.raises(DialFailed, match="no answer in time"):
            await dial.dial(Line)
        await asyncio.sleep(0.02)

"""Dialling the stub: addresses in turn, through proxies, by TLS that is verified on every hop."""

from __future__ import annotations

import asyncio
import itertools
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agent.access import verifying_context
from agent.address import Address, Allowed, Target
from agent.dial import MOST_IPS, DialFailed, Dialler, DialSettings
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


def at(server: str, ip: str = "") -> Target:
    return Target(Address.parse(server), ip)


async def test_a_direct_connection_is_told_the_name_that_was_dialled(
    stub: ScriptedServer, authority: Authority
) -> None:
    here = f"127.0.0.1:{stub.port}"
    line = await spoken(await dialler(authority, here).dial(Line, at(here)))
    assert line.name == here


async def test_an_ip_address_is_dialled_by_the_name_that_led_there(stub: ScriptedServer, authority: Authority) -> None:
    name = f"{STUB}:{stub.port}"
    line = await spoken(await dialler(authority, name).dial(Line, at(name, "127.0.0.1")))
    assert line.name == name


async def test_who_cannot_be_reached_is_named(authority: Authority) -> None:
    with pytest.raises(DialFailed, match=r"127\.0\.0\.1:1: .*refused"):
        await dialler(authority, "127.0.0.1:1").dial(Line, at("127.0.0.1:1"))


async def test_a_name_that_nobody_knows_is_a_target_that_says_so(authority: Authority) -> None:
    dial = dialler(authority, "nobody.invalid")
    (target,) = await dial.targets()
    assert target == at("nobody.invalid")
    with pytest.raises(DialFailed, match=r"nobody\.invalid: "):
        await dial.dial(Line, target)


# --- in which order


async def test_each_ip_address_of_a_name_is_a_target_and_their_order_is_by_chance(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[Any] = [(socket.AF_INET6, 1, 6, "", (f"::{n}", 443, 0, 0)) for n in (1, 2)]
    found += [(socket.AF_INET, 1, 6, "", (f"10.0.0.{n}", 443)) for n in range(40)]

    async def getaddrinfo(*_: object, **__: object) -> object:
        return found

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo, raising=False)
    dial = dialler(authority, "many.test", "127.0.0.1:1")
    numbers = itertools.cycle((0.9, 0.1, 0.5))
    dial._uniform = lambda: next(numbers)
    ips = [target.ip for target in await dial.targets() if target.address.host == "many.test"]
    assert set(ips[:2]) == {"::1", "::2"}  # the system's choice of the family stays
    assert len(ips) == MOST_IPS
    assert ips[2:] != [found[2 + n][4][0] for n in range(len(ips) - 2)]


async def test_the_server_that_was_good_comes_first_until_it_is_good_no_more(authority: Authority) -> None:
    dial = dialler(authority, "127.0.0.1:1", "127.0.0.2:2", "127.0.0.3:3")

    async def order() -> list[int]:
        return [target.address.port for target in await dial.targets()]

    assert await order() == [1, 2, 3]
    dial.good(at("127.0.0.3:3"))
    assert await order() == [3, 1, 2]
    dial.rotate()
    assert await order() == [1, 2, 3]
    dial.good(at("elsewhere.test"))  # where a server has sent us: not a configured one
    assert await order() == [1, 2, 3]


async def test_a_proxy_looks_names_up_itself(authority: Authority) -> None:
    dial = dialler(authority, "nobody.invalid", proxies=Proxies.of({"HTTPS_PROXY": "http://127.0.0.1:1"}))
    assert await dial.targets() == [at("nobody.invalid")]


# --- who may be reached


async def test_a_wrong_ca_a_wrong_name_and_an_expired_certificate_are_refused(
    stub: ScriptedServer, authority: Authority, tmp_path: Path
) -> None:
    here = f"127.0.0.1:{stub.port}"
    with pytest.raises(DialFailed, match="certificate was refused"):
        await dialler(Authority("other"), here).dial(Line, at(here))
    with pytest.raises(DialFailed, match="certificate was refused"):
        await dialler(authority, here, server_name="other.test").dial(Line, at(here))
    await spoken(await dialler(authority, here, server_name=STUB).dial(Line, at(here)))
    expired = authority.issue("stub", "127.0.0.1", days=-1)
    async with ScriptedServer(expired.server_context(tmp_path), echo) as server:
        with pytest.raises(DialFailed, match="expired"):
            await dialler(authority, STUB).dial(Line, at(f"127.0.0.1:{server.port}"))


async def test_through_a_proxy_with_a_password(stub: ScriptedServer, authority: Authority) -> None:
    async with ConnectProxy(stub.port) as proxy:
        url = proxy.url.replace("://", "://me:p%40ss@")
        dial = dialler(authority, f"https://{STUB}", proxies=Proxies.of({"HTTPS_PROXY": url}))
        line = await spoken(await dial.dial(Line, at(STUB)))
        assert line.name == STUB
        assert proxy.heads == [
            b"CONNECT stub.test:443 HTTP/1.1\r\nHost: stub.test:443\r\nProxy-Authorization: Basic bWU6cEBzcw==\r\n\r\n"
        ]


async def test_through_an_https_proxy(stub: ScriptedServer, authority: Authority, tmp_path: Path) -> None:
    tls = authority.issue("proxy", "127.0.0.1").server_context(tmp_path)
    async with ConnectProxy(stub.port, tls=tls) as proxy:
        proxies = Proxies.of({"HTTPS_PROXY": proxy.url})
        dial = dialler(authority, STUB, proxies=proxies, proxy_tls=verifying_context(authority.pem))
        await spoken(await dial.dial(Line, at(STUB)))
        with pytest.raises(DialFailed, match="certificate was refused"):
            await dialler(authority, STUB, proxies=proxies, proxy_tls=verifying_context(None)).dial(Line, at(STUB))


async def test_the_stub_is_verified_behind_a_proxy_too(stub: ScriptedServer, authority: Authority) -> None:
    async with ConnectProxy(stub.port) as proxy:
        proxies = Proxies.of({"HTTPS_PROXY": proxy.url})
        with pytest.raises(DialFailed, match="certificate was refused"):
            await dialler(authority, "other.test", proxies=proxies).dial(Line, at("other.test"))


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
            await dialler(authority, STUB, proxies=Proxies.of({"HTTPS_PROXY": url})).dial(Line, at(STUB))
        assert "secret" not in str(caught.value)
        await asyncio.sleep(0.02)


async def test_silence_ends_in_time(authority: Authority) -> None:
    async with ConnectProxy(0, b"") as proxy:
        dial = dialler(authority, STUB, proxies=Proxies.of({"HTTPS_PROXY": proxy.url}))
        object.__setattr__(dial._settings, "timeout", 0.2)
        with pytest.raises(DialFailed, match="no answer in time"):
            await dial.dial(Line, at(STUB))
        await asyncio.sleep(0.02)

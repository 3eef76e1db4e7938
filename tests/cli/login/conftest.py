"""An issuer on this machine, in the test's own loop, with the time in the test's hand."""

from __future__ import annotations

import os
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

import pytest
from aiohttp.test_utils import TestServer

from cli.login.flow import Tools, Ways
from cli.login.stored import Client
from cli.login.web import Web
from cli.tokencache import LoginKey
from tests.cli.fakeissuer import FakeIssuer

NOW = 1_800_000_000.0
CLIENT = Client("kulvert", ("openid", "email"))


@dataclass
class Desk:
    """Somebody who signs in."""

    issuer: FakeIssuer
    tools: Tools
    said: list[str]
    slept: list[float]
    time: list[float]
    key: LoginKey

    def ways(self, opens: Callable[[str], bool] | None, *, device: bool = False) -> Ways:
        return Ways(opens, device=device, timeout=0.5)

    def text(self) -> str:
        return "\n".join(self.said)


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    time = [NOW]
    said: list[str] = []
    slept: list[float] = []
    issuer = FakeIssuer(lambda: time[0])
    server = TestServer(issuer.application())
    await server.start_server()
    issuer.url = f"http://127.0.0.1:{urlsplit(str(server.make_url('/'))).port}"

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        time[0] += seconds

    try:
        async with Web(ssl.create_default_context(), said.append, timeout=0.5) as web:
            tools = Tools(web, lambda: time[0], os.urandom, sleep, said.append)
            key = LoginKey("https://gateway.test", issuer.url, "kulvert")
            yield Desk(issuer, tools, said, slept, time, key)
    finally:
        await server.close()

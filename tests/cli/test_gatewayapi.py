"""The gateway's answers, as a broken or hostile gateway gives them."""

from __future__ import annotations

import ssl
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from cli.failures import Failed
from cli.gatewayapi import CONFIGURATION, Configuration, GatewayApi, trust
from cli.login.web import Unreachable, Web

NOW = 1_800_000_000.0


class Gateway:
    """Answers everything with one thing."""

    def __init__(self) -> None:
        self.status = 200
        self.body: Any = {}
        self.headers: dict[str, str] = {}
        self.seen: list[web.Request] = []

    async def answer(self, request: web.Request) -> web.Response:
        self.seen.append(request)
        return web.json_response(self.body, status=self.status, headers=self.headers)

    async def ask(self, method: str, *args: Any) -> Any:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self.answer)
        server = TestServer(app)
        await server.start_server()
        try:
            async with Web(ssl.create_default_context(), lambda _: None, timeout=1.0) as client:
                api = GatewayApi(client, f"http://127.0.0.1:{server.port}", "the-token")
                return await getattr(api, method)(*args)
        finally:
            await server.close()


@pytest.fixture
def gateway() -> Gateway:
    return Gateway()


async def test_clusters_are_sorted_names(gateway: Gateway) -> None:
    gateway.body = {"items": [{"metadata": {"name": name}} for name in ("b", "a", "b")]}
    assert await gateway.ask("clusters") == ("a", "b")
    assert gateway.seen[0].headers["Authorization"] == "Bearer the-token"


@pytest.mark.parametrize("items", [None, {}, [1], [{}], [{"metadata": {"name": 3}}], [{"metadata": {"name": "a/b"}}]])
async def test_a_list_that_makes_no_sense_is_none(gateway: Gateway, items: object) -> None:
    gateway.body = {"items": items}
    with pytest.raises(Failed, match="makes no sense"):
        await gateway.ask("clusters")


async def test_the_public_document_is_asked_without_a_token_and_read(gateway: Gateway) -> None:
    gateway.body = {"apiVersion": "kulvert.dev/v1alpha1", "issuer": "https://i", "clientId": "k", "scopes": ["openid"]}
    assert await gateway.ask("configuration") == Configuration("https://i", "k", ("openid",), "localhost")
    assert gateway.seen[0].path == CONFIGURATION
    assert "Authorization" not in gateway.seen[0].headers


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "does not say how to sign in"),
        ({"apiVersion": "v1", "issuer": "https://i"}, "does not say how to sign in"),
        ({"issuer": 3}, "makes no sense"),
        ({"issuer": "https://i\x1b[2J"}, "makes no sense"),
        ({"scopes": "openid"}, "makes no sense"),
        ({"scopes": [3]}, "makes no sense"),
    ],
)
async def test_a_public_document_that_is_none(gateway: Gateway, body: dict[str, Any], words: str) -> None:
    gateway.body = ({"apiVersion": "kulvert.dev/v1alpha1"} | body) if words == "makes no sense" else body
    with pytest.raises(Failed, match=words):
        await gateway.ask("configuration")


async def test_a_redirect_host_is_this_machine_or_the_default(gateway: Gateway) -> None:
    for given, expected in (("127.0.0.1", "127.0.0.1"), ("evil.example", "localhost"), ("", "localhost")):
        gateway.body = {"apiVersion": "kulvert.dev/v1alpha1", "redirectHost": given}
        assert (await gateway.ask("configuration")).redirect_host == expected


@pytest.mark.parametrize("status", [{}, None, {"certificate": 3}, {"certificate": "!"}])
async def test_a_certificate_that_is_none(gateway: Gateway, status: object) -> None:
    gateway.status, gateway.body = 201, {"status": status}
    if status in ({}, None):
        assert await gateway.ask("certificate", b"request", 600) == b""  # `good_until` refuses it
        return
    with pytest.raises(Failed, match="holds no certificate"):
        await gateway.ask("certificate", b"request", 600)


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ({}, "holds no token"),
        ({"token": "t"}, "holds no token"),
        ({"token": "t\n", "expirationTimestamp": "2027-01-15T08:00:00Z"}, "holds no token"),
        ({"token": "t", "expirationTimestamp": "soon"}, "no time of expiry"),
    ],
)
async def test_a_token_that_is_none(gateway: Gateway, status: object, words: str) -> None:
    gateway.status, gateway.body = 201, {"status": status}
    with pytest.raises(Failed, match=words):
        await gateway.ask("token", 600, NOW)


async def test_a_tokens_life_is_by_the_gateways_clock(gateway: Gateway) -> None:
    gateway.status = 201
    gateway.body = {"status": {"token": "t", "expirationTimestamp": "2027-01-15T08:10:00Z"}}
    gateway.headers = {"Date": "Fri, 15 Jan 2027 08:00:00 GMT"}
    assert await gateway.ask("token", 600, 0.0) == ("t", 600.0)


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (401, Failed, "does not know you: `kulvert login"),
        (403, Failed, "no grant"),
        (404, Failed, "switched off"),
        (429, Unreachable, "no grant"),
        (503, Unreachable, "no grant"),
    ],
)
async def test_what_it_refuses_is_told_with_what_to_do(
    gateway: Gateway, status: int, kind: type[Exception], words: str
) -> None:
    gateway.status, gateway.body = status, {"kind": "Status", "message": "no grant\x1b[2J"}
    with pytest.raises(kind, match=words) as caught:
        await gateway.ask("clusters")
    assert str(caught.value).isprintable()
    assert "the-token" not in str(caught.value)


def test_an_authority_that_is_none_is_told() -> None:
    with pytest.raises(Failed, match="is no PEM bundle"):
        trust("nothing")

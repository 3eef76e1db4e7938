"""Plain requests through a relay, over TLS, to an API server that answers as it should."""

from __future__ import annotations

import pytest

from agent.access import ApiServer
from agent.policy import CheckedRequest
from agent.request import render
from tests.agent.apiserver import Client, answering
from tests.agent.conftest import TOKEN, Before
from tests.agent.fakes import USER, get, post
from tunnel.errors import HeadError, Hop, Reason
from tunnel.known import KnownLines

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: text/plain\r\n\r\nok"


async def test_a_get_is_answered_and_the_connection_kept(before: Before) -> None:
    async with before(answering(OK, OK)) as world:
        first = await world.ask(get(b"/api/v1/pods?limit=5", (b"accept", b"application/json")))
        second = await world.ask(get())
        assert (first.head.status, first.data, first.ended) == (200, b"ok", True)
        assert first.head.headers == [(b"content-length", b"2"), (b"content-type", b"text/plain")]
        assert second.data == b"ok"
        assert len(world.server.clients) == 1
        assert world.pool.state.idle == 1


async def test_the_head_carries_host_token_and_identity_and_nothing_else(before: Before) -> None:
    async with before(answering(OK)) as world:
        await world.ask(get(b"/api/v1/pods?limit=5", (b"accept", b"*/*")))
        seen = bytes(world.server.clients[0].seen)
        assert seen.split(b"\r\n") == [
            b"GET /api/v1/pods?limit=5 HTTP/1.1",
            b"host: 127.0.0.1:%d" % world.server.port,
            b"impersonate-user: alice",
            b"impersonate-group: dev",
            b"accept: */*",
            b"authorization: Bearer " + TOKEN,
            b"",
            b"",
        ]


async def test_with_a_client_certificate_no_authorization_is_sent(before: Before) -> None:
    async with before(answering(OK), token=None) as world:
        await world.ask(get())
        assert b"authorization" not in world.server.clients[0].seen


async def test_a_body_of_known_length_goes_as_it_is(before: Before) -> None:
    async with before(answering(OK)) as world:
        exchange, relay = world.start(post((b"content-length", b"5")))
        relay.on_data(b"he")
        relay.on_data(b"llo")
        relay.on_end([])
        await exchange.over()
        assert world.server.clients[0].seen.endswith(b"\r\n\r\nhello")
        assert exchange.credit == 5
        assert world.pool.state.idle == 1


async def test_a_body_of_unknown_length_goes_in_chunks(before: Before) -> None:
    async with before(answering(OK)) as world:
        exchange, relay = world.start(post())
        relay.on_data(b"hello")
        relay.on_end([(b"x-trailer", b"dropped")])
        await exchange.over()
        assert world.server.clients[0].seen.endswith(b"transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")


async def test_a_refused_head_never_gets_near_a_connection(before: Before) -> None:
    async with before(answering(OK)) as world:
        head = get()
        head.headers = []
        exchange, _ = world.start(head)
        assert exchange.reset is not None
        assert (exchange.reset.hop, exchange.reset.reason) == (Hop.AGENT, Reason.REFUSED_HEAD)
        assert exchange.releases == 1
        assert world.pool.state.dialling == 0


async def test_a_post_without_a_body_says_nothing_after_its_head(before: Before) -> None:
    async with before(answering(OK)) as world:
        head = get(method=b"POST")
        await world.ask(head)
        assert world.server.clients[0].seen.endswith(b"\r\n\r\n")
        assert b"transfer-encoding" not in world.server.clients[0].seen


async def test_many_at_once_share_the_pool(before: Before) -> None:
    async def script(client: Client) -> None:
        while True:
            await client.head()
            await client.say(OK)

    async with before(script) as world:
        exchanges = [world.start(get())[0] for _ in range(100)]
        for exchange in exchanges:
            await exchange.over()
            assert exchange.data == b"ok"
        assert len(world.server.clients) <= world.pool.limits.dials + 1


def test_a_remembered_head_is_rendered_as_any_other_and_follows_the_token() -> None:
    server = ApiServer("api", 6443, "api", b"/prefix")
    for upgrade, length in ((None, 0), (None, None), (b"websocket", 0)):
        known = KnownLines([*USER, (b"accept", b"a")], upgrade is not None)
        for audit, token in ((b"1", b"Bearer a"), (b"2", b"Bearer b"), (b"3", None)):
            headers = [(b"audit-id", audit), *known.headers]
            plain = CheckedRequest(b"GET", b"/x", headers, upgrade, length)
            remembered = CheckedRequest(b"GET", b"/x", headers, upgrade, length, known)
            expected = sorted(render(plain, server, token).split(b"\r\n"))
            assert sorted(render(remembered, server, token).split(b"\r\n")) == expected


@pytest.mark.parametrize("target", [b"/x y", b"/x\r\nA: b", b"/x\nA: b"])
def test_a_remembered_head_does_not_let_a_line_in(target: bytes) -> None:
    known = KnownLines(USER, False)
    request = CheckedRequest(b"GET", target, [(b"audit-id", b"1"), *USER], None, 0, known)
    with pytest.raises(HeadError):
        render(request, ApiServer("api", 443, "api"), b"Bearer a")

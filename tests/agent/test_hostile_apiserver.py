"""One cluster's answer must not poison another's: each of these ends its exchange, and its connection, and
nothing else.

After every case the same pool serves a next request on a new connection, and that answer is clean.
"""

from __future__ import annotations

import asyncio

import pytest

from tests.agent.apiserver import Client, Script, answering
from tests.agent.conftest import Before
from tests.agent.fakes import get, post
from tunnel.errors import Hop, Reason
from tunnel.ports import RequestBlock

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
HEAD = get(method=b"HEAD")


def hostile(first: bytes, close: bool = False) -> Script:
    """The first connection answers with these bytes, and closes if asked; every other one answers well."""

    async def script(client: Client) -> None:
        if client.number == 0:
            await client.head()
            await client.say(first)
            if not close:
                await client.rest()
            return
        await answering(OK, OK)(client)

    return script


REFUSED = {
    "surplus after a length": OK + b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison",
    "one surplus byte": OK + b"x",
    "surplus after the last chunk": CHUNKED + b"2\r\nok\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
    "a chunk that lies about its size": CHUNKED + b"1\r\nok\r\n0\r\n\r\n",
    "a chunk extension": CHUNKED + b"2;x=y\r\nok\r\n0\r\n\r\n",
    "a signed chunk size": CHUNKED + b"+2\r\nok\r\n0\r\n\r\n",
    "a bare LF after a chunk size": CHUNKED + b"2\nok\r\n0\r\n\r\n",
    "a framing field as a trailer": CHUNKED + b"2\r\nok\r\n0\r\nContent-Length: 5\r\n\r\n",
    "content-length and chunked": CHUNKED[:-2] + b"Content-Length: 2\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "two content-lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
    "a negative content-length": b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok",
    "gzip as a transfer coding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "a body on 204": b"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\nok",
    "a body on 304": b"HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\nok",
    "two answers to one request": OK + OK,
    "17 interim answers": b"HTTP/1.1 103 Early Hints\r\n\r\n" * 17 + OK,
    "a 101 that nobody asked for": b"HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    "a status beyond 599": b"HTTP/1.1 600 X\r\nContent-Length: 0\r\n\r\n",
    "no HTTP at all": b"SSH-2.0-OpenSSH_9.9\r\n\r\n",
    "a folded header": b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n",
    "a bare LF in the head": b"HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n",
    "a blank before the colon": b"HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n",
    "an endless head": b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70_000,
    "too many headers": b"HTTP/1.1 200 OK\r\n" + b"X: a\r\n" * 201 + b"\r\n",
}
TRUNCATED = {
    "inside the head": b"HTTP/1.1 200 OK\r\nContent-",
    "inside a length": b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok",
    "before the last chunk": CHUNKED + b"2\r\nok\r\n",
    "inside a chunk": CHUNKED + b"9\r\nok",
    "inside the trailers": CHUNKED + b"0\r\nX-A: b\r\n",
    "after an interim answer": b"HTTP/1.1 100 Continue\r\n\r\n",
}


@pytest.mark.parametrize("name", REFUSED)
async def test_a_malformed_or_surplus_answer_ends_its_exchange_and_connection(name: str, before: Before) -> None:
    async with before(hostile(REFUSED[name])) as world:
        exchange = await world.ask(get())
        await exchange.until(lambda: exchange.releases)
        assert exchange.reset is not None, name
        assert (exchange.reset.hop, exchange.reset.reason) == (Hop.APISERVER, Reason.BAD_RESPONSE)
        assert exchange.reset.message.isprintable()
        after = await world.ask(get())
        assert (after.head.status, after.data, after.reset) == (200, b"ok", None)
        assert len(world.server.clients) == 2


@pytest.mark.parametrize("name", TRUNCATED)
async def test_a_truncated_answer_never_ends_like_a_whole_one(name: str, before: Before) -> None:
    async with before(hostile(TRUNCATED[name], close=True)) as world:
        exchange = await world.ask(get())
        assert not exchange.ended, name
        assert exchange.reset is not None
        assert (exchange.reset.hop, exchange.reset.reason) == (Hop.APISERVER, Reason.BAD_RESPONSE)


async def test_a_body_on_head_ends_the_exchange(before: Before) -> None:
    async with before(hostile(OK)) as world:
        exchange = await world.ask(HEAD)
        await exchange.until(lambda: exchange.reset)
        assert not exchange.data
        assert (await world.ask(get())).data == b"ok"
        assert len(world.server.clients) == 2


@pytest.mark.parametrize("status", [b"200 OK", b"304 Not Modified"])
async def test_head_and_304_keep_their_length_and_have_no_body(status: bytes, before: Before) -> None:
    answer = b"HTTP/1.1 " + status + b"\r\nContent-Length: 1000\r\n\r\n"
    async with before(answering(answer, OK)) as world:
        exchange = await world.ask(HEAD if status.startswith(b"200") else get())
        assert exchange.head.ended
        assert exchange.head.headers == [(b"content-length", b"1000")]
        assert (await world.ask(get())).data == b"ok"
        assert len(world.server.clients) == 1


async def test_surplus_that_comes_later_closes_the_idle_connection(before: Before) -> None:
    async def script(client: Client) -> None:
        await client.head()
        await client.say(OK)
        if client.number == 0:
            await asyncio.sleep(0.05)
            await client.say(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")
        await client.rest()

    async with before(script) as world:
        exchange = await world.ask(get())
        assert world.pool.state.idle == 1
        await exchange.until(lambda: not world.pool.state.open)
        assert (world.pool.state.strays, exchange.reset) == (1, None)
        assert (await world.ask(get())).data == b"ok"
        assert len(world.server.clients) == 2


async def test_an_answer_one_byte_at_a_time_is_the_same(before: Before) -> None:
    whole = (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-A: b\r\n\r\n"
        b"2\r\nok\r\n3\r\nyes\r\n0\r\nX-T: u\r\n\r\n"
    )

    async def script(client: Client) -> None:
        await client.head()
        for at in range(len(whole)):
            await client.say(whole[at : at + 1])
        await client.rest()

    async with before(script) as world:
        exchange = await world.ask(get())
        assert [(head.status, head.interim) for head in exchange.heads] == [(100, True), (200, False)]
        assert (exchange.data, exchange.trailers) == (b"okyes", b"x-t: u\r\n")
        assert world.pool.state.idle == 1


async def test_hop_by_hop_fields_and_those_named_in_connection_stop_here(before: Before) -> None:
    answer = (
        b"HTTP/1.1 200 OK\r\nConnection: X-Secret\r\nKeep-Alive: timeout=5\r\nX-Secret: 1\r\nUpgrade: h2c\r\n"
        b"Proxy-Authenticate: Basic\r\nHTTP2-Settings: a\r\nTE: trailers\r\nX-Kept: 1\r\nContent-Length: 2\r\n\r\nok"
    )
    async with before(answering(answer)) as world:
        exchange = await world.ask(get())
        assert exchange.head.headers == [(b"x-kept", b"1"), (b"content-length", b"2")]


async def test_a_redirect_is_passed_and_never_followed(before: Before) -> None:
    answer = b"HTTP/1.1 302 Found\r\nLocation: https://elsewhere.test/\r\nContent-Length: 0\r\n\r\n"
    async with before(answering(answer, OK)) as world:
        exchange = await world.ask(get())
        assert exchange.head.status == 302
        assert len(world.server.clients) == 1


async def test_an_answer_until_close_ends_with_a_proper_close(before: Before) -> None:
    async def script(client: Client) -> None:
        await client.head()
        await client.say(b"HTTP/1.1 200 OK\r\n\r\nhel")
        await client.say(b"lo")

    async with before(script) as world:
        exchange = await world.ask(get())
        assert (exchange.data, exchange.ended, exchange.reset) == (b"hello", True, None)
        assert world.pool.state.idle == 0


async def test_an_answer_until_close_that_is_cut_off_is_no_end(before: Before) -> None:
    async def script(client: Client) -> None:
        await client.head()
        await client.say(b"HTTP/1.1 200 OK\r\n\r\nhel")
        await world.start(get())[0].until(lambda: first.data == b"hel")
        client.writer.transport.abort()

    async with before(script) as world:
        first, _ = world.start(get())
        await first.over()
        assert first.reset is not None
        assert not first.ended


async def test_connection_close_is_obeyed(before: Before) -> None:
    answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"
    async with before(answering(answer, OK)) as world:
        assert (await world.ask(get())).data == b"ok"
        assert (await world.ask(get())).data == b"ok"
        assert len(world.server.clients) == 2


@pytest.mark.parametrize("request_head", [post((b"content-length", b"3")), post()], ids=["length", "chunks"])
async def test_a_client_writes_nothing_past_its_own_request(request_head: RequestBlock, before: Before) -> None:
    """With a client certificate, those bytes would be a request of the agent's own."""
    smuggled = b"GET /api/v1/secrets HTTP/1.1\r\nHost: x\r\n\r\n"

    async with before(answering(OK)) as world:
        exchange, relay = world.start(request_head)
        await exchange.until(lambda: world.server.clients and world.server.clients[0].seen)
        seen = world.server.clients[0].seen
        for data in (b"ab", b"c" + smuggled):
            relay.on_data(data)
            await asyncio.sleep(0.05)
        relay.on_end([])
        await exchange.over()
        await asyncio.sleep(0.05)
        if request_head.headers[-1][0] == b"content-length":
            assert exchange.reset is not None
            assert smuggled not in seen
        else:
            assert b"%x\r\nc%b\r\n0\r\n\r\n" % (1 + len(smuggled), smuggled) in seen


async def test_a_body_shorter_than_its_length_ends_the_exchange(before: Before) -> None:
    async with before(answering(OK)) as world:
        exchange, relay = world.start(post((b"content-length", b"3")))
        relay.on_data(b"ab")
        relay.on_end([])
        await exchange.over()
        assert exchange.reset is not None
        assert (exchange.reset.hop, exchange.reset.reason) == (Hop.STUB, Reason.REFUSED_HEAD)
        await exchange.until(lambda: not world.pool.state.open)

"""Kulvert's own endpoints, through the same door: what is public, who may see what, and that only requests are handed
over.
"""

from __future__ import annotations

import asyncio
import gc

import orjson
import pytest
from aiohttp import web

from auth.authenticator import AuthenticationUnavailable, Undecided
from auth.decision import Decision
from auth.grants.grants import Decisions
from auth.identity import Identity
from gateway.handover import AppExchange, Caller, Handover, caller_of
from gateway.management import _as_status
from gateway.membership.registry import Cluster
from gateway.pipeline import PUBLIC
from tests.gateway.answers import read
from tests.gateway.gate import HEADS, gate, settle
from tunnel.errors import ExchangeReset, Hop, Reason
from tunnel.head import RequestReader
from tunnel.limits import HeadLimits
from tunnel.ports import Headers, ResponseBlock


def get(target: bytes, token: bytes = b"", method: bytes = b"GET") -> bytes:
    who = b"Authorization: Bearer " + token + b"\r\n" if token else b""
    return method + b" " + target + b" HTTP/1.1\r\nHost: gateway\r\n" + who + b"\r\n"


def test_the_public_paths_are_these() -> None:
    published = {b"/openid/v1/jwks", b"/.well-known/openid-configuration", b"/.well-known/kulvert-configuration"}
    assert {b"/healthz", b"/livez", b"/readyz"} | published == PUBLIC


@pytest.mark.parametrize("path", [b"/healthz", b"/livez", b"/readyz"])
async def test_health_is_public_and_plain(path: bytes) -> None:
    async with gate() as g:
        wire = g.connect()
        wire.send(get(path) + get(path + b"?verbose") + get(path, method=b"HEAD") + get(path, method=b"POST"))
        await settle(60)
        plain, verbose, head, post = read(wire.take(), "GET", "GET", "HEAD", "POST")
        assert (plain.status, plain.body) == (200, b"ok")
        assert verbose.body.startswith(b"[+]ping ok\n")
        assert (head.status, head.body) == (200, b"")
        assert post.status == 401
        assert "server" not in plain.headers
        assert not g.audit.events[:-1]


async def test_readiness_says_what_is_missing_and_liveness_does_not_care() -> None:
    async with gate() as g:
        g.checks["grants"] = lambda: "the file is gone"
        wire = g.connect()
        wire.send(get(b"/readyz") + get(b"/livez"))
        await settle(40)
        ready, alive = read(wire.take(), "GET", "GET")
        assert ready.status == 503
        assert b"[-]grants failed: the file is gone\n" in ready.body
        assert alive.status == 200


async def test_metrics_are_for_their_group() -> None:
    async with gate() as g:
        wire = g.connect()
        wire.send(b"GET /clusters/a/api/v1/pods HTTP/1.1\r\n" + HEADS + b"\r\n")
        g.clusters.last.respond(200, body=b"hello")
        wire.send(get(b"/metrics", b"alice") + get(b"/metrics", b"ops+kulvert~admins"))
        await settle(60)
        _, refused, got = read(wire.take(), "GET", "GET", "GET")
        assert refused.status == 403
        assert got.status == 200
        assert b'kulvert_requests_total{cluster="a",code="2xx",verb="list"} 1.0' in got.body
        assert b'kulvert_response_bytes_total{cluster="a",code="2xx",verb="list"} 5.0' in got.body
        assert b"kulvert_connections 1.0" in got.body


async def test_a_user_sees_the_clusters_of_the_grants() -> None:
    async with gate() as g:
        wire = g.connect()
        target = b"/apis/kulvert.dev/v1alpha1/clusters"
        wire.send(get(target, b"alice") + get(target, b"eve+nobody"))
        await settle(60)
        alice, eve = read(wire.take(), "GET", "GET")
        assert [item["metadata"]["name"] for item in alice.json["items"]] == ["a", "b"]
        assert alice.json["items"][0]["status"]["ready"] is True
        assert eve.json["items"] == []


async def test_version_is_for_users() -> None:
    async with gate() as g:
        wire = g.connect()
        wire.send(get(b"/version", b"alice") + get(b"/version"))
        await settle(60)
        known, unknown = read(wire.take(), "GET", "GET")
        assert known.json == {"kulvert": "0.0.0"}
        assert unknown.status == 401


async def test_other_methods_and_paths_are_statuses() -> None:
    async with gate() as g:
        wire = g.connect()
        wire.send(get(b"/version", b"alice", b"PUT") + get(b"/nowhere", b"alice") + get(b"/version%20", b"alice"))
        await settle(60)
        put, nowhere, odd = read(wire.take(), "PUT", "GET", "GET")
        assert (put.status, put.headers["allow"], put.json["code"]) == (405, "GET,HEAD", 405)
        assert (nowhere.status, nowhere.json["reason"]) == (404, "NotFound")
        assert odd.status == 404


# --- the handover itself, with an application made for it


class Sink:
    """Collects an answer."""

    def __init__(self) -> None:
        self.heads: list[ResponseBlock] = []
        self.body = b""
        self.ended = False
        self.error: ExchangeReset | None = None
        self.writable = 0

    def on_response(self, head: ResponseBlock) -> None:
        self.heads.append(head)
        self.ended = self.ended or head.ended

    def on_data(self, data: bytes) -> None:
        self.body += data

    def on_end(self, trailers: Headers) -> None:
        self.ended = True

    def on_reset(self, error: ExchangeReset) -> None:
        self.error = error

    def on_writable(self) -> None:
        self.writable += 1


async def echo(request: web.Request) -> web.Response:
    caller = caller_of(request)
    user = caller.identity.user if caller.identity else "-"
    body = await request.read()
    seen = "|".join(sorted(request.headers))
    return web.Response(body=body, headers={"X-User": user, "X-Seen": seen, "Set-Cookie": "a=b"})


async def flood(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    for _ in range(100):
        await response.write(b"x" * 16_384)
    return response


async def crash(request: web.Request) -> web.Response:
    request.transport.abort()  # type: ignore[union-attr]
    return web.Response()


class App:
    """A handover to a small application."""

    async def __aenter__(self) -> App:
        app = web.Application(middlewares=[_as_status])
        app.router.add_route("*", "/echo", echo)
        app.router.add_get("/flood", flood)
        app.router.add_get("/crash", crash)
        self.runner = web.AppRunner(
            app, handle_signals=False, access_log=None, keepalive_timeout=0, shutdown_timeout=0.1
        )
        await self.runner.setup()
        assert self.runner.server is not None
        self.handover = Handover(self.runner.server, asyncio.get_running_loop())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.runner.cleanup()

    def ask(self, raw: bytes, sink: Sink) -> AppExchange:
        head = RequestReader(HeadLimits()).feed(raw)
        assert head is not None
        caller = Caller(Identity("alice", (), "", (), "test", "1", 0.0), "192.0.2.7", "id")
        return self.handover.open(head, caller, sink)


async def test_the_identity_travels_beside_the_request() -> None:
    forged = (
        b"GET /echo HTTP/1.1\r\nHost: x\r\nkulvert.caller: root\r\nX-User: root\r\n"
        b"Authorization: Bearer t\r\nCookie: c\r\n\r\n"
    )
    async with App() as app:
        sink = Sink()
        app.ask(forged, sink)
        await settle()
        headers = dict(sink.heads[0].headers)
        assert headers[b"x-user"] == b"alice"
        assert b"Authorization" not in headers[b"x-seen"]
        assert b"Cookie" not in headers[b"x-seen"]


async def test_a_request_that_came_another_way_is_refused() -> None:
    request = web.Request.__new__(web.Request)
    with pytest.raises((LookupError, AttributeError)):
        caller_of(request)


@pytest.mark.parametrize("framing", [b"Content-Length: 11\r\n", b"Transfer-Encoding: chunked\r\n"])
async def test_a_body_is_framed_anew(framing: bytes) -> None:
    async with App() as app:
        sink = Sink()
        exchange = app.ask(b"POST /echo HTTP/1.1\r\nHost: x\r\n" + framing + b"\r\n", sink)
        exchange.send_data(b"hello")
        await settle(3)
        exchange.send_data(b" world")
        exchange.send_end()
        await settle()
        assert sink.body == b"hello world"
        assert sink.ended


async def test_a_reader_that_stops_stops_the_application() -> None:
    async with App() as app:
        sink = Sink()
        exchange = app.ask(b"GET /flood HTTP/1.1\r\nHost: x\r\n\r\n", sink)
        await settle(400)
        assert len(sink.body) < 3 * 65_536
        assert not sink.ended
        paid = 0
        for _ in range(200):
            if sink.ended:
                break
            if len(sink.body) > paid:
                exchange.consumed(len(sink.body) - paid)
            paid = len(sink.body)
            await settle(5)
        assert len(sink.body) == 100 * 16_384


async def test_an_application_that_hangs_up_is_a_reset() -> None:
    async with App() as app:
        sink = Sink()
        app.ask(b"GET /crash HTTP/1.1\r\nHost: x\r\n\r\n", sink)
        await settle()
        assert sink.error is not None


async def test_a_client_that_has_gone_before_the_application_has_begun_leaves_no_error_behind(
    caplog: pytest.LogCaptureFixture,
) -> None:
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: complaints.append(context))
    async with App() as app:
        app.ask(b"GET /echo HTTP/1.1\r\nHost: x\r\n\r\n", Sink()).cancel(Hop.CLIENT, Reason.CANCELLED, "gone")
        await settle()
        gc.collect()  # a task's error that nobody has asked for is told when the task goes
    assert not complaints
    assert not caplog.records


async def test_a_cancelled_request_is_heard_of_no_more() -> None:
    async with App() as app:
        sink = Sink()
        exchange = app.ask(b"GET /flood HTTP/1.1\r\nHost: x\r\n\r\n", sink)
        exchange.cancel(Hop.CLIENT, Reason.CANCELLED, "gone")
        await settle()
        assert not sink.heads
        assert sink.error is None


async def test_a_hub_that_cannot_be_asked_is_a_503_of_the_list(monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> Decision:
        raise AuthenticationUnavailable("the hub cannot be reached")

    monkeypatch.setattr(Decisions, "decide", away)
    async with gate() as g:
        wire = g.connect()
        wire.send(get(b"/apis/kulvert.dev/v1alpha1/clusters", b"alice"))
        await settle(60)
        (answer,) = read(wire.take())
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")


async def test_a_list_of_many_clusters_asks_the_hub_about_many_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    known: set[str] = set()

    def decide(_self: Decisions, _identity: Identity, cluster: str, *_: object) -> Decision:
        async def asked() -> None:
            await asyncio.sleep(0.01)
            known.add(cluster)

        if cluster not in known:
            raise Undecided(asked)
        return Decision(cluster != "n-7", "hub", "")

    monkeypatch.setattr(Decisions, "decide", decide)
    async with gate() as g:
        g.names.clusters = {f"n-{number}": Cluster(f"n-{number}") for number in range(192)}
        wire = g.connect()
        wire.send(get(b"/apis/kulvert.dev/v1alpha1/clusters", b"alice"))
        async with asyncio.timeout(1.0):  # one after the other would take two
            while not (data := wire.take()):  # noqa: ASYNC110 -- another task's, in a test
                await asyncio.sleep(0.005)
        assert len(orjson.loads(read(data)[0].body)["items"]) == 191

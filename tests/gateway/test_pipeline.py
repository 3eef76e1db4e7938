"""What the gateway decides about a request, seen from its client: who learns what, and what each failure looks like."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gateway.limits import DoorLimits
from gateway.membership.registry import Cluster
from tests.gateway.answers import read
from tests.gateway.gate import gate, settle
from tests.gateway.wire import FakeExchange, Wire
from tunnel.errors import Hop, Reason


def get(target: bytes, token: bytes = b"alice", method: bytes = b"GET", more: bytes = b"") -> bytes:
    who = b"Authorization: Bearer " + token + b"\r\n" if token else b""
    return method + b" " + target + b" HTTP/1.1\r\nHost: gateway\r\n" + who + more + b"\r\n"


@pytest.mark.parametrize(
    ("target", "token", "status"),
    [
        # Without credentials one learns nothing, whatever exists
        (b"/clusters/a/api", b"", 401),
        (b"/clusters/nowhere/api", b"", 401),
        (b"/clusters/a/api", b"bad", 401),
        (b"/clusters/a/healthz", b"", 401),
        (b"/metrics", b"", 401),
        (b"/version", b"", 401),
        (b"/nowhere", b"", 401),
        (b"/", b"", 401),
        (b"/clusters", b"", 401),
        (b"/apis/kulvert.dev/v1alpha1/clusters", b"", 401),
        (b"/healthz/x", b"", 401),
        (b"/readyz?verbose", b"", 200),
        # Without a grant, nothing about clusters
        (b"/clusters/other/api", b"alice", 403),
        (b"/clusters/nowhere/api", b"alice", 403),
        (b"/clusters/a/api", b"alice+ops", 403),
        # With one, a name that does not exist is told
        (b"/clusters/gone/api", b"alice", 404),
        (b"/clusters/ghost-7/api", b"alice", 404),
        (b"/nowhere", b"alice", 404),
        (b"/clusters", b"alice", 404),
    ],
)
async def test_who_learns_what(target: bytes, token: bytes, status: int) -> None:
    async with gate() as g:
        wire = g.connect()
        wire.send(get(target, token))
        await settle()
        (got,) = read(wire.take())
        assert got.status == status
        assert not g.clusters.opened
        if status != 200:
            assert got.json["code"] == status
            assert got.headers["content-type"] == "application/json"
            assert got.hop == "gateway"
            assert got.headers["audit-id"] in got.body.decode()


async def test_the_refused_learn_the_same_about_clusters_that_exist_and_that_do_not() -> None:
    async with gate() as g:
        texts = []
        for name in (b"a", b"x"):
            wire = g.connect()
            wire.send(get(b"/clusters/" + name + b"/api", b"eve+nobody"))
            texts.append(read(wire.take())[0].message.replace(f"'{name.decode()}'", "X"))
        assert texts[0] == texts[1]


# --- upgrades and long requests


@pytest.mark.parametrize("protocol", [b"h2c", b"TLS/1.0", b"websocket2", b"spdy/2"])
async def test_other_upgrades_are_refused(protocol: bytes) -> None:
    async with gate() as g:
        wire = g.connect()
        wire.send(get(b"/clusters/a/api/v1/pods", more=b"Connection: upgrade\r\nUpgrade: " + protocol + b"\r\n"))
        await settle()
        (got,) = read(wire.take())
        assert (got.status, got.headers["connection"]) == (400, "close")
        assert not g.clusters.opened
        g.pass_time(3.0)
        assert wire.closed


@pytest.mark.parametrize("target", [b"/healthz", b"/version", b"/nowhere"])
async def test_management_upgrades_nothing(target: bytes) -> None:
    async with gate() as g:
        wire = g.connect()
        wire.send(get(target, more=b"Connection: upgrade\r\nUpgrade: websocket\r\n"))
        await settle()
        assert read(wire.take())[0].status == 400


@pytest.mark.parametrize(
    ("target", "more", "long"),
    [
        (b"/api/v1/pods", b"", False),
        (b"/api/v1/pods?watch=true", b"", True),
        (b"/api/v1/namespaces/n/pods/p/log?follow=true", b"", True),
        (b"/api/v1/namespaces/n/services/s/proxy/", b"", True),
        (b"/api/v1/pods", b"Content-Length: 65536\r\n", False),
        (b"/api/v1/pods", b"Content-Length: 65537\r\n", True),
        (b"/api/v1/pods", b"Transfer-Encoding: chunked\r\n", True),
        (b"/api/v1/namespaces/n/pods/p/exec", b"Connection: upgrade\r\nUpgrade: spdy/3.1\r\n", True),
    ],
)
async def test_what_is_long_asks_for_a_link_of_its_own(target: bytes, more: bytes, long: bool) -> None:
    async with gate() as g:
        wire = g.connect()
        wire.send(get(b"/clusters/a" + target, more=more))
        assert g.clusters.last.head.long is long
        assert g.traffic.long_running == long
        wire.lose()
        assert g.traffic.long_running == 0


async def test_the_path_goes_on_byte_for_byte() -> None:
    target = b"/apis/x/v1/namespaces/n/things/system:a%20b?labelSelector=a%3Db&x=%2e%2e//&&;"
    async with gate() as g:
        g.connect().send(get(b"/clusters/a" + target))
        assert g.clusters.last.head.target == target


# --- audit, metrics, secrets


async def test_every_request_is_audited_once_and_a_stream_when_it_begins_too() -> None:
    async with gate() as g:
        wire = g.connect()
        wire.send(
            get(b"/clusters/a/api/v1/namespaces/n/pods/p") + get(b"/clusters/nowhere/api", b"bad") + get(b"/version")
        )
        g.clusters.last.respond(200, body=b"hello")
        await settle()
        wire.send(get(b"/clusters/b/api/v1/pods?watch=1") + get(b"/healthz"))
        g.clusters.last.begin(200)
        assert g.audit.events[-1]["stage"] == "ResponseStarted"
        g.clusters.last.sink.on_end([])
        await settle()
        first, second, third, started, fourth = g.audit.events
        assert (first["verb"], first["user"]["username"], first["responseStatus"]["code"]) == ("get", "alice", 200)
        assert first["annotations"]["kulvert.dev/bytes-sent"] == "5"
        assert first["annotations"]["kulvert.dev/cluster"] == "a"
        assert first["annotations"]["kulvert.dev/rule"] == "devs"
        assert (second["user"], second["responseStatus"]["code"]) == ({}, 401)
        assert second["annotations"]["kulvert.dev/decision"] == "forbid"
        assert (third["requestURI"], third["responseStatus"]["code"]) == ("/version", 200)
        assert started["auditID"] == fourth["auditID"]
        assert (fourth["verb"], fourth["stage"]) == ("watch", "ResponseComplete")


async def test_where_nothing_can_be_audited_nothing_goes_through() -> None:
    async with gate() as g:
        g.audit.broken = True
        wire = g.connect()
        wire.send(get(b"/clusters/a/api/v1/pods"))
        g.clusters.last.respond(200, body=b"was under way")
        await settle()
        wire.send(get(b"/clusters/a/api/v1/pods") + get(b"/version") + get(b"/healthz"))
        await settle()
        assert [got.status for got in read(wire.take(), *["GET"] * 4)] == [200, 503, 503, 200]
        assert len(g.clusters.opened) == 1
        g.audit.broken = False
        g.pass_time(2.0)
        wire.send(get(b"/clusters/a/api/v1/pods"))
        assert len(g.clusters.opened) == 2


def unanswered(_: FakeExchange, wire: Wire) -> None:
    wire.lose()


def answered(exchange: FakeExchange, _: Wire) -> None:
    exchange.respond(200, body=b"x")


def failed(exchange: FakeExchange, _: Wire) -> None:
    exchange.reset(Hop.AGENT, Reason.UNREACHABLE, "connection refused")


def cut(exchange: FakeExchange, _: Wire) -> None:
    exchange.begin(200)
    exchange.reset(Hop.STUB, Reason.LINK_LOST)


@pytest.mark.parametrize("end", [unanswered, answered, failed, cut])
async def test_what_is_in_flight_comes_back_to_zero(end: Callable[[FakeExchange, Wire], None]) -> None:
    async with gate() as g:
        wire = g.connect()
        wire.send(get(b"/clusters/a/api/v1/pods?watch=1"))
        assert (g.traffic.in_flight, g.traffic.long_running) == (1, 1)
        end(g.clusters.last, wire)
        assert (g.traffic.in_flight, g.traffic.long_running) == (0, 0)
        assert sum(series.count for series in g.traffic.series.values()) == 1


SECRETS = (b"s3cr3t-token", b"s3cr3t-cookie", b"s3cr3t-query", b"s3cr3t-basic", b"czNjcjN0LXNvY2tldA")


@pytest.mark.parametrize(
    "request_",
    [
        get(b"/clusters/a/api/v1/pods?token=s3cr3t-query", b"s3cr3t-token", more=b"Cookie: s3cr3t-cookie\r\n"),
        get(b"/clusters/a/api/v1/pods?token=s3cr3t-query", b"bad-s3cr3t-token", more=b"Cookie: s3cr3t-cookie\r\n"),
        get(b"/clusters/a/..?token=s3cr3t-query", b"s3cr3t-token"),
        get(b"/nowhere?token=s3cr3t-query", b"root"),
        get(b"/clusters/a/api/v1/pods", b"", more=b"Authorization: Basic s3cr3t-basic\r\n"),
        get(b"/clusters/a/api/v1/pods", b"", more=b"Authorization: Bearer s3cr3t-token with spaces\r\n"),
        get(b"/clusters/a/api/v1/pods", b"s3cr3t-token", more=b"Content-Length: x\r\n"),
        get(
            b"/clusters/a/api/v1/namespaces/n/pods/p/exec", b"",
            more=b"Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Protocol: x, "
            b"base64url.bearer.authorization.k8s.io.czNjcjN0LXNvY2tldA\r\n",
        ),
    ],
)  # fmt: skip
async def test_planted_secrets_are_found_nowhere(request_: bytes, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(0)
    async with gate() as g:
        wire = g.connect()
        wire.send(request_)
        if g.clusters.opened:
            headers = b"\n".join(value for _, value in g.clusters.last.head.headers)
            # The token *is* the user's name in these tests' authenticator: that one value is looked at apart.
            headers = headers.replace(b"s3cr3t-token", b"", 1) if b"impersonate" not in request_ else headers
            assert not any(secret in headers for secret in SECRETS)
            g.clusters.last.reset(Hop.AGENT, Reason.UNREACHABLE, "refused")
        await settle()
        assert len(g.audit.events) <= 1
        # There it is the credential's id, too, which real ones make from anything but the secret.
        audited = g.audit.text.replace(b'"username":"s3cr3t-token"', b"").replace(b'"JTI=s3cr3t-token"', b"")
        told = wire.take() + audited + caplog.text.encode() + repr(g.traffic.series).encode()
        assert not any(secret in told for secret in SECRETS), told


async def test_a_bug_answers_500_and_tells_nothing() -> None:
    def broken(name: str) -> Cluster | None:
        raise ZeroDivisionError(f"the inside of {name}")

    async with gate() as g:
        g.names.get = broken  # type: ignore[method-assign]
        wire = g.connect()
        wire.send(get(b"/clusters/a/api"))
        await settle()
        (got,) = read(wire.take())
        assert (got.status, got.headers["connection"]) == (500, "close")
        assert "inside" not in got.message
        assert [type(bug) for bug in g.bugs] == [ZeroDivisionError]
        g.bugs.clear()


async def test_limits_come_from_the_settings() -> None:
    async with gate(limits=DoorLimits(large_body=10)) as g:
        g.connect().send(get(b"/clusters/a/api", method=b"POST", more=b"Content-Length: 11\r\n"))
        assert g.clusters.last.head.long


class Tls:
    """A connection on which carol has shown her certificate."""

    def getpeercert(self, binary_form: bool) -> bytes:
        assert binary_form
        return b"DER"


@pytest.mark.parametrize(
    ("origin", "token", "opened"),
    [
        (b"https://evil.example", b"", False),
        (b"null", b"", False),
        (b"https://gateway.evil.example", b"", False),
        (b"https://gateway", b"", True),
        (b"http://localhost:8001", b"", True),
        (b"", b"", True),
        (b"https://evil.example", b"alice", True),
    ],
)
async def test_a_page_of_another_site_opens_nothing_with_its_readers_certificate(
    origin: bytes, token: bytes, opened: bool
) -> None:
    """A token is not shown by the browser on its own; a certificate is."""
    more = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Protocol: v5.channel.k8s.io\r\n"
    more += b"Origin: " + origin + b"\r\n" if origin else b""
    async with gate() as g:
        wire = g.connect(ssl_object=Tls())
        wire.send(get(b"/clusters/a/api/v1/namespaces/n/pods/p/exec?command=sh", token, more=more))
        assert bool(g.clusters.opened) is opened


async def test_a_websocket_says_where_it_is_from_and_nothing_else_does() -> None:
    """kube-apiserver opens no WebSocket watch without an Origin; what else it means to a cluster, nobody asked for."""
    upgrade = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
    async with gate() as g:
        for more, told in ((upgrade, [b"https://gateway"]), (b"", [])):
            wire = g.connect()
            wire.send(get(b"/clusters/a/api/v1/pods?watch=1", more=more + b"Origin: https://gateway\r\n"))
            assert g.clusters.last.header(b"origin") == told


async def test_more_lines_than_the_link_takes_stay_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """The agent would end the link, and with it everybody's requests."""
    monkeypatch.setattr("gateway.pipeline.MAX_LINES", 4)
    async with gate() as g:
        wire = g.connect()
        wire.send(get(b"/clusters/a/api", more=b"Accept: a\r\nAccept-Language: b\r\n"))
        assert read(wire.take())[0].status == 431
        assert not g.clusters.opened

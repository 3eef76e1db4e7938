"""What a client may tell a cluster by header, and a cluster a client: CVE-2021-31999 and its family, row by row."""

from __future__ import annotations

import pytest

from gateway.downstreamhead import location, render_answer
from gateway.route import Route
from gateway.upstreamhead import bearer_of, without_bearer
from tests.gateway.answers import read
from tests.gateway.gate import ALICE, HEADS, gate, settle
from tunnel.errors import HeadError
from tunnel.ports import ResponseBlock

PODS = b"GET /clusters/a/api/v1/pods HTTP/1.1\r\n"
PROXY = b"GET /clusters/a/api/v1/namespaces/n/services/http:web:80/proxy/x HTTP/1.1\r\n"
OURS = {
    b"x-forwarded-for": [b"192.0.2.7"],
    b"impersonate-user": [b"alice"],
    b"impersonate-group": [b"devs"],
}


@pytest.mark.parametrize("line", [PODS, PROXY], ids=["resource", "proxy"])
@pytest.mark.parametrize(
    "connection",
    [
        b"Connection: Impersonate-User\r\n",
        b"Connection: keep-alive, impersonate-group, X-Forwarded-For, Audit-Id\r\n",
        b"Connection: close\r\nConnection: IMPERSONATE-USER, Impersonate-Group\r\n",
        b"connection: impersonate-user,impersonate-group\r\nConnection: audit-id\r\nCONNECTION: x-forwarded-for\r\n",
    ],
)
async def test_naming_our_headers_in_connection_removes_none_of_them(line: bytes, connection: bytes) -> None:
    async with gate() as g:
        g.connect().send(line + HEADS + connection + b"\r\n")
        for name, values in OURS.items():
            assert g.clusters.last.header(name) == values
        assert len(g.clusters.last.header(b"audit-id")) == 1
        names = [name for name, _ in g.clusters.last.head.headers]
        assert names[-2:] == [b"impersonate-user", b"impersonate-group"]


async def test_naming_them_beside_upgrade_removes_none_either() -> None:
    async with gate() as g:
        g.connect().send(
            b"GET /clusters/a/api/v1/namespaces/n/pods/p/exec HTTP/1.1\r\n"
            + HEADS
            + b"Connection: Upgrade, Impersonate-User\r\nUpgrade: SPDY/3.1\r\n"
            b"X-Stream-Protocol-Version: v4.channel.k8s.io\r\nX-Stream-Protocol-Version: channel.k8s.io\r\n\r\n"
        )
        exchange = g.clusters.last
        assert exchange.header(b"impersonate-user") == [b"alice"]
        assert exchange.header(b"upgrade") == [b"spdy/3.1"]
        assert exchange.header(b"x-stream-protocol-version") == [b"v4.channel.k8s.io", b"channel.k8s.io"]


async def test_a_header_named_in_connection_is_hop_by_hop_behind_a_proxy_too() -> None:
    async with gate() as g:
        g.connect().send(PROXY + HEADS + b"Connection: X-Secret\r\nX-Secret: 1\r\nX-App: 2\r\n\r\n")
        assert g.clusters.last.header(b"x-secret") == []
        assert g.clusters.last.header(b"x-app") == [b"2"]


DROPPED = [
    b"Authorization", b"X-Remote-User", b"X-Remote-Group", b"X_Remote_User", b"X-Forwarded-For", b"X_Forwarded_For",
    b"X-Forwarded-Host", b"Forwarded", b"X-Real-Ip", b"Audit-Id", b"Proxy-Authorization", b"Proxy-Connection", b"Te",
    b"Keep-Alive", b"Trailer", b"Cookie", b"Host", b"Http2-Settings", b"X-Kulvert-Session",
]  # fmt: skip


@pytest.mark.parametrize("line", [PODS, PROXY], ids=["resource", "proxy"])
@pytest.mark.parametrize("name", DROPPED)
async def test_headers_that_never_go_on(line: bytes, name: bytes) -> None:
    async with gate() as g:
        extra = b"" if name in (b"Authorization", b"Host") else name + b": planted\r\n"
        g.connect().send(line + HEADS + extra + b"\r\n")
        values = [value for _, value in g.clusters.last.head.headers]
        assert b"planted" not in values
        assert b"Bearer alice" not in values
        assert g.clusters.last.header(b"authorization") == []
        assert g.clusters.last.header(b"host") == []


async def test_plain_resources_have_an_allow_list() -> None:
    async with gate() as g:
        g.connect().send(
            PODS + HEADS + b"Accept: a/b\r\nIf-None-Match: 1\r\nTraceparent: t\r\nUser-Agent: k\r\nX-Whatever: 1\r\n"
            b"Origin: https://evil\r\nX-HTTP-Method-Override: DELETE\r\n\r\n"
        )
        names = [name for name, _ in g.clusters.last.head.headers]
        assert names == [
            b"audit-id", b"accept", b"if-none-match", b"traceparent", b"user-agent", b"x-forwarded-for",
            b"impersonate-user", b"impersonate-group",
        ]  # fmt: skip


async def test_cookies_reach_an_application_by_host_and_not_by_path() -> None:
    async with gate(domain="k.example") as g:
        g.connect().send(PROXY + HEADS + b"Cookie: a=b\r\n\r\n")
        assert g.clusters.last.header(b"cookie") == []
        line = PROXY.replace(b"/clusters/a", b"")
        g.connect().send(line + b"Host: a.k.example\r\n" + ALICE + b"Cookie: a=b\r\n\r\n")
        assert g.clusters.last.header(b"cookie") == [b"a=b"]
        g.connect().send(b"GET /api/v1/pods HTTP/1.1\r\nHost: a.k.example\r\n" + ALICE + b"Cookie: a=b\r\n\r\n")
        assert g.clusters.last.header(b"cookie") == []


async def test_content_length_is_the_framings_own() -> None:
    async with gate() as g:
        wire = g.connect()
        wire.send(PODS.replace(b"GET", b"POST") + HEADS + b"Content-Length: 005\r\nContent-Type: x/y\r\n\r\nhello")
        assert g.clusters.last.header(b"content-length") == [b"5"]
        assert g.clusters.last.header(b"content-type") == [b"x/y"]


# --- tokens in subprotocols

TOKEN = b"base64url.bearer.authorization.k8s.io.YWxpY2U"
SOCKET = (
    b"GET /clusters/a/api/v1/namespaces/n/pods/p/exec HTTP/1.1\r\nHost: x\r\n"
    b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: a\r\nSec-WebSocket-Version: 13\r\n"
)


async def test_a_token_in_a_subprotocol_is_a_credential_and_stays_here() -> None:
    async with gate() as g:
        g.connect().send(SOCKET + b"Sec-WebSocket-Protocol: v4.channel.k8s.io, " + TOKEN + b"\r\n\r\n")
        assert g.clusters.last.header(b"sec-websocket-protocol") == [b"v4.channel.k8s.io"]
        assert g.clusters.last.header(b"impersonate-user") == [b"alice"]


async def test_a_line_of_tokens_alone_disappears() -> None:
    async with gate() as g:
        protocols = b"Sec-WebSocket-Protocol: " + TOKEN + b"\r\nSec-WebSocket-Protocol: v5.channel.k8s.io\r\n\r\n"
        g.connect().send(SOCKET + protocols)
        assert g.clusters.last.header(b"sec-websocket-protocol") == [b"v5.channel.k8s.io"]


@pytest.mark.parametrize("value", [TOKEN + b", " + TOKEN, TOKEN + b"!", TOKEN.replace(b"YWxpY2U", b"")])
async def test_a_malformed_token_in_a_subprotocol_is_a_401(value: bytes) -> None:
    async with gate() as g:
        wire = g.connect()
        wire.send(SOCKET + b"Sec-WebSocket-Protocol: " + value + b"\r\n\r\n")
        assert read(wire.take())[0].status == 401
        assert not g.clusters.opened


def test_subprotocols() -> None:
    assert bearer_of([b"a, b"]) is None
    assert bearer_of([b"a", b"b, " + TOKEN]) == b"YWxpY2U"
    assert without_bearer(b"a, " + TOKEN.upper() + b",b") == b"a, b"


# --- the way down

BY_PATH = Route("a", b"/api/v1/pods?x", b"/clusters/a")
BY_HOST = Route("a", b"/api/v1/pods", b"")
AT_ROOT = Route("a", b"/", b"/clusters/a")
APP = b"/api/v1/namespaces/n/services/web/proxy"


@pytest.mark.parametrize(
    ("value", "route", "proxied", "kept"),
    [
        (b"/api/v1/", BY_PATH, b"", b"/clusters/a/api/v1/"),
        (b"/api/v1/", BY_HOST, b"", b"/api/v1/"),
        (b"nodes?x#y", BY_PATH, b"", b"/clusters/a/api/v1/nodes?x#y"),
        (b"b/api", AT_ROOT, b"", b"/clusters/a/b/api"),
        (b"?page=2", BY_PATH, b"", b"/clusters/a/api/v1/pods?page=2"),
        (b"https://10.0.0.1:6443" + APP + b"/login?next=/", BY_PATH, APP, b"/clusters/a" + APP + b"/login?next=/"),
        (b"https://10.0.0.1" + APP, BY_HOST, APP, APP),
        (b"https://evil.example/", BY_PATH, b"", None),
        (b"https://evil.example/", BY_PATH, APP, None),
        (b"https://10.0.0.1/api/v1/secrets", BY_PATH, APP, None),
        (b"https://10.0.0.1" + APP + b"/../x", BY_PATH, APP, None),
        (b"https://10.0.0.1" + APP + b"evil", BY_PATH, APP, None),
        (b"//evil.example/x", BY_PATH, b"", None),
        (b"/\\evil.example", BY_PATH, b"", None),
        (b"\\\\evil.example", BY_PATH, b"", None),
        (b"/%5cevil.example", BY_PATH, b"", None),
        (b"/\tx", BY_PATH, b"", None),
        (b"javascript:alert(1)", BY_PATH, b"", None),
        (b"https:evil.example", BY_PATH, b"", None),
        (b"/../b/api", BY_PATH, b"", None),
        (b"../../../b/api", BY_PATH, b"", None),
        (b"/%2e%2e/b/api", BY_PATH, b"", None),
        (b"/..%2fb", BY_PATH, b"", None),
        (b"/x/..;/y", BY_PATH, b"", None),
        (b"", BY_PATH, b"", None),
        ("/é".encode(), BY_PATH, b"", None),
    ],
)
def test_a_location_leads_back_to_its_cluster_or_nowhere(
    value: bytes, route: Route, proxied: bytes, kept: bytes | None
) -> None:
    assert location(value, route, proxied) == kept


AMBIENT = [
    b"strict-transport-security", b"alt-svc", b"clear-site-data", b"service-worker-allowed", b"public-key-pins", b"nel",
    b"report-to", b"refresh", b"set-cookie2", b"connection", b"keep-alive", b"transfer-encoding", b"upgrade", b"te",
    b"proxy-authenticate", b"trailer", b"audit-id", b"content-location",
]  # fmt: skip


@pytest.mark.parametrize("name", AMBIENT)
async def test_nothing_that_outlives_its_answer_passes(name: bytes) -> None:
    async with gate() as g:
        wire = g.connect()
        wire.send(PODS + HEADS + b"\r\n")
        g.clusters.last.respond(200, [(name, b"planted"), (b"x-ok", b"1")], b"x")
        await settle()
        assert b"planted" not in wire.received
        assert read(wire.take())[0].headers["x-ok"] == "1"


@pytest.mark.parametrize(
    ("route", "proxied", "value", "passes"),
    [
        (BY_PATH, APP, b"s=1; Path=/", False),
        (BY_PATH, b"", b"s=1", False),
        (BY_HOST, b"", b"s=1", False),
        (BY_HOST, APP, b"s=1; Path=/; Secure", True),
        (BY_HOST, APP, b"s=1; Domain=k.example", False),
    ],
)
def test_a_clusters_cookies_reach_no_other_cluster(route: Route, proxied: bytes, value: bytes, passes: bool) -> None:
    head = render_answer(ResponseBlock(200, [(b"set-cookie", value)]), route, proxied, [], b"now")
    assert (b"set-cookie" in head) is passes


async def test_a_redirect_is_relayed_and_not_followed() -> None:
    async with gate() as g:
        wire = g.connect()
        wire.send(PODS + HEADS + b"\r\n")
        g.clusters.last.begin(307, [(b"location", b"https://evil.example/")], ended=True)
        await settle()
        assert len(g.clusters.opened) == 1
        (got,) = read(wire.take())
        assert got.status == 307
        assert "location" not in got.headers


def test_date_is_the_clusters_or_ours() -> None:
    theirs = render_answer(ResponseBlock(200, [(b"date", b"then")]), BY_PATH, b"", [], b"now")
    assert b"date: then" in theirs
    assert b"now" not in theirs
    assert b"date: now" in render_answer(ResponseBlock(200, []), BY_PATH, b"", [], b"now")


def test_a_header_that_would_end_its_line_is_not_written() -> None:
    with pytest.raises(HeadError):
        render_answer(ResponseBlock(200, [(b"x", b"a\r\nb")]), BY_PATH, b"", [], b"now")

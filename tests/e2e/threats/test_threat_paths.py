"""Which cluster, and what path: decided and forwarded from one parse; upstream it is the client's, byte for byte."""

from __future__ import annotations

from urllib.parse import unquote, urljoin, urlsplit

import pytest

from tests.e2e.threats.conftest import Connect
from tests.support.hostile_client import HostileClient, connected, request, together, upgrade
from tests.support.hostile_platform import RECORDED, ThreatPlatform
from tests.support.recording_apiserver import RecordingApiServer, by_case

PROXY = "/api/v1/namespaces/x/services/y/proxy"
NAMES = (
    "..", ".", "%2e%2e", "alpha%2f..", "alpha%2e", "alph%61", "ALPHA", "alpha;x", "alpha%00", "alpha%5c", "alpha%20",
    "alpha.", "-alpha", "alpha-", "al_pha", "%c0%ae%c0%ae", "%e2%80%a4", "a" * 64, "alpha,beta", "alpha:443", "*", "",
)  # fmt: skip
PATHS = (
    "/../beta/api", "/..", "/.", "/api/../../beta/api", "/api/v1/..", "/api/./v1", "/%2e%2e/beta/api", "/%2E%2e/beta",
    "/.%2e/beta", "/api%2fv1", "/api%2Fv1/pods", "/%2e%2e%2fbeta%2fapi", "/..%2fbeta", "/api%5c..%5cbeta",
    "/api\\..\\beta", "/..%5cbeta", "//beta/api", "/api//v1", "//", "/api/v1//", "/api;x=y/v1", "/..;/beta",
    "/api/v1;/pods", "/%3b/x", "/api%00", "/api%00/../beta", "/api/v1/%01", "/api/v1/%0d%0aX:%20y", "/api/v1/%7f",
    "/%c0%ae%c0%ae/beta", "/%c0%af", "/%e0%80%ae%e0%80%ae/", "/%ff", "/%c3", "/api%", "/api%2", "/api%zz",
    "/%252e%252e/beta", "/api%252fv1", "/api#x", "/api/v1?x#y", "/\xe9", "/ap\ti", "/%u002e%u002e/beta",
)  # fmt: skip
PROXIED = (
    "/../../../x", "/..", "/./x", "/%2e%2e/x", "/a%2f..%2f..%2fx", "/..;/x", "/..;a=b/x", "/a\\b", "/a%5c..%5cx",
    "/%00", "/%c0%ae%c0%ae/", "/%0d%0a", "/.%2e;x/y",
)  # fmt: skip
SAME = (
    "/api/v1/pods", "/api/v1/pods?", "/api/v1/pods?a=b&c=%2e%2e%2f..//;\\", "/", "?a",
    "/.well-known/openid-configuration", "/api/v1/namespaces/x/pods/a.b~c_d-e", "/api/v1/x/a%20b",
    "/api/v1/x/%C3%A9%c3%a9", "/api/v1/x/a+b=c,d@e:f!$&'()*", "/api/v1/x/...", "/api/v1/x/..a", "/api/v1/x/",
    "/%61pi/v1/pods", "/clusters/beta/api", f"{PROXY}/a%2fb%2Fc//d;e=f/%25/%3b?x=../y", f"{PROXY}//",
    f"{PROXY}/%252e%252e/x", f"{PROXY}?a", f"{PROXY}/a%20b;c",
)  # fmt: skip


async def test_path_segments_reached_other_targets(connect: Connect, recorder: RecordingApiServer) -> None:
    """CVE-2026-66794: nothing that two parsers may read in two ways is let through."""
    before = len(recorder.requests)
    targets = [f"/clusters/{name}/api" for name in NAMES]
    targets += [f"/clusters/{RECORDED}{path}" for path in PATHS]
    targets += [f"/clusters/{RECORDED}{PROXY}{path}" for path in PROXIED]
    targets += [f"http://localhost/clusters/{RECORDED}/api", f"clusters/{RECORDED}", "*", f"//clusters/{RECORDED}/api"]
    targets += [f"/./clusters/{RECORDED}/api", f"/x/../clusters/{RECORDED}/api", f"/clusters//{RECORDED}/api"]
    targets += [f"/clusters%2f{RECORDED}/api", f"/%63lusters/{RECORDED}/api", f"/clusters/{RECORDED}%2fapi"]
    let_through = []
    for target in targets:
        async with connect() as client:
            await client.say(request(target))
            status = (await client.answer()).status
            if status != 400:
                let_through.append((target, status))
    # Management paths that do not exist: no cluster is asked.
    assert let_through == [(f"/%63lusters/{RECORDED}/api", 404)]
    assert len(recorder.requests) == before


@pytest.mark.parametrize("by_host", [False, True])
async def test_the_raw_path_upstream_is_the_clients_byte_for_byte(
    by_host: bool, client: HostileClient, recorder: RecordingApiServer
) -> None:
    host = f"{RECORDED}.kulvert.test" if by_host else "localhost"
    for path in SAME:
        if by_host and path == "?a":
            continue
        before = len(recorder.requests)
        await client.say(request(path if by_host else f"/clusters/{RECORDED}{path}", host=host))
        assert (await client.answer()).status == 200, path
        (one,) = recorder.requests[before:]
        assert one.target == (b"/" if path == "?a" else b"") + path.encode()


async def test_the_host_decides_alone_where_it_decides(client: HostileClient, recorder: RecordingApiServer) -> None:
    await client.say(request("/clusters/alpha/api", host=f"{RECORDED}.kulvert.test"))
    assert (await client.answer()).status == 200
    assert recorder.requests[-1].target == b"/clusters/alpha/api"


HOSTS = (
    "alpha%2f.kulvert.test",
    "a.b.kulvert.test",
    "..kulvert.test",
    ".kulvert.test",
    "-a.kulvert.test",
    "al_pha.kulvert.test",
)


@pytest.mark.parametrize("host", HOSTS)
async def test_a_hosts_name_reached_another_target(host: str, client: HostileClient) -> None:
    await client.say(request("/api", host=host))
    assert (await client.answer()).status == 400


async def test_path_segments_at_the_real_api_server(connect: Connect) -> None:
    """`..` from alpha does not lead to beta, nor out of a namespace that RBAC guards."""
    async with connect("bob", "threats") as client:
        for path in (
            "/api/v1/namespaces/default/../kube-system/secrets",
            "/api/v1/namespaces/default%2f..%2fkube-system/x",
        ):
            await client.say(request(f"/clusters/alpha{path}"))
            assert (await client.answer()).status == 400
    async with connect("bob", "threats") as client:
        assert (await client.whoami("alpha")).user == "bob"


LOCATIONS = (
    "https://evil.test/x", "http://evil.test", "//evil.test/", "///evil.test/", "/\\evil.test/", "\\\\evil.test/",
    "https:evil.test", "https:/evil.test", "javascript:alert(1)", "data:text/html,x", "/../beta/api",
    "../../beta/api", "..", "../beta/api", "/%2e%2e/beta/api", "..%2fbeta", "%2e%2e/beta", "/..;/beta",
    "/a/..%5cbeta", "https://127.0.0.1:6443/api", "?x=https://evil.test", "/clusters/beta/api", "/api/v1", "v1", "",
    "#x", "https://user@evil.test/", "/x\x7f", "HTTPS://EVIL.TEST/", "/\t/evil.test",
    "https://evil.test" + PROXY + "/x", "https://evil.test" + PROXY + "/../../x",
    "https://evil.test" + PROXY + "%2f..",
)  # fmt: skip


@pytest.mark.parametrize("upgrading", [False, True], ids=["plain", "upgrade"])
async def test_redirects_followed_or_relayed(upgrading: bool, connect: Connect, recorder: RecordingApiServer) -> None:
    """CVE-2018-1002102, CVE-2020-8559, CVE-2022-3172: never followed; a Location that leads away is not relayed."""
    replies = {
        f"{status} {location}": f"HTTP/1.1 {status} Away\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode(
            "latin-1"
        )
        for status in (301, 302, 303, 307, 308, 300)
        for location in LOCATIONS
    }
    before = len(recorder.requests)

    async def redirected(number: int) -> None:
        target = f"/clusters/{RECORDED}{PROXY}/here?case={number}"
        async with connect() as client:
            await client.say(upgrade(target) if upgrading else request(target))
            answer = await client.answer()
        found = answer.all("location")
        assert len(found) <= 1
        for location in found:
            assert stays(target, location), location

    with recorder.answering(by_case(replies)):
        names = list(enumerate(replies))
        for at in range(0, len(names), 33):
            await together({name: redirected(number) for number, name in names[at : at + 33]})
    asked = recorder.requests[before:]
    assert len(asked) == len(replies)
    assert {one.target.partition(b"?")[0] for one in asked} == {f"{PROXY}/here".encode()}


def stays(target: str, location: str) -> bool:
    """Whether a client that follows a Location is still at the recorded cluster."""
    to = urlsplit(urljoin(f"https://localhost{target}", location))
    plain = unquote(to.path).replace("\\", "/")
    return to.netloc == "localhost" and plain.startswith(f"/clusters/{RECORDED}/") and "/.." not in plain


async def test_a_redirect_within_the_cluster_is_passed(client: HostileClient, recorder: RecordingApiServer) -> None:
    """So that the test above cannot pass by dropping all of them."""
    kept = {"/api/v1": "/api/v1", "v1": f"{PROXY}/v1", "?x=y": f"{PROXY}/here?x=y", f"http://a{PROXY}/x": f"{PROXY}/x"}
    replies = {to: f"HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n".encode() for to in kept}
    with recorder.answering(by_case(replies)):
        for number, path in enumerate(kept.values()):
            await client.say(request(f"/clusters/{RECORDED}{PROXY}/here?case={number}"))
            assert (await client.answer()).get("location") == f"/clusters/{RECORDED}{path}"


ORIGIN = (
    "Set-Cookie: a=poison", "Set-Cookie2: a=poison", "Strict-Transport-Security: max-age=1", "Alt-Svc: h3=\":443\"",
    "Clear-Site-Data: *", "Service-Worker-Allowed: /", "Refresh: 0; url=https://evil.test", "Content-Location: /x",
    "Audit-Id: forged", "NEL: {}", "Report-To: {}", "Reporting-Endpoints: a=\"https://evil.test\"", "Origin-Trial: x",
    "Public-Key-Pins: x", "Connection: X-Kept", "Keep-Alive: timeout=1", "Proxy-Authenticate: Basic",
)  # fmt: skip


async def test_one_clusters_answer_speaks_for_the_gateways_origin(
    client: HostileClient, recorder: RecordingApiServer
) -> None:
    """With routing by path, all clusters share an origin: what outlives an answer stays behind."""
    lines = "".join(f"{line}\r\n" for line in ORIGIN).encode()
    with recorder.answering(b"HTTP/1.1 200 OK\r\n" + lines + b"X-Kept: 1\r\nX-Passed: 1\r\nContent-Length: 0\r\n\r\n"):
        for path in ("/api", f"{PROXY}/x"):
            await client.say(request(f"/clusters/{RECORDED}{path}"))
            answer = await client.answer()
            assert answer.get("x-passed") == "1"
            assert answer.all("audit-id") != ["forged"]
            names = {line.partition(":")[0].lower() for line in ORIGIN} | {"x-kept"}
            assert [name for name in names - {"audit-id"} if answer.all(name)] == []
    assert len(answer.all("audit-id")) == 1


async def test_a_cookie_is_sent_to_another_clusters_application(
    client: HostileClient, recorder: RecordingApiServer
) -> None:
    for host, expected in (("localhost", []), (f"{RECORDED}.kulvert.test", [b"a=b"])):
        path = f"/clusters/{RECORDED}{PROXY}/cookie" if host == "localhost" else f"{PROXY}/cookie"
        await client.say(request(path, "Cookie: a=b", host=host))
        assert (await client.answer()).status == 200
        assert recorder.requests[-1].all(b"cookie") == expected
    with recorder.answering(b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b; Domain=kulvert.test\r\nContent-Length: 0\r\n\r\n"):
        await client.say(request(f"{PROXY}/cookie", host=f"{RECORDED}.kulvert.test"))
        assert (await client.answer()).all("set-cookie") == []


async def test_a_wildcard_name_is_served_by_a_verified_certificate(threat_platform: ThreatPlatform) -> None:
    async with connected(threat_platform.port, threat_platform.context("ada"), f"{RECORDED}.kulvert.test") as client:
        await client.say(request("/api", host=f"{RECORDED}.kulvert.test"))
        assert (await client.answer()).status == 200

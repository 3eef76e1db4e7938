"""Every door, every path, without credentials; and every request routed and authenticated by itself."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

import pytest

from tests.e2e.threats.conftest import Connect
from tests.support.hostile_client import HostileClient, connected, request, review, seen, upgrade
from tests.support.hostile_platform import RECORDED, ThreatPlatform, listening
from tests.support.recording_apiserver import RecordingApiServer

PUBLIC = {
    (method, path)
    for method in ("GET", "HEAD")
    for path in (
        "/healthz", "/livez", "/readyz",
        "/openid/v1/jwks", "/.well-known/openid-configuration", "/.well-known/kulvert-configuration",
    )
}  # fmt: skip
"""All that the users' door serves without credentials. The agents' door serves nothing but its link."""
MALFORMED = ("/livez/../metrics", "/clusters/")
"""What is refused with 400 before anybody is asked who they are, since it is no request that could be routed."""
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
PATHS = (
    "/", "/healthz", "/livez", "/readyz", "/healthz/", "/healthz/x", "/readyz/ping", "/livez/../metrics", "/metrics",
    "/version", "/apis", "/apis/kulvert.dev/v1alpha1/clusters", "/api", "/api/v1", "/api/v1/namespaces",
    "/openapi/v2", "/openapi/v3", "/clusters", "/clusters/", "/clusters/alpha", "/clusters/alpha/",
    "/clusters/alpha/healthz", "/clusters/alpha/readyz", "/clusters/alpha/livez", "/clusters/alpha/api/v1/pods",
    "/clusters/alpha/version", "/clusters/recorded/healthz", "/clusters/nowhere/api", "/kulvert/v1/link", "/console",
    "/openid/v1/jwks", "/openid/v1/jwks/", "/.well-known/kulvert-configuration", "/openid/v1/keys",
    "/login", "/oauth2/callback", "/debug/pprof/", "/debug/pprof/goroutine", "/debug/vars", "/admin",
    "/static/index.html", "/index.html", "/favicon.ico", "/robots.txt", "/.well-known/openid-configuration",
    "/.well-known/security.txt", "/.git/config", "/.env", "/server-status", "/actuator/env", "/token",
    "/swagger.json", "/ws", "/socket.io/", "/connect", "/register", "/enroll", "/renew", "/tunnel", "/proxy", "/logs",
    "/stats", "/configz", "/flagz", "/statusz",
)  # fmt: skip
QUERIES = ("", "?access_token=x", "?token=x", "?user=admin&impersonate=admin")
STRANGERS = {
    "nothing": (),
    "an empty Authorization": ("Authorization:",),
    "a token of nobody's": ("Authorization: Bearer x.y.z",),
    "basic": ("Authorization: Basic YWRtaW46YWRtaW4=",),
    "a front proxy's user": ("X-Remote-User: admin", "X-Remote-Group: system:masters"),
    "a client certificate by header": (
        "X-Client-Cert: MIIB",
        "X-Forwarded-Client-Cert: Subject=CN=admin",
        "SSL-Client-Verify: SUCCESS",
    ),
    "a cookie": ("Cookie: session=admin; token=x",),
    "an identity": ("Impersonate-User: admin",),
    "from localhost": ("X-Forwarded-For: 127.0.0.1", "X-Real-Ip: 127.0.0.1", "Forwarded: for=127.0.0.1"),
    "an old method": ("X-HTTP-Method-Override: GET", "X-Original-URL: /healthz", "X-Rewrite-URL: /healthz"),
}


async def test_a_hidden_endpoint_is_taken_for_authentication(connect: Connect, recorder: RecordingApiServer) -> None:
    """CVE-2022-37968."""
    before = len(recorder.requests)
    served = set()

    async def asked(method: str) -> None:
        async with connect("") as client:
            for path, query in itertools.product(PATHS, QUERIES):
                if path in MALFORMED:
                    continue
                await client.say(request(path + query, method=method))
                status = (await client.answer(method)).status
                if status != 401:
                    # Discovery is there where the tokens' issuer is the gateway's address.
                    found = (200, 404) if path == "/.well-known/openid-configuration" else (200, 503)
                    assert status in found, (method, path, status)
                    served.add((method, path))

    async with asyncio.TaskGroup() as group:
        for method in METHODS:
            group.create_task(asked(method))
    assert served == PUBLIC
    assert len(recorder.requests) == before


@pytest.mark.parametrize("host", ["alpha.kulvert.test", f"{RECORDED}.kulvert.test", "nowhere.kulvert.test"])
async def test_a_public_path_of_a_cluster_is_not_public(host: str, connect: Connect) -> None:
    async with connect("") as client:
        for path in PATHS:
            if path != "/livez/../metrics":
                await client.say(request(path, host=host))
                assert (await client.answer()).status == 401, path


@pytest.mark.parametrize("lines", STRANGERS.values(), ids=STRANGERS)
async def test_what_looks_like_a_credential_is_none(
    lines: tuple[str, ...], connect: Connect, recorder: RecordingApiServer
) -> None:
    before = len(recorder.requests)
    for target in ("/version", "/metrics", "/clusters/alpha/api", f"/clusters/{RECORDED}/api", "/healthzz"):
        async with connect("") as client:
            await client.say(request(target, *lines))
            assert (await client.answer()).status == 401
            await client.say(upgrade(target, *lines))
            assert (await client.answer()).status == 401
    assert len(recorder.requests) == before


async def test_the_agents_door_serves_nothing_but_its_link(threat_platform: ThreatPlatform) -> None:
    """Nothing behind it has a path: every request is refused and the connection ended, with or without a user's
    credentials. The link's own path says one challenge, and then nothing before a proof.
    """

    async def asked(path: str, method: str, user: str) -> None:
        context = threat_platform.context(user) if user else threat_platform.context()
        async with connected(threat_platform.agents_port, context) as client:
            token = f"Authorization: Bearer {threat_platform.token()}"
            await client.say(request(path, token, method=method) + request("/healthz"))
            said = await client.rest()
        assert not said or said.split(b" ")[1] in (b"400", b"404", b"426"), (path, said)
        assert said.count(b"HTTP/1.1 ") <= 1
        assert b"alpha" not in said

    async with asyncio.TaskGroup() as group:
        for path in PATHS:
            group.create_task(asked(path, "GET", ""))
        for method in METHODS:
            group.create_task(asked("/kulvert/v1/link", method, "ada"))


async def test_no_other_listener(threat_platform: ThreatPlatform) -> None:
    """Two doors, on the addresses that were configured, and none that a test here does not know."""
    found = {line.split()[1] for line in listening(threat_platform.server().pid)}
    doors = (threat_platform.port, threat_platform.agents_port)
    assert found == {f"0100007F:{port:04X}" for port in doors}
    for name in ("alpha", "beta", RECORDED):
        assert listening(threat_platform.agent(name).pid) == []


async def test_a_user_without_a_grant_learns_nothing(connect: Connect) -> None:
    async with connect("eve", "nobody") as client:
        told = []
        for cluster in ("alpha", "nowhere"):
            await client.say(request(f"/clusters/{cluster}/api"))
            answer = await client.answer()
            told.append(
                (answer.status, answer.json["message"].replace(cluster, "…"), len(answer.json["details"]["causes"]))
            )
        assert told[0] == told[1]
        assert told[0][0] == 403
        await client.say(request("/apis/kulvert.dev/v1alpha1/clusters"))
        assert (await client.answer()).json["items"] == []
        await client.say(request("/metrics"))
        assert (await client.answer()).status == 403


async def test_a_connection_handed_to_another_handler_serves_the_next_path(
    threat_platform: ThreatPlatform, connect: Connect, recorder: RecordingApiServer
) -> None:
    """Keep-alive across health, management and cluster paths, in every order, each as somebody else, or nobody."""
    ada, bob = (f"Authorization: Bearer {threat_platform.token(name)}" for name in ("ada", "bob"))
    clusters = "/apis/kulvert.dev/v1alpha1/clusters"

    async def status(client: HostileClient, expected: int, target: str, *lines: str) -> None:
        await client.say(request(target, *lines))
        assert (await client.answer()).status == expected

    async def whoami(client: HostileClient, cluster: str, line: str, user: str) -> None:
        await client.say(review(cluster, line))
        assert seen(await client.answer("POST")).user == user

    steps: dict[str, Callable[[HostileClient], Awaitable[None]]] = {
        "health": lambda client: status(client, 200, "/healthz"),
        "management": lambda client: status(client, 200, clusters, ada),
        "management, nobody": lambda client: status(client, 401, clusters),
        "alpha": lambda client: whoami(client, "alpha", ada, "ada"),
        "beta": lambda client: whoami(client, "beta", bob, "bob"),
        "recorded, nobody": lambda client: status(client, 401, f"/clusters/{RECORDED}/order"),
    }

    async def walked(orders: Sequence[tuple[str, ...]]) -> None:
        async with connect("") as client:
            for order in orders:
                for name in order:
                    try:
                        await steps[name](client)
                    except AssertionError as error:
                        error.add_note(f"at {name!r} of {order}")
                        raise

    # Every order of four, on connections that live on: each step follows each other one.
    every = list(itertools.permutations(steps, 4))
    async with asyncio.TaskGroup() as group:
        for at in range(8):
            group.create_task(walked(every[at::8]))
    assert not recorder.find(b"/order")


async def test_the_same_connection_by_a_certificate_in_every_order(client: HostileClient) -> None:
    """A token on a connection with a certificate: the certificate decides, whatever came before."""
    for target, code in (("/healthz", 200), ("/metrics", 200), ("/nowhere", 404), ("/clusters/nowhere/api", 404)):
        await client.say(request(target, "Authorization: Bearer x.y.z"))
        assert (await client.answer()).status == code
        assert (await client.whoami("alpha", "Authorization: Bearer x.y.z")).user == "ada"
        assert (await client.whoami("beta")).user == "ada"


async def test_a_pipelined_row_is_authenticated_one_by_one(threat_platform: ThreatPlatform, connect: Connect) -> None:
    ada, bob = (f"Authorization: Bearer {threat_platform.token(name)}" for name in ("ada", "bob"))
    async with connect("") as client:
        await client.say(
            review("alpha", ada) + request("/clusters/alpha/api") + review("beta", bob) + request("/healthz")
            + request("/metrics") + review("alpha", bob) + request(f"/clusters/{RECORDED}/row")
        )  # fmt: skip
        assert seen(await client.answer("POST")).user == "ada"
        assert (await client.answer()).status == 401
        assert seen(await client.answer("POST")).user == "bob"
        assert (await client.answer()).status == 200
        assert (await client.answer()).status == 401
        assert seen(await client.answer("POST")).user == "bob"
        assert (await client.answer()).status == 401


async def test_a_bearer_token_that_the_gateway_does_not_know_never_leaves_it(
    connect: Connect, recorder: RecordingApiServer
) -> None:
    """Tokens of one cluster sent to another, because both issuers have the same name: here no token goes to any."""
    token = "eyJhbGciOiJub25lIn0.eyJpc3MiOiJodHRwczovL2t1YmVybmV0ZXMuZGVmYXVsdC5zdmMifQ.planted"
    before = len(recorder.requests)
    async with connect("") as client:
        for path in ("/api", "/api/v1/namespaces/x/services/y/proxy/z"):
            await client.say(request(f"/clusters/{RECORDED}{path}", f"Authorization: Bearer {token}"))
            assert (await client.answer()).status == 401
    assert len(recorder.requests) == before
    async with connect("ada") as client:
        for path in ("/api", "/api/v1/namespaces/x/services/y/proxy/z"):
            await client.say(request(f"/clusters/{RECORDED}{path}", f"Authorization: Bearer {token}"))
            assert (await client.answer()).status == 200
    assert token.encode() not in recorder.said


async def test_an_expired_or_foreign_token_is_nobody(threat_platform: ThreatPlatform, connect: Connect) -> None:
    good = threat_platform.token()
    head, claims, signature = good.split(".")
    bad = {
        "expired": threat_platform.token(lifetime=-60),
        "changed": f"{head}.{claims[:-4]}AAAA.{signature}",
        "unsigned": f"{head}.{claims}.",
        "no algorithm": f"eyJhbGciOiJub25lIn0.{claims}.",
        "twice": f"{good} {good}",
    }
    async with connect("") as client:
        for name, token in bad.items():
            await client.say(request("/clusters/alpha/api", f"Authorization: Bearer {token}"))
            assert (await client.answer()).status == 401, name
        await client.say(request("/clusters/alpha/api", f"Authorization: Bearer {good}"))
        assert (await client.answer()).status == 200


async def test_a_failure_of_the_audit_log_lets_nothing_through(own_threats: ThreatPlatform) -> None:
    """Fail closed: what cannot be written down does not happen."""
    context = own_threats.context("ada")
    async with connected(own_threats.port, context) as client:
        await client.say(request("/version"))
        assert (await client.answer()).status == 200
        deadline = time.monotonic() + 10
        status = 200
        while status != 503 and time.monotonic() < deadline:
            await client.say(request("/version"))
            status = (await client.answer()).status
        assert status == 503
        await client.say(request("/healthz"))
        assert (await client.answer()).status == 200


@pytest.fixture
async def own_threats(tmp_path: Path) -> AsyncIterator[ThreatPlatform]:
    """A server whose audit log cannot be written."""
    async with ThreatPlatform(tmp_path / "platform", "--audit-log-path", "/dev/full") as served:
        yield served

"""Every listener, every kind of path, every kind of bad credential: 401 with a Status, and nothing reaches an agent.

The product is whole: each bad credential is shown on each path of each way in. Good ones of every authenticator are the
counterpart: they prove that what is refused is refused for what is wrong with it.
"""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from collections.abc import Iterable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import pytest

from auth.pki import Issued
from tests.support.credentials_bad import bad
from tests.support.credentials_zoo import BEARER, PROTOCOL, Shown, Zoo
from tests.support.hostile_client import Answer, HostileClient, connected, request, upgrade
from tests.support.hostile_platform import RECORDED, ThreatPlatform, client_context
from tests.support.recording_apiserver import RecordingApiServer

POD = "/api/v1/namespaces/default/pods/matrix"
WORKERS = 8


@dataclass(frozen=True)
class Way:
    """One request: which way in, and what it asks for."""

    name: str
    target: str
    host: str = "localhost"
    method: str = "GET"
    upgrade: str = ""

    def bytes(self, lines: Iterable[str] = ()) -> bytes:
        """With these header lines."""
        if self.upgrade == "websocket":
            return upgrade(self.target, *lines, method=self.method, host=self.host)
        told = ("Connection: Upgrade", f"Upgrade: {self.upgrade}", "Content-Length: 0") if self.upgrade else ()
        return request(self.target, *told, *lines, method=self.method, host=self.host)


EXEC = f"{POD}/exec?command=id&stdout=true"
CLASSES = {
    "discovery": ("GET", "/api", ""), "discovery of groups": ("GET", "/apis", ""),
    "openapi": ("GET", "/openapi/v2", ""), "get": ("GET", POD, ""), "list": ("GET", "/api/v1/pods?limit=500", ""),
    "watch": ("GET", "/api/v1/pods?watch=true", ""), "create": ("POST", "/api/v1/namespaces/default/pods", ""),
    "patch": ("PATCH", POD, ""), "delete": ("DELETE", POD, ""), "log": ("GET", f"{POD}/log?follow=true", ""),
    "exec by WebSocket": ("GET", EXEC, "websocket"), "exec by SPDY": ("POST", EXEC, "SPDY/3.1"),
    "attach": ("GET", f"{POD}/attach?stdin=true", "websocket"),
    "port-forward": ("GET", f"{POD}/portforward", "websocket"),
    "a pod's proxy": ("GET", f"{POD}/proxy/", ""),
    "a service's proxy": ("POST", "/api/v1/namespaces/x/services/y/proxy/z", ""),
    "a proxied WebSocket": ("GET", "/api/v1/namespaces/x/services/y/proxy/z", "websocket"),
    "a node's proxy": ("GET", "/api/v1/nodes/n/proxy/exec/default/p/c?command=id", "websocket"),
    "metrics": ("GET", "/metrics", ""), "version": ("GET", "/version", ""), "health": ("GET", "/healthz", ""),
    "who am I": ("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", ""), "unknown": ("GET", "/nowhere", ""),
}  # fmt: skip
API = "/apis/kulvert.dev/v1alpha1"
MANAGEMENT = {
    "the root": ("GET", "/", ""), "clusters": ("GET", f"{API}/clusters", ""),
    "a cluster": ("GET", f"{API}/clusters/x", ""),
    "grants": ("GET", f"{API}/grants", ""), "a new grant": ("POST", f"{API}/grants", ""),
    "a certificate": ("POST", f"{API}/certificaterequests", ""), "a token": ("POST", f"{API}/tokenrequests", ""),
    "access": ("POST", f"{API}/accessreviews", ""), "accounts": ("GET", f"{API}/managedserviceaccounts", ""),
    "metrics": ("GET", "/metrics", ""), "version": ("GET", "/version", ""), "unknown": ("GET", "/nowhere", ""),
    "unknown, an upgrade": ("GET", "/nowhere", "websocket"), "details of health": ("GET", "/readyz/ping", ""),
    "the agents' link": ("GET", "/kulvert/v1/link", "websocket"),
}  # fmt: skip
PUBLIC = frozenset({
    "/healthz", "/livez", "/readyz",
    "/openid/v1/jwks", "/.well-known/openid-configuration", "/.well-known/kulvert-configuration",
})  # fmt: skip
"""All that is served to strangers, by GET and HEAD, on the users' door and nowhere else."""


def _ways() -> Iterator[Way]:
    for name, (method, path, switch) in CLASSES.items():
        yield Way(f"by path: {name}", f"/clusters/{RECORDED}{path}", "localhost", method, switch)
        yield Way(f"by host: {name}", path, f"{RECORDED}.kulvert.test", method, switch)
    for name, (method, path, switch) in MANAGEMENT.items():
        yield Way(f"management: {name}", path, "localhost", method, switch)


NO_HANDSHAKE = {
    *(f"certificate: {name}" for name in (
        "of an unknown CA", "of another CA of the same name", "expired", "not yet valid", "company's, expired",
        "a server's", "an agent's", "for servers", "with an unknown critical extension",
    )),
    *(f"front-proxy: {name}" for name in ("expired", "of an unknown CA", "a server's")),
}  # fmt: skip
"""TLS itself refuses these; the other certificates are of authorities that it knows, and for clients."""
WAYS = tuple(_ways())
CLUSTER_WAYS = tuple(way for way in WAYS if not way.name.startswith("management"))


@dataclass
class Line:
    """Requests with one credential, on one connection as long as the gateway keeps it."""

    port: int
    tls: ssl.SSLContext
    stack: AsyncExitStack = field(default_factory=AsyncExitStack)
    client: HostileClient | None = None

    async def ask(self, way: Way, lines: Iterable[str]) -> Answer | None:
        """None where TLS never came about."""
        try:
            if self.client is None:
                self.client = await self.stack.enter_async_context(connected(self.port, self.tls))
            await self.client.say(way.bytes(lines))
            answer = await self.client.answer(way.method)
        except (ssl.SSLError, ConnectionError):
            await self.close()
            return None
        except asyncio.IncompleteReadError as end:
            await self.close()
            if end.partial:
                raise
            return None
        if answer.get("connection") == "close":
            await self.close()
        return answer

    async def close(self) -> None:
        """Another one will be opened."""
        self.client = None
        await self.stack.aclose()


@dataclass
class Matrix:
    """Runs a product, and collects what was not as it had to be."""

    platform: ThreatPlatform
    ran: int = 0
    handshakes: set[str] = field(default_factory=set)
    """Credentials for which no TLS came about."""
    wrong: list[str] = field(default_factory=list)

    def tls(self, pair: Issued | None) -> ssl.SSLContext:
        """With this client certificate."""
        return client_context(self.platform.ca, pair, self.platform.directory)

    async def run(self, cases: dict[str, Shown], ways: Iterable[Way], code: int = 0) -> None:
        """Each of `cases` on each of `ways`; `code` is expected instead of each one's own."""
        queue = list(cases.items())
        chosen = tuple(ways)

        async def work() -> None:
            while queue:
                name, shown = queue.pop()
                await self._all(name, shown, chosen, code)

        async with asyncio.TaskGroup() as group:
            for _ in range(WORKERS):
                group.create_task(work())

    async def _all(self, name: str, shown: Shown, ways: tuple[Way, ...], code: int) -> None:
        line = Line(self.platform.port, self.tls(shown.pair))
        for way in ways:
            answer = await line.ask(way, shown.lines)
            self.ran += 1
            if answer is None:
                self.handshakes.add(name)
            if problem := _problem(shown, answer, (code,) if code else shown.codes):
                self.wrong.append(f"{name} / {way.name}: {problem}")
        await line.close()


REASONS = {400: "BadRequest", 401: "Unauthorized", 403: "Forbidden", 431: "BadRequest"}


def _problem(shown: Shown, answer: Answer | None, codes: tuple[int, ...]) -> str:
    """What is wrong with how a bad credential was answered, or nothing."""
    if answer is None:
        return "" if shown.tls else "no answer"
    if answer.status not in codes:
        return f"{answer.status}: {answer.body[:200]!r}"
    try:
        status = json.loads(answer.body)
        causes = {one["reason"]: one["message"] for one in status["details"]["causes"]}
    except (ValueError, KeyError, TypeError):
        return f"no Status: {answer.body[:200]!r}"
    said = status["kind"], status["apiVersion"], status["status"], status["code"], status["reason"]
    if said != ("Status", "v1", "Failure", answer.status, REASONS[answer.status]):
        return f"another Status: {said}"
    if causes.get("Hop") != "gateway" or not causes.get("AuditID") or causes["AuditID"] != answer.get("audit-id"):
        return f"another hop or audit id: {causes}, {answer.get('audit-id')}"
    return ""


@pytest.fixture
def matrix(threat_platform: ThreatPlatform) -> Matrix:
    return Matrix(threat_platform)


async def test_every_bad_credential_on_every_path_of_every_way_in(
    matrix: Matrix, zoo: Zoo, recorder: RecordingApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = bad(zoo)
    before, audited = len(recorder.requests), len(matrix.platform.audit())
    await matrix.run(cases, WAYS)
    assert not matrix.wrong, "\n".join(matrix.wrong)
    assert matrix.ran == len(cases) * len(WAYS)
    assert matrix.handshakes == NO_HANDSHAKE
    assert len(recorder.requests) == before, "something reached the cluster"
    records = matrix.platform.audit()[audited:]
    assert len(records) > 0.5 * matrix.ran
    assert {one["annotations"]["kulvert.dev/decision"] for one in records} == {"forbid"}
    assert not [one for one in records if "kulvert.dev/agent" in one["annotations"]]
    assert leaked(matrix.platform, cases.values()) == []
    with capsys.disabled():
        print(f"\n{matrix.ran} cases: {len(cases)} credentials, {len(WAYS)} paths")


async def test_a_good_credential_of_each_authenticator_comes_through(
    matrix: Matrix, zoo: Zoo, recorder: RecordingApiServer
) -> None:
    """The counterpart. The cluster's own service account is passed through, the others are impersonated."""
    for name, shown in zoo.good().items():
        if name == "cluster":
            recorder.passed = shown.lines[0].rpartition(" ")[2].encode()
        line, before = Line(matrix.platform.port, matrix.tls(shown.pair)), len(recorder.requests)
        for way in CLUSTER_WAYS[:2]:
            answer = await line.ask(way, shown.lines)
            assert answer is not None, name
            assert answer.status == 200, (name, answer)
        await line.close()
        found = {tuple(one.all(b"impersonate-user")) for one in recorder.requests[before:]}
        users = {"hub": (b"hub:system:serviceaccount:default:zoo",), "cluster": ()}
        assert found == {users.get(name, (b"zoo",))}, name


async def test_whom_no_grant_names_gets_no_further_whatever_he_shows(
    matrix: Matrix, zoo: Zoo, recorder: RecordingApiServer
) -> None:
    cases, before = zoo.ungranted(), len(recorder.requests)
    await matrix.run(cases, CLUSTER_WAYS, 403)
    assert not matrix.wrong, "\n".join(matrix.wrong)
    assert len(recorder.requests) == before
    assert leaked(matrix.platform, cases.values()) == []


async def test_a_token_of_one_cluster_is_nobodys_at_the_others_and_at_kulverts_own_paths(
    matrix: Matrix, zoo: Zoo
) -> None:
    """All clusters here name one issuer. The recorded one's good token, and those of alpha and beta, crosswise."""
    tokens = zoo.foreign_tokens | {RECORDED: zoo.cluster.good()}
    for home, token in tokens.items():
        ways = [Way(f"{other}: {path}", f"/clusters/{other}{path}") for other in tokens if other != home
                for path in ("/api", POD, f"{POD}/proxy/")]  # fmt: skip
        own = [way for way in WAYS if way.name.startswith("management")]
        await matrix.run({home: Shown.bearer(token)}, [*ways, *own])
    assert not matrix.wrong, "\n".join(matrix.wrong)


async def test_a_browsers_token_counts_on_a_websocket_and_goes_no_further(
    matrix: Matrix, zoo: Zoo, recorder: RecordingApiServer
) -> None:
    """The counterpart of the subprotocols above: beside another one, it is a bearer token like any other."""
    token = zoo.oidc.good()
    encoded = base64.urlsafe_b64encode(token.encode()).rstrip(b"=").decode()
    line = Line(matrix.platform.port, matrix.tls(None))
    lines = (f"{PROTOCOL}{BEARER}{encoded}, v5.channel.k8s.io",)
    answer = await line.ask(Way("exec", f"/clusters/{RECORDED}{EXEC}&browser=1", upgrade="websocket"), lines)
    await line.close()
    assert answer is not None
    assert answer.status == 200, answer  # the recorder's: it switches to nothing
    (asked,) = recorder.wait(b"browser=1")
    assert asked.all(b"sec-websocket-protocol") == [b"v5.channel.k8s.io"]
    assert asked.all(b"impersonate-user") == [b"zoo"]
    assert token.encode() not in asked.head
    assert encoded.encode() not in asked.head


async def test_strangers_are_served_exactly_the_public_paths(matrix: Matrix) -> None:
    """And those only by GET and HEAD, on the users' door, not of a cluster."""
    paths = sorted(PUBLIC | {way.target for way in WAYS if way.name.startswith("management")})
    served = set()
    for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
        line = Line(matrix.platform.port, matrix.tls(None))
        for path in paths:
            for host in ("localhost", f"{RECORDED}.kulvert.test"):
                answer = await line.ask(Way("", path, host, method), ())
                assert answer is not None
                if answer.status != 401:
                    served.add((method, path, host))
        await line.close()
    assert served == {(method, path, "localhost") for method in ("GET", "HEAD") for path in PUBLIC}


def leaked(platform: ThreatPlatform, shown: Iterable[Shown]) -> list[str]:
    """Secrets that a log or the audit log has."""
    places = {path.name: path.read_bytes() for path in {*platform.logs, platform.audit_log}}
    secrets = {secret for one in shown for secret in one.secrets}
    return [f"{secret} in {name}" for name, text in places.items() for secret in secrets if secret.encode() in text]

"""An impersonating proxy fails open: drop one header, and the request runs as the proxy itself.

The judge is the real kube-apiserver, which is asked whom it sees, or the recorded one, byte for byte.
"""

from __future__ import annotations

import asyncio
import base64
import threading

import pytest

from tests.e2e.threats.conftest import AGENT, Connect
from tests.support.hostile_client import UPGRADE, HostileClient, request, review, upgrade
from tests.support.hostile_platform import RECORDED, ThreatPlatform
from tests.support.recording_apiserver import OK, RecordingApiServer, Wire, always

ADA = ("ada", frozenset({"kulvert:admins", "devs", "system:authenticated"}))
NAMED = {
    "one": ("Connection: Impersonate-User",),
    "lower case": ("connection: impersonate-user",),
    "mixed case": ("cOnNeCtIoN: ImPeRsOnAtE-uSeR, iMPERSONATE-gROUP",),
    "keep-alive beside it": ("Connection: keep-alive, Impersonate-User",),
    "several lines": ("Connection: keep-alive", "Connection: Impersonate-User", "Connection: Impersonate-Group"),
    "blanks and empty elements": ("Connection: , ,Impersonate-User ,\t, Impersonate-Group,",),
    "all that we write": (
        "Connection: Impersonate-User, Impersonate-Group, Impersonate-Uid, Authorization, Audit-Id, X-Forwarded-For, "
        "Impersonate-Extra-authentication.kubernetes.io%2fcredential-id, Host, Content-Length, Content-Type",
    ),
    "proxy-connection too": ("Proxy-Connection: Impersonate-User", "Connection: Proxy-Connection, Impersonate-User"),
    "te and trailers": ("Connection: TE, Trailer, Impersonate-User", "TE: trailers"),
}


@pytest.mark.parametrize("lines", NAMED.values(), ids=NAMED)
async def test_connection_strips_the_proxys_own_header(lines: tuple[str, ...], connect: Connect) -> None:
    """CVE-2021-31999, CVE-2022-23652."""
    async with connect("ada", "devs", "kulvert:admins") as client:
        found = await client.whoami("alpha", *lines)
    assert (found.user, found.groups) == ADA


async def test_connection_strips_the_proxys_own_header_beside_an_upgrade(
    client: HostileClient, recorder: RecordingApiServer
) -> None:
    target = f"/clusters/{RECORDED}/api/v1/namespaces/x/pods/beside/exec?command=sh"
    lines = ("Connection: Impersonate-User, Upgrade", "Connection: impersonate-group", *UPGRADE[1:])
    await client.say(request(target, *lines, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="))
    assert (await client.answer()).status == 200
    (one,) = recorder.find(b"/beside/")
    assert one.all(b"impersonate-user") == [b"ada"]
    assert one.all(b"impersonate-group") == [b"kulvert:admins"]
    assert one.all(b"connection") == [b"Upgrade"]


SPELLINGS = {
    "user": "Impersonate-User: admin",
    "group": "Impersonate-Group: system:masters",
    "uid": "Impersonate-Uid: 0",
    "extra": "Impersonate-Extra-scopes: all",
    "upper case": "IMPERSONATE-GROUP: system:masters",
    "mixed case": "iMpErSoNaTe-GrOuP: system:masters",
    "underscores": "Impersonate_Group: system:masters",
    "underscores, upper case": "IMPERSONATE_USER: admin",
    "all underscores": "Impersonate_Extra_scopes: all",
    "empty": "Impersonate-User:",
    "not invented yet": "Impersonate-Capabilities: all",
    "no dash": "ImpersonateUser: admin",
    "bare": "Impersonate: admin",
    "dots": "Impersonate.User: admin",
}


@pytest.mark.parametrize("line", SPELLINGS.values(), ids=SPELLINGS)
@pytest.mark.parametrize("named", [False, True], ids=["", "named in Connection"])
async def test_the_clients_impersonation_merged_with_the_proxys(
    line: str, named: bool, client: HostileClient, recorder: RecordingApiServer
) -> None:
    """OCM cluster-proxy #335; kube-oidc-proxy did not match Impersonate-Uid."""
    before = len(recorder.requests)
    lines = (line, f"Connection: {line.partition(':')[0]}") if named else (line,)
    await client.say(request(f"/clusters/{RECORDED}/merged", *lines))
    assert (await client.answer()).status == 403
    await client.say(request(f"/clusters/{RECORDED}/api/v1/namespaces/x/services/y/proxy/merged", *lines))
    assert (await client.answer()).status == 403
    assert len(recorder.requests) == before
    assert (await client.whoami("alpha")).user == "ada"


async def test_impersonation_is_authorised_as_a_whole_and_never_merged(connect: Connect) -> None:
    async with connect("delegate", "devs") as client:
        found = await client.whoami(
            "alpha", "Impersonate-User: bob", "Impersonate-Group: ops", "IMPERSONATE-GROUP: dba"
        )
        assert (found.user, found.groups) == ("bob", frozenset({"ops", "dba", "system:authenticated"}))
        assert found.extra["kulvert.dev/original-user"] == ["delegate"]
        refused = {
            "two users": ("Impersonate-User: bob", "impersonate-user: eve"),
            "two uids": ("Impersonate-User: bob", "Impersonate-Uid: 1", "Impersonate-Uid: 2"),
            "no user": ("Impersonate-Group: ops",),
            "an empty user with groups": ("Impersonate-User:", "Impersonate-Group: ops"),
            "underscores": ("Impersonate-User: bob", "Impersonate_Group: ops"),
            "not invented yet": ("Impersonate-User: bob", "Impersonate-Capabilities: all"),
            "protected group": ("Impersonate-User: bob", "Impersonate-Group: system:masters"),
            "protected user": ("Impersonate-User: system:kube-controller-manager",),
            "the agent": (f"Impersonate-User: {AGENT}",),
        }
        for name, lines in refused.items():
            await client.say(review("alpha", *lines))
            answer = await client.answer("POST")
            assert answer.status == 403, (name, answer.body)
        assert (await client.whoami("alpha")).user == "delegate"


EXTRAS = {
    "upper case": "Impersonate-Extra-Scopes%41: a",
    "percent-encoded where it need not be": "Impersonate-Extra-%73copes: a",
    "encoded line break": "Impersonate-Extra-scopes%0d%0aImpersonate-User: a",
    "encoded NUL": "Impersonate-Extra-scopes%00: a",
    "half an escape": "Impersonate-Extra-scopes%: a",
    "no key": "Impersonate-Extra-: a",
    "the original user": "Impersonate-Extra-kulvert.dev%2foriginal-user: a",
    "a credential": "Impersonate-Extra-authentication.kubernetes.io%2fcredential-id: a",
    "a node's claim": "Impersonate-Extra-authentication.kubernetes.io%2fnode-name: a",
    "below a reserved domain": "Impersonate-Extra-x.k8s.io%2fy: a",
}


@pytest.mark.parametrize("line", EXTRAS.values(), ids=EXTRAS)
async def test_extra_keys_are_escaped_or_refused(line: str, connect: Connect) -> None:
    async with connect("delegate", "devs") as client:
        await client.say(review("alpha", "Impersonate-User: bob", line))
        assert (await client.answer("POST")).status == 403
        found = await client.whoami("alpha", "Impersonate-User: bob", "Impersonate-Extra-ACME.io%2Fscopes: a b")
    assert found.extra["acme.io/scopes"] == ["a b"]


IDENTITIES = {
    "system:masters": ("mallory", "system:masters"),
    "system:nodes": ("mallory", "devs", "system:nodes"),
    "system:node:a": ("system:node:a", "threats"),
    "system:kube-scheduler": ("system:kube-scheduler", "threats"),
    "system:admin": ("system:admin", "threats"),
    "kubeadm": ("eve", "threats", "kubeadm:cluster-admins"),
    "upper case": ("eve", "threats", "System:Masters"),
    "fullwidth": ("eve", "threats", "ｓystem:masters"),
    "a service account as a user": (AGENT, "threats"),
    "a service account's groups": ("eve", "threats", "system:serviceaccounts"),
}


@pytest.mark.parametrize("identity", IDENTITIES.values(), ids=IDENTITIES)
async def test_global_groups_through_impersonation(
    identity: tuple[str, ...], connect: Connect, recorder: RecordingApiServer
) -> None:
    """GHSA-c7xh-gjv4-4jgv: refused at this end; the agent's end is in test_threat_agent.py."""
    before = len(recorder.requests)
    async with connect(*identity) as client:
        for cluster in ("alpha", RECORDED):
            await client.say(review(cluster))
            assert (await client.answer("POST")).status == 403
    assert len(recorder.requests) == before


UNWRITABLE = {
    "a line break": "ada\r\nImpersonate-Group: system:masters",
    "a line feed": "ada\nx",
    "a blank at the end": "ada ",
    "a zero-width space": "ada\u200b",
    "a right-to-left override": "ada\u202e",
}


@pytest.mark.parametrize("user", UNWRITABLE.values(), ids=UNWRITABLE)
async def test_a_header_that_cannot_be_added_ends_the_request(
    user: str, connect: Connect, recorder: RecordingApiServer
) -> None:
    """Tailscale logged it, and the request went on."""
    before = len(recorder.requests)
    async with connect(user, "threats") as client:
        await client.say(request(f"/clusters/{RECORDED}/unwritable"))
        assert (await client.answer()).status in (401, 403)
    assert len(recorder.requests) == before


@pytest.mark.parametrize(("count", "width"), [(1_100, 4), (600, 60)], ids=["lines", "bytes"])
async def test_more_groups_than_a_head_takes_end_the_request_and_nobody_elses(
    count: int, width: int, connect: Connect, recorder: RecordingApiServer
) -> None:
    """What the other end of the link would not take must not be sent: it would end every user's session."""

    def slowly(wire: Wire) -> None:
        going.set()
        assert gone.wait(10)
        wire.say(OK)

    going, gone = threading.Event(), threading.Event()
    groups = ["threats", *[f"{number:0{width}}" for number in range(count)]]
    async with connect("crowded", *groups) as crowded, connect() as other:
        with recorder.answering(always(slowly)):
            await other.say(request(f"/clusters/{RECORDED}/other"))
            assert await asyncio.to_thread(going.wait, 10)
            await crowded.say(request(f"/clusters/{RECORDED}/crowd", "User-Agent: " + "x" * 60_000))
            refused = await crowded.answer()
            gone.set()
            assert (await other.answer()).status == 200
    assert 400 <= refused.status < 500, refused
    assert not recorder.find(b"/crowd")


async def test_the_api_server_never_sees_the_agent_or_its_groups(connect: Connect) -> None:
    async with connect("ada", "devs", "kulvert:admins") as client:
        for cluster in ("alpha", "beta", "alpha"):
            found = await client.whoami(cluster)
            assert (found.user, found.groups) == ADA


CREDENTIALS = {
    "a bearer token": ("Authorization: Bearer nobodys.token.here",),
    "basic": ("Authorization: Basic YWRhOmFkYQ==",),
    "a front proxy's headers": ("X-Remote-User: admin", "X-Remote-Group: system:masters", "X_Remote_Extra_a: b"),
    "cookies": ("Cookie: session=a",),
    "forwarded": (
        "X-Forwarded-For: 1.2.3.4",
        "Forwarded: for=1.2.3.4",
        "X-Real-Ip: 1.2.3.4",
        "X-Forwarded-User: admin",
    ),
}


@pytest.mark.parametrize("lines", CREDENTIALS.values(), ids=CREDENTIALS)
async def test_only_allowed_headers_go_upstream_and_the_impersonation_is_last(
    lines: tuple[str, ...], client: HostileClient, recorder: RecordingApiServer
) -> None:
    """`*/proxy` has a deny-list: an application's own headers pass there, and none that speaks of identity."""
    before = len(recorder.requests)
    for target in ("/api/v1/pods", "/api/v1/namespaces/x/services/y/proxy/z"):
        await client.say(request(f"/clusters/{RECORDED}{target}", *lines, "X-Own: 1"))
        assert (await client.answer()).status == 200
    plain, proxied = recorder.requests[before:]
    assert [one.all(b"x-own") for one in (plain, proxied)] == [[], [b"1"]]
    for one in (plain, proxied):
        names = [line.split(b":")[0] for line in one.head.split(b"\r\n")[1:-2]]
        ours = [name for name in names if name.startswith(b"impersonate-")]
        assert names[-1 - len(ours) :] == [*ours, b"authorization"]
        allowed = {b"host", b"x-own", b"x-forwarded-for", b"audit-id", b"authorization", *ours}
        assert set(names) <= allowed
        assert one.all(b"x-forwarded-for") == [b"127.0.0.1"]


@pytest.mark.parametrize(
    "line", ["X-SSL-Client-Cert: x", "X-Client-Cert: x", "X_Remote-User: x", "X-Arr-ClientCert: x"]
)
async def test_a_front_proxys_identity_never_reaches_an_application(
    line: str, client: HostileClient, recorder: RecordingApiServer
) -> None:
    """Dropped by the gateway, or the whole request refused by the agent."""
    before = len(recorder.requests)
    await client.say(request(f"/clusters/{RECORDED}/api/v1/namespaces/x/services/y/proxy/z", line))
    assert (await client.answer()).status in (200, 403)
    for one in recorder.requests[before:]:
        assert line.partition(":")[0].lower().encode() not in one.head


async def test_a_bearer_token_among_the_subprotocols_never_leaves_the_gateway(
    threat_platform: ThreatPlatform, connect: Connect, recorder: RecordingApiServer
) -> None:
    encoded = base64.urlsafe_b64encode(threat_platform.token().encode()).rstrip(b"=").decode()
    target = f"/clusters/{RECORDED}/api/v1/namespaces/x/pods/bearer/exec"
    for prefix in ("base64url.bearer.authorization.k8s.io.", "Base64URL.Bearer.authorization.k8s.io."):
        async with connect("ada") as client:
            await client.say(upgrade(target, f"Sec-WebSocket-Protocol: v5.channel.k8s.io, {prefix}{encoded}"))
            assert (await client.answer()).status == 200
    async with connect("") as client:
        line = f"Sec-WebSocket-Protocol: base64url.bearer.authorization.k8s.io.{encoded}"
        await client.say(upgrade(target, f"{line}, v5.channel.k8s.io"))
        assert (await client.answer()).status == 200
    async with connect("") as client:
        await client.say(upgrade(target, line))  # the answer could name none: a browser would end it
        assert (await client.answer()).status == 401
    found = recorder.find(b"/bearer/")
    assert [one.all(b"sec-websocket-protocol") for one in found] == [[b"v5.channel.k8s.io"]] * 3
    assert encoded.encode() not in recorder.said

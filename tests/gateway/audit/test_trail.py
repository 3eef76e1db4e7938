"""What the audit says of requests through the whole gateway: who did what where, as whom, and through which agent."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from auth.decision import Decision
from auth.grants.grants import Grants
from auth.identity import Identity
from auth.impersonation import AsWhom
from gateway.audit.policy import parse_policy
from gateway.audit.trail import _known
from gateway.passage import Passage
from gateway.peer import Peer
from tests.gateway.gate import HEADS, Gate, gate, grant, settle
from tunnel.impersonate import Impersonation

JANE = Identity("jane", ("dev",), "", (), "x509", "X509SHA256=ab", 9e9)
PODS = b"GET /clusters/a/api/v1/namespaces/x/pods HTTP/1.1\r\nUser-Agent: kubectl\r\n"


def ask(g: Gate, start: bytes = PODS, token: bytes = b"alice") -> None:
    wire = g.connect()
    wire.send(start + b"Host: gateway\r\nAuthorization: Bearer " + token + b"\r\n\r\n")


def last(g: Gate) -> dict[str, Any]:
    return g.audit.events[-1]


async def test_a_request_says_who_did_what_where_and_how_long_it_took() -> None:
    async with gate() as g:
        ask(g)
        g.time[0] += 0.25
        g.clusters.last.respond(200, body=b"pods!")
        event = last(g)
        assert (event["user"]["username"], event["sourceIPs"], event["userAgent"]) == (
            "alice",
            ["192.0.2.7"],
            "kubectl",
        )
        assert (event["verb"], event["objectRef"]["namespace"]) == ("list", "x")
        assert "impersonatedUser" not in event
        assert event["annotations"] == {
            "kulvert.dev/cluster": "a",
            "kulvert.dev/agent": "agent-1",
            "kulvert.dev/authenticator": "test",
            "kulvert.dev/credential": "JTI=alice",
            "kulvert.dev/decision": "allow",
            "kulvert.dev/rule": "devs",
            "kulvert.dev/duration": "0.250000",
            "kulvert.dev/bytes-received": "0",
            "kulvert.dev/bytes-sent": "5",
        }


async def test_whom_a_grant_makes_of_its_users_is_told() -> None:
    viewer = grant("viewers", groups=["devs"], clusters=("a",), impersonate=AsWhom("viewer", ("view",)))
    prefixed = grant("guests", groups=["devs"], clusters=("b",), impersonate=AsWhom(user_prefix="guest:"))
    async with gate(grants=Grants([viewer, prefixed])) as g:
        ask(g)
        g.clusters.last.respond()
        event = last(g)
        assert event["user"]["username"] == "alice"
        assert event["impersonatedUser"]["username"] == "viewer"
        assert event["impersonatedUser"]["groups"] == ["view"]
        assert event["impersonatedUser"]["extra"]["kulvert.dev/original-user"] == ["alice"]
        ask(g, PODS.replace(b"clusters/a", b"clusters/b"))
        g.clusters.last.respond()
        assert last(g)["impersonatedUser"]["username"] == "guest:alice"


async def test_ones_own_as_is_told_and_only_where_it_was_allowed() -> None:
    async with gate(
        grants=Grants([grant("root", users=["root"], clusters=("*",), allow_user_impersonation=True)])
    ) as g:
        start = PODS + b"Impersonate-User: bob\r\n"
        ask(g, start, b"root")
        g.clusters.last.respond()
        assert last(g)["impersonatedUser"]["username"] == "bob"
        ask(g, start, b"alice")
        assert "impersonatedUser" not in last(g)
        assert last(g)["annotations"]["kulvert.dev/decision"] == "forbid"


async def test_what_one_client_is_remembered_by_is_never_told_of_another() -> None:
    """The same fields on one connection, and another answer of the gateway each time."""
    async with gate() as g:
        wire = g.connect()
        request = PODS + HEADS + b"\r\n"
        for cluster in (b"a", b"b", b"none", b"a"):
            wire.send(request.replace(b"/clusters/a/", b"/clusters/" + cluster + b"/"))
            if g.clusters.opened and not g.clusters.last.ended:
                raise AssertionError
            if cluster != b"none":
                g.clusters.last.respond()
            await settle()
        g.tokens.revoked.add("alice")
        g.chain._known.clear()
        wire.send(request)
        told = []
        for event in g.audit.events:
            annotations = event["annotations"]
            name, agent = event["user"].get("username"), "kulvert.dev/agent" in annotations
            told.append((name, annotations["kulvert.dev/cluster"], agent))
        assert told == [
            ("alice", "a", True), ("alice", "b", True), ("alice", "none", False), ("alice", "a", True),
            (None, "a", False),
        ]  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        {"identity": None},
        {"decision": Decision(True, "other", "")},
        {"impersonated": Impersonation("bob")},
        {"client": SimpleNamespace(peer=Peer("198.51.100.1", None))},
        {"cluster": "b"},
        {"agent": "agent-2"},
        {"allowed": False},
    ],
)
def test_a_client_is_remembered_with_all_that_its_line_says(change: dict[str, Any]) -> None:
    head = SimpleNamespace(derived={}, get=lambda _: b"kubectl")
    known = {"head": head, "identity": JANE, "decision": Decision(True, "r", ""), "impersonated": None, "cluster": "a"}
    known |= {"agent": "agent-1", "allowed": True, "client": SimpleNamespace(peer=Peer("192.0.2.7", None))}
    first = _known(cast(Passage, SimpleNamespace(**known)))
    assert _known(cast(Passage, SimpleNamespace(**known))) is first
    other = _known(cast(Passage, SimpleNamespace(**known | change)))
    assert other.client != first.client
    assert other.parts != first.parts


async def test_a_policy_leaves_out_what_it_says() -> None:
    policy = parse_policy(
        "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [ResponseStarted]\nrules:\n"
        "- {level: None, users: [bob], verbs: [list]}\n- {level: Metadata}\n"
    )
    async with gate() as g:
        g.pipeline._audit.policy = policy
        ask(g, token=b"bob")
        g.clusters.last.respond()
        assert g.audit.events == []
        ask(g, PODS.replace(b"/pods", b"/pods?watch=1"), token=b"bob")
        g.clusters.last.begin()
        assert g.audit.events == []
        g.clusters.last.sink.on_end([])
        assert [event["verb"] for event in g.audit.events] == ["watch"]


async def test_a_request_for_the_gateway_itself_has_no_agent() -> None:
    async with gate() as g:
        ask(g, b"GET /metrics HTTP/1.1\r\n", b"root")
        await settle(50)
        assert "kulvert.dev/agent" not in last(g)["annotations"]


async def test_a_refusal_names_the_cluster_that_was_asked_for_and_the_rule_that_said_no() -> None:
    mapped = grant("mapped", groups=["devs"], clusters=("a",), impersonate=AsWhom("x", ("system:masters",)))
    async with gate(grants=Grants([mapped])) as g:
        ask(g)
        annotations = last(g)["annotations"]
        assert (annotations["kulvert.dev/decision"], annotations["kulvert.dev/cluster"]) == ("forbid", "a")
        assert annotations["kulvert.dev/rule"] == "mapped"
        assert "impersonatedUser" not in last(g)
        ask(g, PODS.replace(b"clusters/a", b"clusters/b"))
        assert (last(g)["annotations"]["kulvert.dev/cluster"], "kulvert.dev/rule" in last(g)["annotations"]) == (
            "b",
            False,
        )

"""One connection, requests of every kind in every order: each is routed, authenticated and answered by itself.

What another gateway did wrong: a connection that was handed to somebody for one path served the next path there, too.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from tests.support.cluster import Cluster
from tests.support.https import Answer, Broken, Https, User, audit_of
from tests.support.platform import ADMINS, Platform

WATCH = "/api/v1/namespaces/kube-system/serviceaccounts?watch=true&timeoutSeconds=1&resourceVersion="
WEBSOCKET = (
    "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Protocol: v5.channel.k8s.io",
)  # fmt: skip


@dataclass(frozen=True)
class Step:
    """A request, and what its answer and its audit record must say."""

    name: str
    target: str
    status: int
    words: str
    cluster: str = ""
    headers: tuple[str, ...] = ()
    method: str = "GET"
    hop: str = ""

    @property
    def audited(self) -> bool:
        """The health of the server itself is the one thing without a record."""
        return self.name != "health"


def steps(cluster_a: Cluster, cluster_b: Cluster, version: str) -> list[Step]:
    namespace = "/api/v1/namespaces/kube-system"
    return [
        Step("health", "/healthz", 200, "ok"),
        Step("management", "/apis/kulvert.dev/v1alpha1/clusters", 200, "ClusterList"),
        Step("alpha", f"/clusters/alpha{namespace}", 200, cluster_a.uid, "alpha"),
        Step("beta", f"/clusters/beta{namespace}", 200, cluster_b.uid, "beta"),
        Step("watch", f"/clusters/alpha{WATCH}{version}", 200, "", "alpha"),
    ]


LAST = [
    Step(
        "refused by the cluster", "/clusters/alpha/api/v1/namespaces/default/pods/absent/exec?command=sh&stdout=true",
        404, 'pods \\"absent\\" not found', "alpha", WEBSOCKET,
    ),
    Step(
        "refused by the gateway", "/clusters/beta/api/v1/nodes", 400, "only SPDY/3.1 and WebSocket", "beta",
        ("Connection: Upgrade", "Upgrade: h2c"), hop="gateway",
    ),
    Step("refused by management", "/version", 400, "nothing to upgrade to", "", WEBSOCKET, hop="gateway"),
]  # fmt: skip


async def walk(connection: Https, order: Sequence[Step]) -> list[Answer]:
    """Take the steps, one after the other; the last one ends the connection."""
    answers = []
    for step in order:
        answer = await connection.ask(step.method, step.target, *step.headers)
        names = [one.name for one in order]
        assert answer.status == step.status, f"{step.name} of {names}: {answer.status} {answer.body!r}"
        assert step.words in answer.body.decode(), f"{step.name} of {names}: {answer.body!r}"
        assert not step.hop or answer.hop == step.hop
        answers.append(answer)
    assert answers[-1].headers["connection"] == "close"
    assert await connection.ended() == b""
    return answers


def check_audit(records: dict[str, list[dict[str, Any]]], order: Sequence[Step], answers: list[Answer]) -> None:
    for step, answer in zip(order, answers, strict=True):
        found = records.get(answer.audit_id, [])
        assert len(found) == step.audited, step.name
        for record in found:
            assert record["requestURI"].partition("?")[0] in step.target
            assert record["annotations"]["kulvert.dev/cluster"] == step.cluster
            assert record["user"]["username"] == "admin"
            assert record["responseStatus"]["code"] == step.status
            assert (record["verb"] == "watch") == (step.name == "watch")


async def test_every_order_on_one_connection(platform: Platform, cluster_a: Cluster, cluster_b: Cluster) -> None:
    """120 orders at once, each on a connection of its own, each ended by one of three refused upgrades in turn."""
    admin = User(platform)
    listed = await admin.get("alpha", "/api/v1/namespaces/kube-system/serviceaccounts")
    every = steps(cluster_a, cluster_b, listed.json["metadata"]["resourceVersion"])
    orders = [[*order, LAST[n % 3]] for n, order in enumerate(itertools.permutations(every))]
    assert len(orders) == 120

    async def one(order: list[Step]) -> list[Answer]:
        async with await admin.connect() as connection:
            return await walk(connection, order)

    walked = await asyncio.gather(*map(one, orders))
    ids = [answer.audit_id for answers in walked for answer in answers]
    assert len(ids) == len(set(ids)) == 720
    taken = [pair for order, answers in zip(orders, walked, strict=True) for pair in zip(order, answers, strict=True)]
    await audit_of(platform, *(answer.audit_id for step, answer in taken if step.audited))
    records: dict[str, list[dict[str, Any]]] = {}
    for event in platform.audit():
        if event["stage"] == "ResponseComplete":
            records.setdefault(event["auditID"], []).append(event)
    for order, answers in zip(orders, walked, strict=True):
        check_audit(records, order, answers)


async def test_requests_written_at_once_are_answered_in_their_order(
    platform: Platform, cluster_a: Cluster, cluster_b: Cluster
) -> None:
    """Pipelined: management, clusters, watch, management again, in one write."""
    admin = User(platform)
    listed = await admin.get("alpha", "/api/v1/namespaces/kube-system/serviceaccounts")
    health, management, alpha, beta, watch = steps(cluster_a, cluster_b, listed.json["metadata"]["resourceVersion"])
    order = [management, alpha, watch, health, beta, alpha, management, health]
    async with await admin.connect() as connection:
        for step in order:
            connection.say(step.method, step.target)
        for step in order:
            answer = await connection.answer()
            assert answer.status == step.status
            assert step.words in answer.body.decode()


@pytest.mark.parametrize("first", ["/healthz", "/apis/kulvert.dev/v1alpha1/clusters", "/clusters/alpha/version"])
async def test_a_right_that_one_path_has_is_no_right_on_the_next(platform: Platform, first: str) -> None:
    """A user without any grant: what is allowed and what is not alternate on one connection."""
    nobody = User(platform, "nobody", ["nobodies"])
    async with await nobody.connect() as connection:
        for _ in range(3):
            for target in (first, "/clusters/alpha/version", "/healthz", "/clusters/beta/api/v1/secrets", "/metrics"):
                answer = await connection.ask("GET", target)
                allowed = target.startswith(("/healthz", "/apis/"))
                assert answer.status == (200 if allowed else 403)
                if not allowed:
                    assert answer.hop == "gateway"
                elif target.startswith("/apis/"):
                    assert answer.json["items"] == []


async def test_what_a_client_pipelines_behind_a_refused_upgrade_goes_nowhere(
    platform: Platform, cluster_a: Cluster
) -> None:
    """CVE-2018-1002105: the API server refuses the upgrade, and the client's next bytes must not reach it."""
    admin = User(platform)
    absent = LAST[0]
    async with await admin.connect() as connection:
        connection.say("GET", absent.target, *absent.headers)
        connection.say("POST", "/api/v1/namespaces", "Content-Type: application/json", body=NAMESPACE)
        answer = await connection.answer()
        assert answer.status == 404
        assert await connection.ended() == b""
    made = await cluster_a.kubectl("get", "namespace", "smuggled")
    assert "NotFound" in made.err


NAMESPACE = b'{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "smuggled"}}'


async def test_revoked_in_the_middle_of_a_connection(own_platform: Platform, cluster_a: Cluster) -> None:
    """A grant that goes ends the watch within 30 s, and the next request on the same connection at once."""
    await own_platform.start_agent(cluster_a)
    admin = User(own_platform)
    await admin.works("alpha")
    async with await admin.connect() as watching, await admin.connect() as asking:
        watching.say("GET", f"/clusters/alpha{WATCH.replace('timeoutSeconds=1', 'timeoutSeconds=300')}")
        assert (await watching.head())[0] == 200
        assert (await asking.ask("GET", "/clusters/alpha/version")).status == 200
        own_platform.set_grants([{**ADMINS, "clusters": ["beta"]}])
        with pytest.raises(Broken):
            async with asyncio.timeout(30):
                await watching.body({"transfer-encoding": "chunked"})
        refused = await asking.ask("GET", "/clusters/alpha/version")
        refused.expect(403, "Forbidden", "gateway")

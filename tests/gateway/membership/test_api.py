"""Clusters over the API: who may do what, and what is refused with words."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from auth.identity import Identity
from auth.jointoken import StoredJoinToken
from gateway.failures import Refused
from gateway.handover import Caller
from gateway.management import Attached
from gateway.membership.agentcertificates import IssuedCertificate
from gateway.membership.api import MAX_BODY, ClusterApi
from gateway.membership.enrolments import Enrolment
from gateway.membership.registry import Cluster
from gateway.membership.stores import Stores

BASE = "/apis/kulvert.dev/v1alpha1"
EDGE = f"{BASE}/clusters/edge"
NOW = 1000.0


class World:
    """The routes, asked by whomever a test names: ada manages all, bob edge, eve may reach edge, mallory nothing."""

    def __init__(self, path: Path) -> None:
        self.stores = Stores.open(path / "clusters.db")
        self.stores.registry.add(Cluster("edge", "u1", 1.0))
        self.client: TestClient[web.Request, web.Application]
        self.notes: dict[str, str] = {}

    async def ask(self, user: str, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        headers = {"X-Test-User": user, "Content-Type": "application/json"}
        content = {"data": body} if isinstance(body, bytes) else {"json": body}
        async with self.client.request(method, path, headers=headers, **content) as answer:
            return answer.status, await answer.json()


@asynccontextmanager
async def served(world: World, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    async def reaches(identity: Identity, cluster: Cluster) -> bool:
        return cluster.name == "edge" and identity.user in ("ada", "bob", "eve")

    async def manages(identity: Identity, name: str) -> bool:
        return identity.user == "ada" or (identity.user == "bob" and name == "edge")

    def caller(request: web.Request) -> Caller:
        user = request.headers["X-Test-User"]
        return Caller(Identity(user, (), "", (), "test", "id", 9e9) if user else None, "", "audit", world.notes)

    @web.middleware
    async def as_status(request: web.Request, handler: Any) -> web.StreamResponse:
        try:
            answer: web.StreamResponse = await handler(request)
            return answer
        except Refused as refused:
            return web.json_response({"message": refused.detail}, status=refused.failure.code)

    monkeypatch.setattr("gateway.membership.api.caller_of", caller)
    api = ClusterApi(world.stores, lambda _: Attached(2, 1), reaches, manages, lambda: NOW)
    app = web.Application(middlewares=[as_status])
    app.router.add_routes(api.routes())
    async with TestClient(TestServer(app)) as world.client:
        yield world


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    async with served(World(tmp_path), monkeypatch) as found:
        yield found
        found.stores.close()


async def test_whoever_may_reach_a_cluster_may_read_it(world: World) -> None:
    code, found = await world.ask("eve", "GET", EDGE)
    assert (code, found["metadata"]["name"], found["status"]["clusterId"]) == (200, "edge", "u1")
    assert (found["status"]["agents"], found["status"]["readyAgents"]) == (2, 1)
    assert (await world.ask("mallory", "GET", EDGE))[0] == 403
    assert (await world.ask("mallory", "GET", f"{BASE}/clusters/nil"))[0] == 403
    assert (await world.ask("ada", "GET", f"{BASE}/clusters/nil"))[0] == 404
    assert (await world.ask("", "GET", EDGE))[0] == 401


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("DELETE", EDGE),
        ("POST", f"{EDGE}/accept"),
        ("POST", f"{EDGE}/deny"),
        ("POST", f"{EDGE}/switch"),
        ("GET", f"{EDGE}/certificates"),
        ("DELETE", f"{EDGE}/certificates/aa"),
        ("PUT", f"{EDGE}/conditions/Ready"),
        ("PUT", f"{EDGE}/gates/Ready"),
        ("DELETE", f"{EDGE}/gates/Ready"),
        ("PUT", f"{EDGE}/finalizers/a"),
        ("DELETE", f"{EDGE}/finalizers/a"),
    ],
)
async def test_who_does_not_manage_a_cluster_changes_nothing(world: World, method: str, path: str) -> None:
    before = world.stores.registry.list()
    for user in ("eve", "mallory"):
        assert (await world.ask(user, method, path, {}))[0] == 403
    assert (await world.ask("bob", method, path.replace("edge", "hub"), {}))[0] == 403
    assert (await world.ask("", method, path, {}))[0] == 401
    assert world.stores.registry.list() == before
    assert world.stores.removals.unfinished() == ()


async def test_conditions_gates_and_finalizers_are_put_and_taken_off(world: World) -> None:
    kind = "example.com/Scanned"
    code, found = await world.ask("bob", "PUT", f"{EDGE}/gates/{kind}")
    assert (code, found["spec"]["gates"]) == (200, [kind])
    code, found = await world.ask("bob", "PUT", f"{EDGE}/conditions/{kind}", {"status": "True", "reason": "Clean"})
    assert (code, found["status"]["conditions"][0]["status"]) == (200, "True")
    code, found = await world.ask("bob", "PUT", f"{EDGE}/finalizers/{kind}")
    assert found["metadata"]["finalizers"] == [kind]
    code, found = await world.ask("bob", "DELETE", f"{EDGE}/finalizers/{kind}")
    assert found["metadata"]["finalizers"] == []
    assert (await world.ask("bob", "DELETE", f"{EDGE}/gates/{kind}"))[1]["spec"]["gates"] == []


@pytest.mark.parametrize(("query", "left"), [("", []), ("?keepTokens=true", ["t"])])
async def test_a_revoked_agent_has_no_join_token_to_come_back_by(world: World, query: str, left: list[str]) -> None:
    world.stores.tokens.add(StoredJoinToken("t", b"k", "edge", NOW + 60))
    world.stores.certificates.add(IssuedCertificate("aa", "edge", "u1", "agent", "key", NOW, NOW + 60), NOW)
    assert (await world.ask("bob", "DELETE", f"{EDGE}/certificates/aa{query}"))[0] == 200
    assert [one.id for one in world.stores.tokens.list()] == left


async def test_what_kulvert_finds_out_is_nobodys_to_say(world: World) -> None:
    for kind in ("HubAccepted", "Joined", "Available"):
        assert (await world.ask("ada", "PUT", f"{EDGE}/conditions/{kind}", {"status": "True"}))[0] == 403


@pytest.mark.parametrize(
    "body",
    [b"{", b"[]", {"status": "yes"}, {"status": "True", "reason": "two words"}, {"other": 1}, {"status": 1}, {},
     {"status": "True", "message": "a\nb"}],
)  # fmt: skip
async def test_malformed_bodies_are_refused(world: World, body: Any) -> None:
    assert (await world.ask("ada", "PUT", f"{EDGE}/conditions/Ready", body))[0] == 400
    assert world.stores.registry.list()[0].conditions == ()


async def test_a_huge_body_is_refused(world: World) -> None:
    code, _ = await world.ask("ada", "POST", f"{EDGE}/accept", b" " * (MAX_BODY + 1))
    assert code == 413


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
@pytest.mark.parametrize("what", ["accept", "deny", "switch"])
async def test_a_page_of_somebody_elses_decides_nothing_by_its_readers_certificate(
    world: World, what: str, kind: str
) -> None:
    world.stores.enrolments.told(Enrolment("edge", "u2", "key", "agent", "192.0.2.1", "tok", NOW, NOW))
    before = world.stores.registry.list(), world.stores.enrolments.list()
    headers = {"X-Test-User": "ada"} | ({"Content-Type": kind} if kind else {})
    body = b'{"clusterId": "u2"}' if kind else None
    async with world.client.post(f"{EDGE}/{what}", headers=headers, data=body) as answer:
        assert answer.status == 400
    assert (world.stores.registry.list(), world.stores.enrolments.list()) == before


async def test_requests_are_seen_and_decided_by_who_manages_them(world: World) -> None:
    for name in ("edge", "hub"):
        world.stores.enrolments.told(Enrolment(name, "u2", "key", "agent", "192.0.2.1", "tok", NOW, NOW))
    _, all_of_them = await world.ask("ada", "GET", f"{BASE}/enrolments")
    _, of_bob = await world.ask("bob", "GET", f"{BASE}/enrolments")
    assert [one["spec"]["cluster"] for one in all_of_them["items"]] == ["edge", "hub"]
    assert [one["spec"]["cluster"] for one in of_bob["items"]] == ["edge"]
    assert (await world.ask("bob", "POST", f"{EDGE}/accept", {"clusterId": "u2"}))[0] == 200
    assert world.notes == {"cluster-id": "u2"}, "the audit record says which cluster was accepted"
    assert (await world.ask("bob", "POST", f"{EDGE}/deny", {}))[1]["count"] == 1
    assert (await world.ask("bob", "POST", f"{EDGE}/switch", {"clusterId": "u2"}))[1]["status"]["clusterId"] == "u2"
    code, refused = await world.ask("bob", "POST", f"{EDGE}/switch", {"clusterId": "u2"})
    assert (code, "already" in refused["message"]) == (400, True)


async def test_a_removal_is_a_wish_and_shows_how_far_it_is(world: World) -> None:
    code, found = await world.ask("bob", "DELETE", f"{EDGE}?force=true")
    assert (code, found["status"]["phase"]) == (202, "Terminating")
    assert found["status"]["removal"]["requestedBy"] == "bob"
    removal = world.stores.removals.get("edge")
    assert removal is not None
    assert removal.force

"""Grants over the management API: who sees which, who changes which, and what is said to the others."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from auth.grants.access import Access
from auth.grants.grant import Grant
from auth.grants.sources import GrantSources
from auth.identity import Identity
from gateway.failures import Refused
from gateway.granting.accessapi import ACCESS_REVIEWS, AccessApi
from gateway.granting.api import GRANTS, MOST_BYTES, GrantsApi, log_note
from gateway.granting.store import GrantStore
from gateway.handover import Caller
from gateway.membership.registry import Cluster, SqliteRegistry

NOW = 1_000.0
PEOPLE = {
    "root": ("kulvert:admins",),
    "olga": ("owners",),
    "otto": ("others",),
    "ada": ("dev",),
    "bob": (),
}
OWNED = Grant(
    "owned", groups=frozenset({"owners"}), clusters=("edge-*",), access=Access(namespaces=("team-*",)), delegate=True
)
OTHERS = Grant("others", groups=frozenset({"others"}), clusters=("prod-*",), delegate=True)


class World:
    """root is an administrator, olga owns edge-* in team-*, otto prod-*; ada and bob are users."""

    def __init__(self, path: Path) -> None:
        self.registry = SqliteRegistry(path / "state.db")
        for name in ("edge-7", "prod-1"):
            self.registry.add(Cluster(name, created=1.0))
        self.store = GrantStore(self.registry.database)
        self.sources = GrantSources("file", "store")
        self.sources.changed("file", [OWNED, OTHERS], NOW)
        self.store.subscribe(self.take)
        self.take()
        self.notes: list[tuple[str, Mapping[str, str]]] = []
        self.client: TestClient[web.Request, web.Application]

    def take(self) -> None:
        self.sources.changed("store", self.store.grants(), NOW, self.store.problem)

    def note(self, caller: Caller, notes: Mapping[str, str]) -> None:
        self.notes.append((caller.identity.user if caller.identity else "", notes))

    async def ask(self, user: str, method: str, path: str, body: Any = None, **more: Any) -> tuple[int, Any]:
        content = {"data": body} if isinstance(body, bytes) else {"json": body} if body is not None else {}
        headers = {"X-Test-User": user} | more
        async with self.client.request(method, path, headers=headers, **content) as answer:
            return answer.status, await answer.json()

    async def names(self, user: str) -> list[str]:
        return [one["metadata"]["name"] for one in (await self.ask(user, "GET", GRANTS))[1]["items"]]


def identity(user: str) -> Identity | None:
    return Identity(user, PEOPLE[user], "", (), "test", user, 9e9) if user else None


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    def caller(request: web.Request) -> Caller:
        return Caller(identity(request.headers["X-Test-User"]), "", "audit")

    @web.middleware
    async def as_status(request: web.Request, handler: Any) -> web.StreamResponse:
        try:
            answer: web.StreamResponse = await handler(request)
            return answer
        except Refused as refused:
            return web.json_response({"message": refused.failure.text(refused.detail)}, status=refused.failure.code)

    monkeypatch.setattr("gateway.granting.api.caller_of", caller)
    made = World(tmp_path)
    api = GrantsApi(made.store, made.sources, made.registry, lambda: NOW, note=made.note)
    app = web.Application(middlewares=[as_status])
    app.router.add_routes(api.routes())
    app.router.add_routes(AccessApi(made.sources, made.registry, lambda: NOW).routes())
    async with TestClient(TestServer(app)) as made.client:
        yield made
    made.registry.close()


def grant(name: str = "bobs", **spec: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "subjects": [{"kind": "User", "name": "bob"}],
        "clusters": ["edge-7"],
        "access": {"namespaces": ["team-a"]},
    }
    kept = {key: value for key, value in (fields | spec).items() if value is not None}
    return {"apiVersion": "kulvert.dev/v1alpha1", "kind": "Grant", "metadata": {"name": name}, "spec": kept}


async def test_an_owner_grants_what_he_has_and_a_user_nothing(world: World) -> None:
    code, made = await world.ask("olga", "POST", GRANTS, grant())
    assert code == 201
    assert made["status"]["delegatedBy"] == "olga"
    assert made["status"]["inForce"] is True
    decision = world.sources.decide(Identity("bob", (), "", (), "t", "b", 9e9), "edge-7", NOW)
    assert (decision.allowed, decision.rule) == (True, "bobs")
    for user in ("otto", "ada", "bob"):
        code, refused = await world.ask(user, "POST", GRANTS, grant("x"))
        assert code == 403, refused
    code, refused = await world.ask("olga", "POST", GRANTS, grant("x", access=None))
    assert code == 403
    assert "it goes beyond your grant 'owned'" in refused["message"]
    assert (await world.ask("", "POST", GRANTS, grant("x")))[0] == 401
    assert (await world.ask("root", "POST", GRANTS, grant("x", clusters=["*"], access=None)))[0] == 201
    assert [row.name for row in world.store.list()] == ["bobs", "x"]


async def test_everybody_sees_what_concerns_him(world: World) -> None:
    await world.ask("root", "POST", GRANTS, grant("prods", clusters=["prod-1"], access=None))
    await world.ask("olga", "POST", GRANTS, grant("bobs"))
    await world.ask("root", "POST", GRANTS, grant("all", subjects=[{"kind": "Group", "name": "system:authenticated"}]))
    assert sorted(await world.names("root")) == ["all", "bobs", "others", "owned", "prods"]
    assert sorted(await world.names("olga")) == ["all", "bobs", "owned"]
    assert sorted(await world.names("otto")) == ["all", "others", "prods"]
    assert sorted(await world.names("bob")) == ["all", "bobs", "prods"]
    assert sorted(await world.names("ada")) == ["all"]
    assert (await world.ask("", "GET", GRANTS))[0] == 401
    assert (await world.ask("ada", "GET", f"{GRANTS}/bobs"))[0] == 404
    assert (await world.ask("ada", "GET", f"{GRANTS}/nil"))[0] == 404
    code, found = await world.ask("bob", "GET", f"{GRANTS}/bobs")
    assert (code, found["spec"]["clusters"], found["metadata"]["resourceVersion"]) == (200, ["edge-7"], "2")


async def test_a_change_needs_the_version_that_was_read(world: World) -> None:
    _, made = await world.ask("olga", "POST", GRANTS, grant())
    body = grant(subjects=[{"kind": "User", "name": "ada"}])
    assert (await world.ask("olga", "PUT", f"{GRANTS}/bobs", body))[0] == 400
    body["metadata"]["resourceVersion"] = made["metadata"]["resourceVersion"]
    assert (await world.ask("otto", "PUT", f"{GRANTS}/bobs", body))[0] == 404
    code, changed = await world.ask("olga", "PUT", f"{GRANTS}/bobs", body)
    assert (code, changed["spec"]["subjects"]) == (200, [{"kind": "User", "name": "ada"}])
    assert (await world.ask("olga", "PUT", f"{GRANTS}/bobs", body))[0] == 409
    old = f"{GRANTS}/bobs?resourceVersion={made['metadata']['resourceVersion']}"
    assert (await world.ask("olga", "DELETE", old))[0] == 409
    assert (await world.ask("olga", "PUT", f"{GRANTS}/other", body))[0] == 400
    assert (await world.ask("bob", "DELETE", f"{GRANTS}/bobs"))[0] == 404
    assert (await world.ask("ada", "DELETE", f"{GRANTS}/bobs"))[0] == 403
    assert (await world.ask("olga", "DELETE", f"{GRANTS}/bobs"))[0] == 200
    assert world.store.list() == ()


async def test_an_owner_cannot_raise_a_grant_by_changing_it(world: World) -> None:
    _, made = await world.ask("olga", "POST", GRANTS, grant())
    for more in ({"access": None}, {"clusters": ["*"]}, {"delegate": True, "clusters": ["prod-1"]}):
        body = grant(**more)
        body["metadata"]["resourceVersion"] = made["metadata"]["resourceVersion"]
        assert (await world.ask("olga", "PUT", f"{GRANTS}/bobs", body))[0] == 403
    assert (await world.ask("olga", "GET", f"{GRANTS}/bobs"))[1]["spec"] == made["spec"]


async def test_an_owner_does_not_fill_the_store(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.granting.api.MOST_OF_OWNER", 1)
    assert (await world.ask("olga", "POST", GRANTS, grant("one")))[0] == 201
    code, refused = await world.ask("olga", "POST", GRANTS, grant("two"))
    assert (code, "which is the most" in refused["message"]) == (409, True)
    assert (await world.ask("root", "POST", GRANTS, grant("two")))[0] == 201
    assert (await world.ask("root", "POST", GRANTS, grant("three")))[0] == 201


async def test_what_is_the_administrators_stays_so(world: World) -> None:
    _, made = await world.ask("root", "POST", GRANTS, grant())
    body = grant(subjects=[{"kind": "User", "name": "ada"}])
    body["metadata"]["resourceVersion"] = made["metadata"]["resourceVersion"]
    assert (await world.ask("olga", "PUT", f"{GRANTS}/bobs", body))[0] == 403
    assert (await world.ask("olga", "DELETE", f"{GRANTS}/bobs"))[0] == 403
    assert (await world.ask("olga", "POST", GRANTS, grant()))[0] == 403
    assert "delegatedBy" not in made["status"]


async def test_grants_of_the_file_are_not_changed_here(world: World) -> None:
    for user in ("root", "olga"):
        code, refused = await world.ask(user, "DELETE", f"{GRANTS}/owned")
        assert (code, "is kept in file: change it there" in refused["message"]) == (409, True)
    code, refused = await world.ask("root", "POST", GRANTS, grant("owned"))
    assert (code, "there is a grant 'owned' in file" in refused["message"]) == (409, True)


async def test_what_hangs_on_an_owners_grant_is_shown_as_idle_when_that_goes(world: World) -> None:
    await world.ask("olga", "POST", GRANTS, grant())
    world.sources.changed("file", [replace(OWNED, clusters=("other",)), OTHERS], NOW)
    _, found = await world.ask("root", "GET", f"{GRANTS}/bobs")
    assert found["status"]["inForce"] is False
    assert "'olga' could not make it now" in found["status"]["message"]
    assert not world.sources.decide(Identity("bob", (), "", (), "t", "b", 9e9), "edge-7", NOW).allowed
    assert (await world.ask("olga", "DELETE", f"{GRANTS}/bobs"))[0] == 404
    assert (await world.ask("root", "DELETE", f"{GRANTS}/bobs"))[0] == 200


async def test_every_try_is_noted_with_its_result(world: World, caplog: pytest.LogCaptureFixture) -> None:
    await world.ask("olga", "POST", GRANTS, grant())
    await world.ask("ada", "POST", GRANTS, grant("x"))
    await world.ask("olga", "POST", GRANTS, grant())
    await world.ask("olga", "DELETE", f"{GRANTS}/bobs")
    notes = [(user, note["grant"], note["change"], note["result"]) for user, note in world.notes]
    assert notes == [
        ("olga", "bobs", "create", "done"),
        ("ada", "x", "create", "you hold no grant with delegate: true"),
        ("olga", "bobs", "create", "there is a grant 'bobs' already"),
        ("olga", "bobs", "delete", "done"),
    ]
    caplog.set_level(logging.INFO)
    log_note(Caller(identity("olga"), "", "id-1"), world.notes[0][1])
    record = next(vars(one) for one in caplog.records if one.name == log_note.__module__)
    assert (record["audit_id"], record["user"], record["grant"], record["result"]) == ("id-1", "olga", "bobs", "done")


@pytest.mark.parametrize(
    ("body", "more", "code"),
    [
        (b"{", {}, 400),
        (b"[]", {}, 400),
        (b"null", {}, 400),
        (b'{"kind": "Grant"}', {}, 400),
        (b"[" * 1000 + b"]" * 1000, {}, 400),
        (b" " * (MOST_BYTES + 1), {}, 413),
    ],
)
async def test_a_bad_body_is_refused_with_words(world: World, body: bytes, more: dict[str, str], code: int) -> None:
    headers = {"Content-Type": "application/json"} | more
    for method, path in (("POST", GRANTS), ("PUT", f"{GRANTS}/x"), ("POST", ACCESS_REVIEWS)):
        found, refused = await world.ask("root", method, path, body, **headers)
        assert found == code, (method, refused)
        assert refused["message"]


async def test_a_page_of_somebody_elses_cannot_send_what_a_browser_sends_unasked(world: World) -> None:
    body = orjson.dumps(grant())
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        assert (await world.ask("root", "POST", GRANTS, body, **{"Content-Type": kind}))[0] == 400
    assert (await world.ask("root", "POST", GRANTS, body, **{"Content-Type": "application/json"}))[0] == 201


# --- access reviews


def question(**spec: Any) -> dict[str, Any]:
    return {"spec": {"cluster": "edge-7", "verb": "get", "resource": "pods", "namespace": "team-a"} | spec}


async def test_a_user_asks_about_himself(world: World) -> None:
    await world.ask("olga", "POST", GRANTS, grant())
    code, found = await world.ask("bob", "POST", ACCESS_REVIEWS, question())
    assert code == 201
    assert (found["status"]["allowed"], found["status"]["rule"]) == (True, "bobs")
    assert found["status"]["impersonated"] == {"user": "bob", "groups": []}
    assert found["status"]["considered"] == [{"rule": "bobs", "source": "store", "verdict": "decides"}]
    _, found = await world.ask("bob", "POST", ACCESS_REVIEWS, question(namespace="kube-system"))
    assert (found["status"]["allowed"], "impersonated" in found["status"]) == (False, False)
    assert (await world.ask("bob", "POST", ACCESS_REVIEWS, question(user="bob")))[0] == 201
    assert (await world.ask("bob", "POST", ACCESS_REVIEWS, question(user="olga")))[0] == 403
    assert (await world.ask("bob", "POST", ACCESS_REVIEWS, question(groups=["owners"])))[0] == 403
    assert (await world.ask("", "POST", ACCESS_REVIEWS, question()))[0] == 401


async def test_an_owner_asks_about_anybody_in_his_clusters_and_reads_of_those_alone(world: World) -> None:
    await world.ask("root", "POST", GRANTS, grant("prods", clusters=["prod-1"], access=None))
    await world.ask("olga", "POST", GRANTS, grant())
    _, found = await world.ask("olga", "POST", ACCESS_REVIEWS, question(user="bob"))
    assert [one["rule"] for one in found["status"]["considered"]] == ["bobs"]
    assert (await world.ask("olga", "POST", ACCESS_REVIEWS, question(user="bob", cluster="prod-1")))[0] == 403
    _, found = await world.ask("root", "POST", ACCESS_REVIEWS, question(user="bob"))
    assert [one["rule"] for one in found["status"]["considered"]] == ["prods", "bobs"]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"resource": "pods/log/x"}, "must be RESOURCE"),
        ({"resource": "*"}, "must be RESOURCE"),
        ({"path": "/metrics"}, "resource or path, and not both"),
        ({"user": ""}, "must be a non-empty string"),
        ({"x": 1}, "unknown field"),
    ],
)
async def test_a_bad_question_is_refused_with_words(world: World, spec: dict[str, Any], message: str) -> None:
    code, refused = await world.ask("root", "POST", ACCESS_REVIEWS, question(**spec))
    assert code == 400
    assert message in refused["message"]

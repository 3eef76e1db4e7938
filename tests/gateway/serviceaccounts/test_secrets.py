"""Tokens in Secrets of the hub: in those that are Kulvert's for the account, and in no others."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from kubernetes_asyncio import client

from gateway.hub.objects import JSON, Answer, HubObjects, HubUnavailable
from gateway.serviceaccounts.files import ProjectionError
from gateway.serviceaccounts.secrets import Projections, SecretProjection
from gateway.serviceaccounts.store import Wanted

WANTED = Wanted("edge", "ci", "argo", "argocd/server", secret="argocd/edge-token")
SECRET = "planted-token"
NOW = 1_000_000.0


class Hub(HubObjects):
    """Secrets by their paths, with the API server's rules for resourceVersion."""

    def __init__(self) -> None:
        super().__init__(client.ApiClient.__new__(client.ApiClient))
        self.objects: dict[str, dict[str, Any]] = {}
        self.version = 0
        self.answers: list[int | HubUnavailable] = []
        """To be given first, in place of the truth."""
        self.before_write: Callable[[], None] = lambda: None
        self.asked: list[str] = []

    async def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None, content: str = JSON) -> Answer:
        self.asked.append(f"{method} {path}")
        if self.answers:
            answer = self.answers.pop(0)
            if isinstance(answer, HubUnavailable):
                raise answer
            return Answer(answer, {"reason": "Scripted", "message": SECRET})
        return self._do(method, path, dict(body or {}))

    def _do(self, method: str, path: str, body: dict[str, Any]) -> Answer:
        if method == "GET":
            found = self.objects.get(path)
            return Answer(200, found) if found is not None else Answer(404, {})
        self.before_write()
        if method == "POST":
            path = f"{path}/{body['metadata']['name']}"
            return Answer(409, {}) if path in self.objects else self.put(path, body)
        if path not in self.objects:
            return Answer(404, {})
        sent = body["preconditions"] if method == "DELETE" else body["metadata"]
        if sent["resourceVersion"] != self.objects[path]["metadata"]["resourceVersion"]:
            return Answer(409, {})
        if method == "DELETE":
            return Answer(200, self.objects.pop(path))
        return self.put(path, body)

    def put(self, path: str, body: dict[str, Any]) -> Answer:
        self.version += 1
        metadata = {"uid": "u"} | body["metadata"] | {"resourceVersion": str(self.version)}
        self.objects[path] = body | {"metadata": metadata}
        return Answer(201, self.objects[path])


PATH = "/api/v1/namespaces/argocd/secrets/edge-token"


@pytest.fixture
def hub() -> Hub:
    return Hub()


@pytest.fixture
def secrets(hub: Hub) -> SecretProjection:
    return SecretProjection(hub, ("argocd",))


def token(hub: Hub) -> str:
    return base64.b64decode(hub.objects[PATH]["data"]["token"]).decode()


async def test_a_token_is_made_replaced_and_removed(hub: Hub, secrets: SecretProjection) -> None:
    await secrets.write(WANTED, "one", NOW)
    assert token(hub) == "one"
    made = hub.objects[PATH]
    assert made["type"] == "Opaque"
    assert made["metadata"]["labels"] == {"app.kubernetes.io/managed-by": "kulvert", "kulvert.dev/cluster": "edge"}
    await secrets.write(WANTED, "two", NOW)
    assert token(hub) == "two"
    await secrets.remove(WANTED)
    assert not hub.objects
    await secrets.remove(WANTED)


OURS = {"app.kubernetes.io/managed-by": "kulvert", "kulvert.dev/cluster": "edge"}
MINE = {"kulvert.dev/managed-serviceaccount": "ci/argo"}


@pytest.mark.parametrize(
    ("labels", "annotations"),
    [
        (None, None),
        ({}, MINE),
        ({"app.kubernetes.io/managed-by": "kulvert"}, MINE),
        (OURS | {"kulvert.dev/cluster": "other"}, MINE),
        (OURS | {"app.kubernetes.io/managed-by": "Helm"}, MINE),
        (OURS, {"kulvert.dev/managed-serviceaccount": "ci/another"}),
        (OURS, None),
    ],
)
async def test_a_secret_that_is_not_ours_for_this_account_is_left_alone(
    hub: Hub, secrets: SecretProjection, labels: dict[str, str] | None, annotations: dict[str, str] | None
) -> None:
    theirs = {"metadata": {"labels": labels, "annotations": annotations}, "data": {"token": "precious"}}
    hub.put(PATH, theirs)
    with pytest.raises(ProjectionError, match="not Kulvert's"):
        await secrets.write(WANTED, SECRET, NOW)
    await secrets.remove(WANTED)
    assert hub.objects[PATH]["data"] == {"token": "precious"}


async def test_one_that_somebody_makes_meanwhile_is_not_overwritten(hub: Hub, secrets: SecretProjection) -> None:
    def meanwhile() -> None:
        hub.before_write = lambda: None
        hub.put(PATH, {"metadata": {}, "data": {"token": "precious"}})

    hub.before_write = meanwhile
    with pytest.raises(ProjectionError, match="not Kulvert's"):
        await secrets.write(WANTED, SECRET, NOW)
    assert hub.objects[PATH]["data"] == {"token": "precious"}


async def test_one_that_somebody_takes_over_meanwhile_is_not_deleted(hub: Hub, secrets: SecretProjection) -> None:
    await secrets.write(WANTED, SECRET, NOW)

    def meanwhile() -> None:
        hub.before_write = lambda: None
        hub.put(PATH, {"metadata": {}, "data": {"token": "precious"}})

    hub.before_write = meanwhile
    await secrets.remove(WANTED)
    assert hub.objects[PATH]["data"] == {"token": "precious"}


@pytest.mark.parametrize("answer", [403, 500, HubUnavailable("the hub does not answer")])
@pytest.mark.parametrize("after", [0, 1])
async def test_a_hub_that_does_not_is_an_error_that_says_so_without_a_secret(
    hub: Hub, secrets: SecretProjection, answer: int | HubUnavailable, after: int
) -> None:
    hub.answers = [*[404] * after, answer]
    with pytest.raises(ProjectionError) as error:
        await secrets.write(WANTED, SECRET, NOW)
    assert SECRET not in str(error.value)
    assert ("server-hub-secrets-rbac" in str(error.value)) == (answer == 403)


async def test_only_the_namespaces_of_the_setting_are_written_to(hub: Hub) -> None:
    with pytest.raises(ProjectionError, match="secretNamespaces"):
        await SecretProjection(hub, ("apps",)).write(WANTED, SECRET, NOW)
    assert not hub.asked


async def test_one_that_was_taken_out_of_the_setting_can_still_be_removed(hub: Hub, secrets: SecretProjection) -> None:
    await secrets.write(WANTED, SECRET, NOW)
    await SecretProjection(hub, ()).remove(WANTED)
    assert not hub.objects


async def test_one_that_could_never_be_written_can_be_taken_back(hub: Hub, secrets: SecretProjection) -> None:
    hub.answers = [403]
    await SecretProjection(hub, ()).remove(WANTED)
    hub.answers = [403]
    with pytest.raises(ProjectionError, match="server-hub-secrets-rbac"):
        await secrets.remove(WANTED)


async def test_one_that_others_delete_or_empty_is_missing_as_soon_as_it_was_looked_at(
    hub: Hub, secrets: SecretProjection
) -> None:
    await secrets.write(WANTED, SECRET, NOW)
    assert secrets.present(WANTED, NOW)
    await secrets.look()
    assert secrets.present(WANTED, NOW)
    hub.answers = [500]
    await secrets.look()
    assert secrets.present(WANTED, NOW), "what the hub does not tell stays as it was"
    hub.objects[PATH]["data"] = None
    await secrets.look()
    assert not secrets.present(WANTED, NOW)
    await secrets.write(WANTED, SECRET, NOW)
    assert secrets.present(WANTED, NOW)
    hub.objects.clear()
    await secrets.look()
    assert not secrets.present(WANTED, NOW)
    await secrets.remove(WANTED)
    hub.asked.clear()
    await secrets.look()
    assert not hub.asked


async def test_without_a_hub_a_secret_is_a_failure_that_says_what_is_missing(secrets: SecretProjection) -> None:
    with pytest.raises(ProjectionError, match=r"hub\.kubeconfig"):
        await Projections(secrets, None).write(WANTED, SECRET, NOW)

"""Reading and writing objects, each verb as kube-apiserver answers it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from cli.sample.protobuf import MEDIA_TYPE
from tests.cli.sample.client import CONFIGMAPS, PODS, Client, config_map

MERGE = "application/merge-patch+json"


async def test_a_created_object_has_what_a_server_gives_it(client: Client) -> None:
    made = await client.create(CONFIGMAPS, config_map("a", x="1"))
    assert (made["kind"], made["apiVersion"], made["metadata"]["namespace"]) == ("ConfigMap", "v1", "default")
    assert made["metadata"].keys() >= {"uid", "resourceVersion", "creationTimestamp"}
    assert await client.get(f"{CONFIGMAPS}/a") == made


async def test_a_name_is_generated(client: Client) -> None:
    made = await client.create(CONFIGMAPS, {"metadata": {"generateName": "x-"}})
    assert made["metadata"]["name"].startswith("x-")
    assert len(made["metadata"]["name"]) == 7


BAD: list[tuple[Any, int, str]] = [
    ({"metadata": {}}, 422, "Invalid"),
    ({"metadata": {"name": "A_B"}}, 422, "Invalid"),
    ({"metadata": {"name": "a", "namespace": "other"}}, 400, "BadRequest"),
    ({"kind": "Pod", "metadata": {"name": "a"}}, 400, "BadRequest"),
    ([], 400, "BadRequest"),
]


@pytest.mark.parametrize(("body", "code", "reason"), BAD)
async def test_an_object_that_cannot_be_is_refused(client: Client, body: Any, code: int, reason: str) -> None:
    status, answer = await client.ask("POST", CONFIGMAPS, body)
    assert (status, answer["kind"], answer["reason"]) == (code, "Status", reason)


async def test_a_second_of_the_same_name_is_a_conflict(client: Client) -> None:
    await client.create(CONFIGMAPS, config_map("a"))
    status, body = await client.ask("POST", CONFIGMAPS, config_map("a"))
    assert (status, body["reason"]) == (409, "AlreadyExists")
    assert body["message"] == 'configmaps "a" already exists'


async def test_what_is_not_there_is_not_found(client: Client) -> None:
    status, body = await client.ask("GET", f"{CONFIGMAPS}/none")
    assert (status, body["message"]) == (404, 'configmaps "none" not found')
    assert body["details"] == {"name": "none", "kind": "configmaps"}


@pytest.mark.parametrize("path", ["/api/v1/namespaces/default/nopes", "/apis/apps/v1", "/nope", "/api/v2"])
async def test_a_path_that_is_not_there_is_not_found(client: Client, path: str) -> None:
    status, body = await client.ask("GET", path)
    assert (status, body["message"]) == (404, "the server could not find the requested resource")


async def test_nothing_is_made_in_a_namespace_that_is_not_there(client: Client) -> None:
    status, body = await client.ask("POST", "/api/v1/namespaces/none/configmaps", config_map("a"))
    assert (status, body["message"]) == (404, 'namespaces "none" not found')


async def test_an_update_of_a_stale_version_is_a_conflict(client: Client) -> None:
    made = await client.create(CONFIGMAPS, config_map("a", x="1"))
    status, changed = await client.ask("PUT", f"{CONFIGMAPS}/a", made | {"data": {"x": "2"}})
    assert status == 200
    assert changed["metadata"]["resourceVersion"] > made["metadata"]["resourceVersion"]
    status, body = await client.ask("PUT", f"{CONFIGMAPS}/a", made | {"data": {"x": "3"}})
    assert (status, body["reason"]) == (409, "Conflict")
    assert "the object has been modified" in body["message"]


async def test_an_update_that_changes_nothing_makes_no_new_version(client: Client) -> None:
    made = await client.create(CONFIGMAPS, config_map("a", x="1"))
    assert await client.ask("PUT", f"{CONFIGMAPS}/a", made) == (200, made)


async def test_identity_cannot_be_changed(client: Client) -> None:
    made = await client.create(CONFIGMAPS, config_map("a"))
    forged = {"metadata": {"creationTimestamp": "2000-01-01T00:00:00Z", "labels": {"x": "y"}}}
    status, changed = await client.ask("PATCH", f"{CONFIGMAPS}/a", forged, Content_Type=MERGE)
    assert status == 200
    for key in ("uid", "creationTimestamp", "name"):
        assert changed["metadata"][key] == made["metadata"][key]


async def test_the_status_is_written_by_its_subresource_only(client: Client) -> None:
    pod = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c"}]}}
    await client.create(PODS, pod)
    change = {"status": {"phase": "Failed"}, "metadata": {"labels": {"a": "b"}}}
    _, main = await client.ask("PATCH", f"{PODS}/p", change, Content_Type=MERGE)
    assert (main["status"]["phase"], main["metadata"]["labels"]) == ("Running", {"a": "b"})
    _, sub = await client.ask("PATCH", f"{PODS}/p/status", change, Content_Type=MERGE)
    assert sub["status"]["phase"] == "Failed"


async def test_server_side_apply_is_refused_as_unsupported(client: Client) -> None:
    status, body = await client.ask(
        "PATCH", f"{CONFIGMAPS}/a", config_map("a"), Content_Type="application/apply-patch+yaml"
    )
    assert (status, body["reason"]) == (415, "UnsupportedMediaType")


async def test_a_dry_run_changes_nothing(client: Client) -> None:
    await client.create(f"{CONFIGMAPS}?dryRun=All", config_map("a"))
    assert (await client.get(CONFIGMAPS))["items"] == []
    await client.create(CONFIGMAPS, config_map("a"))
    await client.ask("DELETE", f"{CONFIGMAPS}/a?dryRun=All")
    assert len((await client.get(CONFIGMAPS))["items"]) == 1


async def test_a_deleted_object_is_gone(client: Client) -> None:
    made = await client.create(CONFIGMAPS, config_map("a"))
    status, body = await client.ask("DELETE", f"{CONFIGMAPS}/a")
    assert (status, body["status"], body["details"]["uid"]) == (200, "Success", made["metadata"]["uid"])
    assert (await client.ask("GET", f"{CONFIGMAPS}/a"))[0] == 404


async def test_a_delete_meant_for_another_object_of_that_name_is_refused(client: Client) -> None:
    await client.create(CONFIGMAPS, config_map("a"))
    status, body = await client.ask("DELETE", f"{CONFIGMAPS}/a", {"preconditions": {"uid": "other"}})
    assert (status, body["reason"]) == (409, "Conflict")


async def test_a_collection_is_deleted_by_label(client: Client) -> None:
    for name in "abc":
        await client.create(CONFIGMAPS, config_map(name))
    await client.ask("DELETE", f"{CONFIGMAPS}?labelSelector=app!%3Db")
    assert [item["metadata"]["name"] for item in (await client.get(CONFIGMAPS))["items"]] == ["b"]


async def test_a_namespace_takes_its_objects_with_it(client: Client) -> None:
    await client.create("/api/v1/namespaces", {"metadata": {"name": "n"}})
    await client.create("/api/v1/namespaces/n/configmaps", config_map("a"))
    await client.ask("DELETE", "/api/v1/namespaces/n")
    assert (await client.ask("GET", "/api/v1/namespaces/n/configmaps/a"))[0] == 404


async def test_the_namespace_that_identifies_the_cluster_stays(client: Client) -> None:
    status, body = await client.ask("DELETE", "/api/v1/namespaces/kube-system")
    assert (status, body["reason"]) == (403, "Forbidden")


async def test_a_secrets_plain_text_is_encoded(client: Client) -> None:
    path = "/api/v1/namespaces/default/secrets"
    made = await client.create(path, {"metadata": {"name": "s"}, "stringData": {"p": "q"}})
    assert (made["data"], made["type"], "stringData" in made) == ({"p": "cQ=="}, "Opaque", False)


async def test_a_pod_runs_at_once_on_the_sample_node(client: Client) -> None:
    made = await client.create(PODS, {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c"}]}})
    assert (made["status"]["phase"], made["spec"]["nodeName"]) == ("Running", "kulvert-sample")
    assert [c["name"] for c in made["status"]["containerStatuses"]] == ["c"]


async def test_leases_are_kept_in_their_own_group(client: Client) -> None:
    path = "/apis/coordination.k8s.io/v1/namespaces/default/leases"
    made = await client.create(path, {"metadata": {"name": "l"}, "spec": {"holderIdentity": "me"}})
    assert made["apiVersion"] == "coordination.k8s.io/v1"


async def test_a_method_that_is_not_there_is_not_allowed(client: Client) -> None:
    assert (await client.ask("PUT", PODS, {}))[0] == 405
    assert (await client.ask("POST", f"{PODS}/demo", {}))[0] == 405
    assert (await client.ask("POST", "/version", {}))[0] == 405


async def test_an_object_may_be_as_large_as_kube_apiserver_takes_and_no_larger(client: Client) -> None:
    await client.create(CONFIGMAPS, config_map("large", x="x" * (3 * 1024 * 1024 - 1000)))
    status, body = await client.ask("POST", CONFIGMAPS, config_map("larger", x="x" * (3 * 1024 * 1024)))
    assert (status, body["reason"]) == (413, "RequestEntityTooLarge")
    assert body["message"] == "Request entity too large: limit is 3145728"


async def test_a_body_of_no_declared_length_is_limited_too(client: Client) -> None:
    async def endless() -> Any:
        for _ in range(64):
            yield b" " * 65536
            await asyncio.sleep(0)

    async with client.raw("POST", CONFIGMAPS, {"Content-Type": "application/json"}, data=endless()) as response:
        assert response.status == 413


async def test_a_client_that_waits_for_leave_gets_it(client: Client) -> None:
    async with client.raw("POST", CONFIGMAPS, json=config_map("a"), expect100=True) as response:
        assert response.status == 201


@pytest.mark.parametrize("content_type", ["application/yaml", "application/json"])
async def test_json_and_yaml_are_read(client: Client, content_type: str) -> None:
    body = b'{"metadata": {"name": "a"}}'
    async with client.raw("POST", CONFIGMAPS, {"Content-Type": content_type}, data=body) as response:
        assert response.status == 201


BROKEN = [("text/plain", b"{}", 415), ("application/json", b"{", 400), ("application/yaml", b"{", 400)]


@pytest.mark.parametrize(("content_type", "body", "code"), [*BROKEN, (MEDIA_TYPE, b"x", 400)])
async def test_a_body_that_cannot_be_read_is_refused(client: Client, content_type: str, body: bytes, code: int) -> None:
    async with client.raw("POST", CONFIGMAPS, {"Content-Type": content_type}, data=body) as response:
        assert response.status == code

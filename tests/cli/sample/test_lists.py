"""Lists: in pages, selected, as tables."""

from __future__ import annotations

import pytest

from tests.cli.sample.client import CONFIGMAPS, PODS, TABLE, Client, config_map


async def names(client: Client, query: str) -> list[str]:
    return [item["metadata"]["name"] for item in (await client.get(f"{CONFIGMAPS}?{query}"))["items"]]


@pytest.fixture
async def abc(client: Client) -> Client:
    for name in ("a", "b", "c"):
        await client.create(CONFIGMAPS, config_map(name))
    return client


async def test_pages_follow_one_another(abc: Client) -> None:
    first = await abc.get(f"{CONFIGMAPS}?limit=2")
    assert first["metadata"]["remainingItemCount"] == 1
    token = first["metadata"]["continue"]
    await abc.create(CONFIGMAPS, config_map("bb"))
    second = await abc.get(f"{CONFIGMAPS}?limit=2&continue={token}")
    assert [item["metadata"]["name"] for item in second["items"]] == ["bb", "c"]
    assert second["metadata"] == {"resourceVersion": first["metadata"]["resourceVersion"]}


async def test_a_page_that_continues_too_late_has_expired(abc: Client) -> None:
    token = (await abc.get(f"{CONFIGMAPS}?limit=1"))["metadata"]["continue"]
    for number in range(25):
        await abc.create(CONFIGMAPS, config_map(f"more-{number}"))
    status, body = await abc.ask("GET", f"{CONFIGMAPS}?continue={token}")
    assert (status, body["reason"]) == (410, "Expired")


@pytest.mark.parametrize("token", ["!", "bm8=", "WzFd"])
async def test_a_page_after_nothing_known_is_refused(client: Client, token: str) -> None:
    assert (await client.ask("GET", f"{CONFIGMAPS}?continue={token}"))[0] == 400


SELECTED = [
    ("labelSelector=app%3Da", ["a"]),
    ("labelSelector=app%3D%3Da", ["a"]),
    ("labelSelector=app!%3Da", ["b", "c"]),
    ("labelSelector=app+in+(a,c)", ["a", "c"]),
    ("labelSelector=app+notin+(a,c)", ["b"]),
    ("labelSelector=app", ["a", "b", "c"]),
    ("labelSelector=!app", []),
    ("labelSelector=app,app!%3Db", ["a", "c"]),
    ("fieldSelector=metadata.name%3Db", ["b"]),
    ("fieldSelector=metadata.name!%3Db", ["a", "c"]),
]


@pytest.mark.parametrize(("query", "expected"), SELECTED)
async def test_a_selector_selects(abc: Client, query: str, expected: list[str]) -> None:
    assert await names(abc, query) == expected


async def test_a_field_that_cannot_be_selected_by_is_refused(client: Client) -> None:
    status, body = await client.ask("GET", f"{CONFIGMAPS}?fieldSelector=data.x%3D1")
    assert (status, body["message"]) == (400, "field label not supported: data.x")


@pytest.mark.parametrize("query", ["labelSelector=a+is+b", "limit=many", "resourceVersion=old"])
async def test_a_query_that_cannot_be_read_is_refused(client: Client, query: str) -> None:
    assert (await client.ask("GET", f"{CONFIGMAPS}?{query}"))[0] == 400


async def test_a_version_from_the_future_is_not_there_yet(client: Client) -> None:
    status, body = await client.ask("GET", f"{CONFIGMAPS}?resourceVersion=99999999999")
    assert (status, body["details"]["causes"][0]["reason"]) == (504, "ResourceVersionTooLarge")


async def test_a_list_says_what_it_is_a_list_of(abc: Client) -> None:
    found = await abc.get("/api/v1/configmaps")
    assert (found["kind"], found["apiVersion"], len(found["items"])) == ("ConfigMapList", "v1", 4)


async def test_a_table_has_columns_and_the_objects_metadata(client: Client) -> None:
    table = await client.get(PODS, Accept=TABLE)
    assert [c["name"] for c in table["columnDefinitions"]][:3] == ["Name", "Ready", "Status"]
    assert table["rows"][0]["cells"][:3] == ["demo", "1/1", "Running"]
    assert table["rows"][0]["object"]["kind"] == "PartialObjectMetadata"


@pytest.mark.parametrize(("include", "kind"), [("Object", "Pod"), ("None", None)])
async def test_a_table_includes_the_object_that_was_asked_for(client: Client, include: str, kind: str | None) -> None:
    table = await client.get(f"{PODS}/demo?includeObject={include}", Accept=TABLE)
    assert table["rows"][0].get("object", {}).get("kind") == kind


async def test_metadata_alone_can_be_had(client: Client) -> None:
    accept = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
    found = await client.get(PODS, Accept=accept)
    assert found["kind"] == "PartialObjectMetadataList"
    assert found["items"][0].keys() == {"kind", "apiVersion", "metadata"}


@pytest.mark.parametrize("accept", ["application/vnd.kubernetes.protobuf", "application/json;as=Pie;g=x;v=v1"])
async def test_a_form_that_cannot_be_made_is_not_acceptable(client: Client, accept: str) -> None:
    status, body = await client.ask("GET", PODS, Accept=accept)
    assert (status, body["reason"]) == (406, "NotAcceptable")


async def test_what_cannot_be_made_is_passed_over_for_what_can(client: Client) -> None:
    assert (await client.get(PODS, Accept="application/vnd.kubernetes.protobuf,application/json"))["items"]

"""Discovery and OpenAPI, as far as kubectl reads them."""

from __future__ import annotations

from tests.cli.sample.client import Client

AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


async def test_groups_lead_to_versions_and_versions_to_resources(client: Client) -> None:
    for group in (await client.get("/apis"))["groups"]:
        version = group["preferredVersion"]["groupVersion"]
        assert (await client.get(f"/apis/{group['name']}"))["kind"] == "APIGroup"
        assert (await client.get(f"/apis/{version}"))["groupVersion"] == version
    assert (await client.get("/api"))["versions"] == ["v1"]


async def test_pods_have_their_subresources(client: Client) -> None:
    names = {r["name"] for r in (await client.get("/api/v1"))["resources"]}
    assert names >= {"pods", "pods/log", "pods/exec", "namespaces", "configmaps", "events", "nodes"}


async def test_the_plain_form_is_the_fallback_for_the_aggregated_one(client: Client) -> None:
    assert (await client.get("/apis", Accept=f"{AGGREGATED},application/json"))["kind"] == "APIGroupList"


async def test_the_aggregated_form_alone_is_not_acceptable(client: Client) -> None:
    assert (await client.ask("GET", "/apis", Accept=AGGREGATED))[0] == 406


async def test_openapi_says_that_the_server_takes_field_validation(client: Client) -> None:
    index = (await client.get("/openapi/v3"))["paths"]
    document = await client.get(index["api/v1"]["serverRelativeURL"])
    patch = document["paths"]["/api/v1/namespaces/{namespace}/pods/{name}"]["patch"]
    assert patch["x-kubernetes-group-version-kind"] == {"group": "", "version": "v1", "kind": "Pod"}
    assert {p["name"] for p in patch["parameters"]} == {"dryRun", "fieldValidation"}


async def test_the_old_openapi_is_there_too(client: Client) -> None:
    assert (await client.get("/openapi/v2"))["swagger"] == "2.0"
    assert (await client.ask("GET", "/openapi/v3/apis/none"))[0] == 404


async def test_health_is_plain_text(client: Client) -> None:
    for path in ("/healthz", "/livez", "/readyz"):
        assert await client.get(path) == "ok"

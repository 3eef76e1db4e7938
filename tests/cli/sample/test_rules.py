"""Who may do what, and the words of the refusal."""

from __future__ import annotations

import pytest

from tests.cli.sample.client import CONFIGMAPS, NOBODY, PODS, VIEWER, Client, config_map

CAN_I = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
FORBIDDEN = [
    (
        "GET",
        PODS,
        'pods is forbidden: User "bob" cannot list resource "pods" in API group "" in the namespace "default"',
    ),
    (
        "GET",
        f"{PODS}/demo",
        'pods "demo" is forbidden: User "bob" cannot get resource "pods" in API group "" in the namespace "default"',
    ),
    (
        "GET",
        "/api/v1/nodes",
        'nodes is forbidden: User "bob" cannot list resource "nodes" in API group "" at the cluster scope',
    ),
    (
        "GET",
        "/apis/coordination.k8s.io/v1/namespaces/x/leases",
        'leases.coordination.k8s.io is forbidden: User "bob" cannot list resource "leases" in API group '
        '"coordination.k8s.io" in the namespace "x"',
    ),
    ("GET", "/metrics", 'forbidden: User "bob" cannot get path "/metrics"'),
]


@pytest.mark.parametrize(("method", "path", "message"), FORBIDDEN)
async def test_a_stranger_is_refused_in_kube_apiservers_words(
    client: Client, method: str, path: str, message: str
) -> None:
    status, body = await client.to_be(NOBODY).ask(method, path)
    assert (status, body["reason"], body["message"]) == (403, "Forbidden", message)


@pytest.mark.parametrize("path", ["/api", "/apis", "/api/v1", "/version", "/openapi/v3", "/readyz"])
async def test_a_stranger_may_discover(client: Client, path: str) -> None:
    await client.to_be(NOBODY).get(path)


@pytest.mark.parametrize("path", ["/readyz", "/version", "/api/v1/namespaces/kube-system"])
async def test_the_agent_may_look_at_what_it_needs(client: Client, path: str) -> None:
    await client.to_be(()).get(path)


@pytest.mark.parametrize("path", ["/api", "/livez", "/api/v1/namespaces", PODS, "/api/v1/namespaces/default"])
async def test_the_agent_itself_may_do_nothing_else(client: Client, path: str) -> None:
    status, body = await client.to_be(()).ask("GET", path)
    assert (status, body["reason"]) == (403, "Forbidden")


@pytest.mark.parametrize("path", [PODS, f"{PODS}/demo", f"{PODS}/demo/log", CONFIGMAPS, "/api/v1/nodes"])
async def test_a_viewer_reads(client: Client, path: str) -> None:
    await client.to_be(VIEWER).get(path)


async def test_a_viewer_does_not_write(client: Client) -> None:
    status, _ = await client.to_be(VIEWER).ask("POST", CONFIGMAPS, config_map("a"))
    assert status == 403


@pytest.mark.parametrize("path", [f"{PODS}/demo/exec?command=id&stdout=1", "/api/v1/secrets"])
async def test_a_viewer_gets_neither_a_shell_nor_secrets(client: Client, path: str) -> None:
    status, _ = await client.to_be(VIEWER).ask("GET", path)
    assert status == 403


@pytest.mark.parametrize(("verb", "allowed"), [("list", True), ("delete", False)])
async def test_one_may_ask_what_one_may_do(client: Client, verb: str, allowed: bool) -> None:
    spec = {"resourceAttributes": {"verb": verb, "resource": "pods", "namespace": "default"}}
    review = await client.to_be(VIEWER).create(CAN_I, {"spec": spec})
    assert review["status"]["allowed"] is allowed


async def test_one_may_ask_about_a_path(client: Client) -> None:
    spec = {"nonResourceAttributes": {"verb": "get", "path": "/version"}}
    assert (await client.to_be(NOBODY).create(CAN_I, {"spec": spec}))["status"]["allowed"] is True


async def test_a_question_about_nothing_is_refused(client: Client) -> None:
    status, _ = await client.ask("POST", CAN_I, {"spec": {}})
    assert status == 400

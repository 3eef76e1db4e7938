"""Nodes are counted page by page, whatever they look like, and no page fills the memory."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from agent.nodes import MAX_PAGE, PAGE, Count, NoNodes, read_nodes
from tests.agent.apiserver import Client, Script
from tests.agent.conftest import Before


def node(number: int = 0, *, ready: str = "True", padding: int = 0, **spec: Any) -> dict[str, Any]:
    resources = {"cpu": "4", "memory": "16384Ki", "pods": "110", "nvidia.com/gpu": "1"}
    return {
        "metadata": {"name": f"n{number}", "labels": {}, "annotations": {"x": "x" * padding}},
        "spec": {"providerID": f"kind://docker/kind/n{number}", **spec},
        "status": {
            "conditions": [{"type": "MemoryPressure", "status": "True"}, {"type": "Ready", "status": ready}],
            "capacity": resources,
            "allocatable": {**resources, "cpu": "3920m"},
        },
    }


def serving(nodes: list[Any], asked: list[dict[str, str]], code: int = 200) -> Script:
    """An API server with these nodes, that gives no more than it is asked for."""

    async def script(client: Client) -> None:
        while True:
            target = (await client.head()).split(b" ")[1].decode()
            query = {key: values[0] for key, values in parse_qs(urlsplit(target).query).items()}
            asked.append(query)
            start, size = int(query.get("continue", "0")), int(query["limit"])
            more = str(start + size) if start + size < len(nodes) else ""
            page = {"metadata": {"continue": more}, "items": nodes[start : start + size]}
            body = json.dumps(page).encode()
            await client.say(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%b" % (code, len(body), body))

    return script


async def test_all_pages_are_counted_and_summed(before: Before) -> None:
    asked: list[dict[str, str]] = []
    nodes = [node(0, ready="False"), node(1, unschedulable=True), *(node(number) for number in range(2, 120))]
    async with before(serving(nodes, asked)) as world:
        found = await read_nodes(world.pool, 2.0)
    assert found is not None
    assert (found.count, found.ready, found.provider) == (120, 119, "kind")
    assert found.capacity == {"cpu": "480", "memory": f"{120 * 16384}Ki", "pods": "13200"}
    assert found.allocatable["cpu"] == "466480m"
    assert [query["limit"] for query in asked] == [str(PAGE)] * 3


async def test_a_page_that_is_too_long_is_asked_for_in_smaller_ones(before: Before) -> None:
    asked: list[dict[str, str]] = []
    nodes = [node(number, padding=MAX_PAGE // 16) for number in range(20)]
    async with before(serving(nodes, asked)) as world:
        found = await read_nodes(world.pool, 5.0)
    assert found is not None
    assert found.count == 20
    assert asked[-1]["limit"] == "12"


async def test_a_node_that_is_too_long_by_itself_is_said(before: Before) -> None:
    async with before(serving([node(padding=MAX_PAGE)], [])) as world:
        with pytest.raises(NoNodes, match="more than"):
            await read_nodes(world.pool, 5.0)


@pytest.mark.parametrize("code", [401, 403, 404])
async def test_who_may_not_list_them_leaves_them_out(code: int, before: Before) -> None:
    async with before(serving([node()], [], code)) as world:
        assert await read_nodes(world.pool, 2.0) is None


@pytest.mark.parametrize(
    "body", [b"x", b"[]", b"{}", b'{"items":{},"metadata":{}}', b'{"items":[],"metadata":{"continue":3}}']
)
async def test_what_is_no_list_is_said(body: bytes, before: Before) -> None:
    async def script(client: Client) -> None:
        await client.head()
        await client.say(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        await client.rest()

    async with before(script) as world:
        with pytest.raises(NoNodes):
            await read_nodes(world.pool, 2.0)


@pytest.mark.parametrize(
    ("spec", "labels", "provider"),
    [
        ({"providerID": "aws:///eu-west-1a/i-1"}, {}, "aws"),
        ({"providerID": "gce://project/zone/n"}, {}, "gce"),
        ({"providerID": "azure:///subscriptions/x"}, {}, "azure"),
        ({"providerID": "k3s://n"}, {}, "k3s"),
        ({}, {"node.kubernetes.io/instance-type": "rke2"}, "rke2"),
        ({}, {"eks.amazonaws.com/nodegroup": "a"}, "aws"),
        ({"providerID": "BAD \n://x"}, {}, ""),
        ({"providerID": 3}, {"x": "y"}, ""),
    ],
)  # fmt: skip
def test_the_provider_is_what_a_node_says(spec: Any, labels: Any, provider: str) -> None:
    count = Count()
    count.add({"metadata": {"labels": labels}, "spec": spec})
    assert count.result().provider == provider


@pytest.mark.parametrize(
    "odd", [None, [], 3, {"metadata": [], "spec": 1, "status": {"conditions": [1], "capacity": []}}]
)
def test_a_node_of_any_shape_is_one(odd: Any) -> None:
    count = Count()
    count.add(odd)
    assert (count.result().count, count.result().ready, count.result().capacity) == (1, 0, {})

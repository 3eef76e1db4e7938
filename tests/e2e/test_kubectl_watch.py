"""Watches through the gateway: an event arrives when it happens, silence is no failure, and an end is an end."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator

import pytest

from tests.support.cluster import Cluster
from tests.support.kubectl import Running
from tests.support.kubectl_through import Requests, Through, through
from tests.support.platform import Platform

CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"
AT_ONCE = 1.0


@pytest.fixture
def kubectl(platform: Platform, cluster_a: Cluster) -> Through:
    return through(platform, cluster_a)


@pytest.fixture
async def seen(cluster_a: Cluster) -> AsyncIterator[str]:
    """A ConfigMap to watch."""
    await create(cluster_a, "seen")
    yield "seen"
    await cluster_a.api.request("DELETE", f"{CONFIG_MAPS}/seen")


async def create(cluster: Cluster, name: str) -> None:
    metadata = {"name": name, "labels": {"app": "watched"}}
    await cluster.api.create(CONFIG_MAPS, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})


async def change(cluster: Cluster, name: str, value: str) -> None:
    config_map = await cluster.api.get(f"{CONFIG_MAPS}/{name}")
    await cluster.api.request("PUT", f"{CONFIG_MAPS}/{name}", {**config_map, "data": {"value": value}})


async def event(watching: Running) -> tuple[str, ...]:
    """Type and name of the next event, which has to come at once."""
    return tuple((await watching.line(AT_ONCE)).split()[:2])


async def test_each_change_is_seen_when_it_happens(cluster_a: Cluster, kubectl: Through, seen: str) -> None:
    watch = ("get", "configmaps", "-l", "app=watched", "--no-headers", "--watch", "--output-watch-events")
    async with kubectl.running(*watch) as watching:
        assert (await watching.line()).split()[:2] == ["ADDED", seen]
        for value in ("1", "2", "3"):
            await change(cluster_a, seen, value)
            assert await event(watching) == ("MODIFIED", seen)
        await create(cluster_a, "more")
        assert await event(watching) == ("ADDED", "more")
        await cluster_a.api.request("DELETE", f"{CONFIG_MAPS}/more")
        assert await event(watching) == ("DELETED", "more")


async def test_a_quiet_watch_survives_and_is_awake_at_once(cluster_a: Cluster, kubectl: Through, seen: str) -> None:
    async with kubectl.running("get", "configmaps", seen, "-o", "name", "--watch") as watching:
        assert await watching.line() == f"configmap/{seen}"
        with pytest.raises(TimeoutError):
            await watching.line(3)
        assert watching.process.returncode is None
        await change(cluster_a, seen, "awake")
        assert await watching.line(AT_ONCE) == f"configmap/{seen}"


async def test_a_watch_ends_when_its_time_is_up(kubectl: Through, seen: str) -> None:
    began = time.monotonic()
    watch = await kubectl.run("get", "--raw", f"{CONFIG_MAPS}?watch=1&labelSelector=app=watched&timeoutSeconds=2")
    assert 1.9 < time.monotonic() - began < 4
    [added] = [json.loads(line) for line in watch.check().out.splitlines()]
    assert (added["type"], added["object"]["metadata"]["name"]) == ("ADDED", seen)
    assert watch.err == ""


async def test_a_connection_serves_on_after_a_watch_has_ended(platform: Platform, cluster_a: Cluster) -> None:
    asked = [f"{CONFIG_MAPS}?watch=1&timeoutSeconds=1", CONFIG_MAPS, f"{CONFIG_MAPS}?watch=1&timeoutSeconds=1"]
    answers = await Requests(platform, "alpha").get_all(*asked, "/version")
    assert [code for code, _ in answers] == [200] * 4
    direct = await cluster_a.api.get("/version")
    assert json.loads(answers[3][1]) == direct


@pytest.mark.parametrize("query", ["resourceVersion=nonsense", "labelSelector=non=sense=", "sendInitialEvents=true"])
async def test_a_watch_that_is_refused_is_refused_in_the_clusters_words(kubectl: Through, query: str) -> None:
    refused = await kubectl.same("get", "--raw", f"{CONFIG_MAPS}?watch=1&timeoutSeconds=2&{query}")
    assert (refused.returncode, refused.out) == (1, "")


@pytest.mark.usefixtures("seen")
async def test_a_watch_that_lists_first_ends_its_list_with_a_bookmark(kubectl: Through) -> None:
    query = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&timeoutSeconds=1"
    watch = await kubectl.run("get", "--raw", f"{CONFIG_MAPS}?{query}&labelSelector=app=watched")
    events = [json.loads(line) for line in watch.check().out.splitlines()]
    assert [event["type"] for event in events] == ["ADDED", "BOOKMARK"]
    assert events[1]["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}


async def test_fifty_watchers_see_the_same_events(cluster_a: Cluster, platform: Platform, seen: str) -> None:
    """Each has a link of its own or waits for none: one event is one line for all of them."""
    requests = Requests(platform, "alpha")
    connections = [requests.connect() for _ in range(50)]
    query = f"?watch=1&resourceVersion=0&fieldSelector=metadata.name={seen}&timeoutSeconds=20"
    try:
        for connection in connections:
            connection.request("GET", f"{requests.prefix}{CONFIG_MAPS}{query}")
        answers = [await asyncio.to_thread(connection.getresponse) for connection in connections]
        for answer in answers:
            assert json.loads(await asyncio.to_thread(answer.readline))["type"] == "ADDED"
        await change(cluster_a, seen, "all")
        changed = time.monotonic()
        for answer in answers:
            assert json.loads(await asyncio.to_thread(answer.readline))["object"]["data"] == {"value": "all"}
        assert time.monotonic() - changed < AT_ONCE
    finally:
        for connection in connections:
            connection.close()

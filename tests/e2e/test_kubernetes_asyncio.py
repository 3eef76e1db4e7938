"""kubernetes-asyncio with a kubeconfig for the gateway, as a controller in Python uses it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import ClientWebSocketResponse
from kubernetes_asyncio import client, config, watch
from kubernetes_asyncio.stream import WsApiClient

from tests.support.cluster import Cluster
from tests.support.cluster_helpers import create_pod, delete_pod
from tests.support.platform import Platform

AT_ONCE = 1.0
STDIN, STDOUT, STDERR, ERROR, RESIZE = range(5)
Api = Any  # CoreV1Api, whose annotations know nothing of what _preload_content=False returns
EXEC = {"stdin": False, "stdout": True, "stderr": True, "tty": False}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pod(cluster_a: Cluster) -> AsyncIterator[str]:
    await create_pod(cluster_a, "asyncio")
    yield "asyncio"
    await delete_pod(cluster_a, "asyncio")


@pytest.fixture
async def configuration(platform: Platform) -> client.Configuration:
    found = client.Configuration()
    await config.load_kube_config(str(platform.kubeconfig("alpha")), client_configuration=found, persist_config=False)
    return found


@pytest.fixture
async def core(configuration: client.Configuration) -> AsyncIterator[Api]:
    async with client.ApiClient(configuration) as api:
        yield client.CoreV1Api(api)


@pytest.fixture
async def streams(configuration: client.Configuration) -> AsyncIterator[Api]:
    """The same API, whose requests are WebSockets."""
    async with WsApiClient(configuration) as api:
        yield client.CoreV1Api(api)


@pytest.fixture
async def config_map(core: Api) -> AsyncIterator[str]:
    body = client.V1ConfigMap(metadata=client.V1ObjectMeta(name="asyncio", labels={"app": "asyncio"}))
    await core.create_namespaced_config_map("default", body)
    yield "asyncio"
    await core.delete_namespaced_config_map("asyncio", "default")


async def test_it_lists_in_chunks(core: Api, cluster_a: Cluster) -> None:
    names: list[str] = []
    more: str | None = ""
    while more is not None:
        page = await core.list_namespace(limit=2, **({"_continue": more} if more else {}))
        assert len(page.items) <= 2
        names += [item.metadata.name for item in page.items]
        more = page.metadata._continue or None
    direct = await cluster_a.api.get("/api/v1/namespaces")
    assert names == [item["metadata"]["name"] for item in direct["items"]]


async def test_it_reads_and_changes_an_object(core: Api, config_map: str) -> None:
    await core.patch_namespaced_config_map(config_map, "default", {"data": {"a": "1"}})
    found = await core.read_namespaced_config_map(config_map, "default")
    assert found.data == {"a": "1"}
    found.data = {"b": "2"}
    await core.replace_namespaced_config_map(config_map, "default", found)
    with pytest.raises(client.ApiException) as conflict:
        await core.replace_namespaced_config_map(config_map, "default", found)
    assert (conflict.value.status, json.loads(conflict.value.body or "")["reason"]) == (409, "Conflict")


async def test_it_watches_each_change_when_it_happens(core: Api, config_map: str) -> None:
    watching = watch.Watch()
    query: dict[str, Any] = {"label_selector": "app=asyncio", "timeout_seconds": 20}
    stream = watching.stream(core.list_namespaced_config_map, "default", **query)
    try:
        assert (await anext(stream))["type"] == "ADDED"
        for value in ("1", "2", "3"):
            await core.patch_namespaced_config_map(config_map, "default", {"data": {"value": value}})
            async with asyncio.timeout(AT_ONCE):
                event = await anext(stream)
            assert (event["type"], event["object"].data) == ("MODIFIED", {"value": value})
    finally:
        await watching.close()


@pytest.mark.usefixtures("config_map")
async def test_its_watch_ends_when_its_time_is_up(core: Api) -> None:
    began = time.monotonic()
    async with watch.Watch() as watching:
        query: dict[str, Any] = {"label_selector": "app=asyncio", "timeout_seconds": 1}
        events = [event["type"] async for event in watching.stream(core.list_namespaced_config_map, "default", **query)]
    assert events == ["ADDED"]
    assert 0.9 < time.monotonic() - began < 3


async def test_it_follows_logs_line_by_line(core: Api, pod: str, cluster_a: Cluster) -> None:
    log: Path = cluster_a.log_file("default", pod)
    log.write_text("old\n")
    assert await core.read_namespaced_pod_log(pod, "default") == "old\n"
    async with watch.Watch() as watching:
        stream = watching.stream(core.read_namespaced_pod_log, pod, "default")
        assert await anext(stream) == "old\n"
        for number in range(3):
            with log.open("a") as file:
                file.write(f"line {number}\n")
            async with asyncio.timeout(AT_ONCE):
                assert await anext(stream) == f"line {number}\n"
        log.unlink()
        async with asyncio.timeout(AT_ONCE):
            assert [line async for line in stream] == []


async def test_it_runs_a_command(streams: Api, pod: str) -> None:
    command = ["sh", "-c", "echo $CLUSTER $HOSTNAME; echo aside >&2"]
    told = await streams.connect_get_namespaced_pod_exec(pod, "default", command=command, **EXEC)
    assert sorted(told.splitlines()) == ["alpha asyncio", "aside"]


async def test_it_talks_to_a_command_and_learns_its_exit_code(streams: Api, pod: str) -> None:
    command = ["sh", "-c", "read name; echo hello $name; echo aside >&2; exit 3"]
    arguments = {**EXEC, "stdin": True, "command": command, "_preload_content": False}
    received: dict[int, bytes] = {}
    async with await streams.connect_get_namespaced_pod_exec(pod, "default", **arguments) as socket:
        await socket.send_bytes(bytes([STDIN]) + b"you\n")
        await collect(socket, received)
    assert (received[STDOUT], received[STDERR]) == (b"hello you\n", b"aside\n")
    assert WsApiClient.parse_error_data(received[ERROR]) == 3


async def test_its_terminal_changes_its_size(streams: Api, pod: str) -> None:
    command = ["sh", "-c", 'until [ "$(stty size)" = "33 77" ]; do sleep 0.05; done; stty size']
    arguments = {**EXEC, "stdin": True, "tty": True, "command": command, "_preload_content": False}
    received: dict[int, bytes] = {}
    async with await streams.connect_get_namespaced_pod_exec(pod, "default", **arguments) as socket:
        await socket.send_bytes(bytes([RESIZE]) + json.dumps({"Width": 77, "Height": 33}).encode())
        await collect(socket, received)
    assert received[STDOUT] == b"33 77\r\n"
    assert WsApiClient.parse_error_data(received[ERROR]) == 0


async def test_it_is_told_in_the_clusters_words_what_is_not_there(core: Api) -> None:
    with pytest.raises(client.ApiException) as absent:
        await core.read_namespaced_pod("nobody", "default")
    assert absent.value.status == 404
    assert json.loads(absent.value.body or "")["message"] == 'pods "nobody" not found'


async def collect(socket: ClientWebSocketResponse, received: dict[int, bytes]) -> None:
    """Everything that comes until the end, by channel."""
    async with asyncio.timeout(10):
        async for message in socket:
            received[message.data[0]] = received.get(message.data[0], b"") + message.data[1:]

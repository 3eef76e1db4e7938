"""Ports and HTTP through the gateway: `kubectl port-forward` in both of its modes, and `kubectl proxy`."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import aiohttp
import pytest
import pytest_asyncio

from tests.support.cluster import Cluster
from tests.support.cluster_helpers import create_pod, delete_pod
from tests.support.kubectl import SPDY, Running
from tests.support.kubectl_through import Through, through
from tests.support.platform import Platform

MIB = 1 << 20
KIB = 1 << 10
LARGE = 100 * MIB
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture(params=["websocket", "spdy"])
def kubectl(request: pytest.FixtureRequest, platform: Platform, cluster_a: Cluster) -> Through:
    return through(platform, cluster_a, SPDY if request.param == "spdy" else None)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pod(cluster_a: Cluster) -> AsyncIterator[str]:
    await create_pod(cluster_a, "forward")
    yield "forward"
    await delete_pod(cluster_a, "forward")


@asynccontextmanager
async def port_forward(kubectl: Through, pod: str, port: int) -> AsyncIterator[tuple[Running, int]]:
    """A running `kubectl port-forward`, and its local port."""
    async with kubectl.running("port-forward", "--address=127.0.0.1", f"pod/{pod}", f":{port}") as running:
        yield running, int((await running.line()).split(" -> ")[0].rpartition(":")[2])


@asynccontextmanager
async def forwarding(kubectl: Through, pod: str, serve: Serve) -> AsyncIterator[tuple[Running, int]]:
    """A server where the pod listens, and a way there. When kubectl has gone, so have all connections to the server."""
    served: set[asyncio.Task[None] | None] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.add(asyncio.current_task())
        with suppress(ConnectionError):
            await serve(reader, writer)
            writer.close()
            await writer.wait_closed()

    async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
        async with port_forward(kubectl, pod, server.sockets[0].getsockname()[1]) as (running, local):
            yield running, local
        async with asyncio.timeout(5):
            await asyncio.gather(*(task for task in served if task))


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(64 * KIB):
        writer.write(data)
        await writer.drain()


async def ask(port: int, question: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(question)
        writer.write_eof()
        answer = await reader.read()
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()  # after a failure, too: the test's loop is closed soon after it
    return answer


async def test_50_connections_at_once_each_get_their_own_answer(kubectl: Through, pod: str) -> None:
    together = asyncio.Barrier(50)

    async def echo_together(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = await reader.readexactly(1)
        await together.wait()  # all 50 are open at the same time
        writer.write(first)
        await echo(reader, writer)

    questions = [os.urandom(256 * KIB) for _ in range(50)]
    async with forwarding(kubectl, pod, echo_together) as (running, port), asyncio.timeout(30):
        answers = await asyncio.gather(*(ask(port, question) for question in questions))
        assert running.process.returncode is None
    assert answers == questions


async def test_a_download_of_100_mib_is_whole(kubectl: Through, pod: str) -> None:
    payload = os.urandom(LARGE)

    async def download(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.write(payload)
        await writer.drain()

    async with forwarding(kubectl, pod, download) as (_, port), asyncio.timeout(60):
        began = time.monotonic()
        received = await ask(port, b"all of it")
        print(f"download: {LARGE / 1e6 / (time.monotonic() - began):.0f} MB/s")
    assert hashlib.sha256(received).digest() == hashlib.sha256(payload).digest()


async def test_a_connection_stays_open_in_silence_and_answers_at_once(kubectl: Through, pod: str) -> None:
    async with forwarding(kubectl, pod, echo) as (_, port), asyncio.timeout(15):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for pause in (0, 0, 1.5):
            await asyncio.sleep(pause)
            writer.write(b"ping")
            async with asyncio.timeout(5 if pause == 0 else 1):
                assert await reader.readexactly(4) == b"ping"
        writer.close()
        await writer.wait_closed()


async def test_a_port_where_nobody_listens_is_said_to_refuse(kubectl: Through, pod: str) -> None:
    closed = await asyncio.start_server(echo, "127.0.0.1", 0)
    nobody = closed.sockets[0].getsockname()[1]
    closed.close()
    await closed.wait_closed()
    async with port_forward(kubectl, pod, nobody) as (running, local), asyncio.timeout(10):
        with suppress(OSError):  # kubectl closes with or without having read the question: a RST at any step, or an end
            assert await ask(local, b"anybody there") == b""
        said = ""
        while "connection refused" not in said:
            said += (await running.stderr.readline()).decode()


# --- kubectl proxy


@pytest.fixture
async def proxied(platform: Platform, cluster_a: Cluster) -> AsyncIterator[aiohttp.ClientSession]:
    """HTTP without credentials, through `kubectl proxy`."""
    kubectl = through(platform, cluster_a)
    command = ("proxy", "--port=0", "--append-server-path", "--reject-paths=^$")
    async with kubectl.running(*command) as running:
        address = (await running.line()).rpartition(" ")[2]
        async with aiohttp.ClientSession(f"http://{address}") as session:
            yield session


async def test_a_proxy_reaches_the_whole_api(proxied: aiohttp.ClientSession, cluster_a: Cluster, pod: str) -> None:
    for path in ("/version", "/api/v1/namespaces/kube-system", f"/api/v1/namespaces/default/pods/{pod}"):
        async with proxied.get(path) as answer:
            assert (answer.status, await answer.json()) == (200, await cluster_a.api.get(path))
    async with proxied.get("/api/v1/namespaces/default/pods/nobody") as answer:
        assert (answer.status, (await answer.json())["reason"]) == (404, "NotFound")


async def test_a_proxy_writes_and_watches(proxied: aiohttp.ClientSession) -> None:
    path = "/api/v1/namespaces/default/configmaps"
    config_map = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "proxied"}}
    query = {"watch": "1", "fieldSelector": "metadata.name=proxied", "timeoutSeconds": "10"}
    async with proxied.get(path, params=query) as watch, asyncio.timeout(8):
        async with proxied.post(path, json=config_map) as answer:
            assert answer.status == 201
        assert json.loads(await watch.content.readline())["type"] == "ADDED"
        async with proxied.delete(f"{path}/proxied") as answer:
            assert answer.status == 200
        assert json.loads(await watch.content.readline())["type"] == "DELETED"


async def test_a_proxy_carries_exec(proxied: aiohttp.ClientSession, pod: str) -> None:
    path = f"/api/v1/namespaces/default/pods/{pod}/exec"
    async with proxied.ws_connect(f"{path}?command=echo&command=hello&stdout=1", protocols=["v4.channel.k8s.io"]) as ws:
        messages = [message.data async for message in ws]
    assert b"\x01hello\n" in messages
    assert json.loads(messages[-1][1:])["status"] == "Success"

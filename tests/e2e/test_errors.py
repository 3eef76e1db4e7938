"""Whatever is missing, dead or frozen has a Status of its own, in under two seconds, and kubectl prints it."""

from __future__ import annotations

import asyncio
import signal
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager

import pytest

from tests.support.cluster import Cluster
from tests.support.cluster_api import until
from tests.support.cluster_helpers import create_pod, delete_pod
from tests.support.https import Answer, Broken, User, audit_of
from tests.support.platform import Platform

LIST = "/api/v1/namespaces/default/pods"
Kill = Callable[[], Awaitable[None]]
UNSURE = "whether the request took effect is unknown"


RAW = ["get", "--raw", LIST]
BOTH = (["get", "pods"], RAW)


async def kubectl_says(
    platform: Platform, cluster: Cluster, name: str, reason: str, *words: str, commands: Iterable[list[str]] = BOTH
) -> None:
    """With a fresh cache, whose discovery reads no Status, and without discovery: both tell, and both soon."""
    kubeconfig = platform.kubeconfig(name)
    for command in commands:
        began = time.monotonic()
        result = await cluster.kubectl(*command, kubeconfig=kubeconfig, timeout=30)
        assert result.returncode == 1
        assert all(word in result.err for word in words), result.err
        if "--raw" in command:
            assert f"({reason})" in result.err
            assert time.monotonic() - began < 5.0


async def test_a_cluster_that_does_not_exist(platform: Platform, cluster_a: Cluster) -> None:
    answer = await User(platform).get("nowhere")
    answer.expect(404, "NotFound", "gateway", "knows no cluster nowhere", within=0.5)
    assert "retry-after" not in answer.headers
    (record,) = await audit_of(platform, answer.audit_id)
    assert record["responseStatus"]["code"] == 404
    await kubectl_says(platform, cluster_a, "nowhere", "NotFound", "Kulvert's gateway knows no cluster nowhere")


async def test_a_cluster_without_an_agent(platform: Platform, cluster_a: Cluster) -> None:
    platform.join_token("lonely")
    admin = User(platform)

    async def known() -> Answer | None:
        answer = await admin.get("lonely")
        return answer if answer.status != 404 else None

    answer = await until(known, "the registry to be looked at again", 3)
    assert answer
    answer.expect(503, "ServiceUnavailable", "stub", "No agent of cluster lonely is connected", within=0.5)
    assert "retry-after" not in answer.headers  # client-go would try ten times
    await kubectl_says(platform, cluster_a, "lonely", "ServiceUnavailable", "No agent of cluster lonely is connected")


async def test_without_credentials(platform: Platform) -> None:
    admin = User(platform)
    admin.context = ssl.create_default_context(cadata=platform.ca.decode())
    for path in ("/clusters/alpha/api", "/clusters/nowhere/api", "/metrics", "/"):
        answer = await admin.ask("GET", path)
        answer.expect(401, "Unauthorized", "gateway", "does not know you", within=0.5)


# --- an agent that is gone in mid-request


@asynccontextmanager
async def frozen(cluster: Cluster) -> AsyncIterator[None]:
    """An API server that says nothing, until the block ends."""
    cluster.pause_apiserver()
    try:
        yield
    finally:
        cluster.resume_apiserver()


async def test_an_agent_killed_in_mid_request(own_platform: Platform, cluster_a: Cluster) -> None:
    """A read, a write and a half-sent body wait for an answer; logs -f, a watch and a kubectl follow."""
    await own_platform.start_agent(cluster_a)
    await create_pod(cluster_a, "talker")
    log = cluster_a.log_file("default", "talker")
    log.write_text("one\n")
    admin = User(own_platform)
    await admin.works("alpha")
    logs = await admin.connect()
    logs.say("GET", f"/clusters/alpha{LIST}/talker/log?follow=true")
    status, headers = await logs.head()
    assert status == 200
    streams = [headers["audit-id"]]
    watch = await admin.connect()
    watch.say("GET", f"/clusters/alpha{LIST}?watch=true")
    status, headers = await watch.head()
    assert status == 200
    streams.append(headers["audit-id"])
    kubeconfig = own_platform.kubeconfig("alpha")
    async with (
        logs,
        watch,
        await admin.connect() as read,
        await admin.connect() as write,
        await admin.connect() as half,
        cluster_a.commands.running("logs", "-f", "talker", kubeconfig=kubeconfig) as following,
    ):
        assert await following.line() == "one"
        half.say("POST", f"/clusters/alpha{LIST}", "Content-Length: 100000")
        half.writer.write(b"{" * 1000)
        async with frozen(cluster_a):
            read.say("GET", f"/clusters/alpha{LIST}")
            write.say("DELETE", f"/clusters/alpha{LIST}/absent")
            await asyncio.sleep(0.2)
            began = time.monotonic()
            await own_platform.stop_agent("alpha", signal.SIGKILL)
            answers = await asyncio.gather(read.answer(), write.answer(), half.answer())
            for answer in answers:
                answer.expect(502, "InternalError", "stub", "agent of cluster alpha was lost", UNSURE, within=1.0)
                assert "retry-after" not in answer.headers
            assert answers[2].headers["connection"] == "close"
            for stream in (logs, watch):
                rest = await stream.ended(2.0)
                assert not rest.endswith(b"0\r\n\r\n")  # cut, and seen as cut
            assert time.monotonic() - began < 2.0
        assert await following.wait(5) == 1
        assert "unexpected EOF" in (await following.stderr.read()).decode()
        for record in await audit_of(own_platform, *(answer.audit_id for answer in answers), *streams):
            assert "was lost: " in record["annotations"]["kulvert.dev/reason"]
    await kubectl_says(own_platform, cluster_a, "alpha", "ServiceUnavailable", "No agent of cluster alpha is connected")
    await delete_pod(cluster_a, "talker")


# --- an API server that is down, or frozen


async def test_an_api_server_that_is_down(platform: Platform, cluster_b: Cluster) -> None:
    admin = User(platform)
    async with await admin.connect() as follower:
        follower.say("GET", f"/clusters/beta{LIST}?watch=true")
        assert (await follower.head())[0] == 200
        await cluster_b.stop_apiserver(0)
        try:
            with pytest.raises(Broken):
                await follower.body({"transfer-encoding": "chunked"})
            for method in ("GET", "DELETE"):
                answer = await admin.ask(method, f"/clusters/beta{LIST}/absent")
                answer.expect(503, "ServiceUnavailable", "apiserver", "cannot reach its API server: ", "refused")
                assert "retry-after" not in answer.headers
            words = ("The agent cannot reach its API server", "Connection refused")
            await kubectl_says(platform, cluster_b, "beta", "ServiceUnavailable", *words)
        finally:
            await cluster_b.start_apiserver()
    assert await admin.works("beta") < 2.0


async def test_an_api_server_that_is_frozen(platform: Platform, cluster_b: Cluster) -> None:
    admin = User(platform)
    await admin.works("beta")
    async with frozen(cluster_b):
        for _ in range(2):
            answers = await asyncio.gather(
                admin.get("beta"),
                admin.ask("DELETE", f"/clusters/beta{LIST}/absent"),
                admin.ask("POST", f"/clusters/beta{LIST}", "Content-Type: application/json", body=b"{}" * 100_000),
                admin.get("beta", f"{LIST}?watch=true"),
                admin.get("alpha"),
            )
            for answer in answers[:-1]:
                answer.expect(504, "Timeout", "apiserver", "API server did not answer in time", UNSURE)
            assert answers[-1].status == 200
            assert answers[-1].seconds < 0.5
        words = "The API server did not answer in time"  # discovery would try five times, and say the same
        await kubectl_says(platform, cluster_b, "beta", "Timeout", words, commands=[RAW])
    assert await admin.works("beta") < 2.0


async def test_a_slow_answer_is_no_frozen_api_server(platform: Platform) -> None:
    """A body that comes late keeps a request waiting for three seconds: it is answered, not given up."""
    admin = User(platform)
    async with await admin.connect() as slow:
        body = b'{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "slow"}}'
        target = "/clusters/alpha/api/v1/namespaces/default/configmaps?dryRun=All"
        slow.say("POST", target, "Content-Type: application/json", f"Content-Length: {len(body)}")
        for part in (body[:20], body[20:40], body[40:]):
            slow.writer.write(part)
            await asyncio.sleep(1.0)
        answer: Answer = await slow.answer()
        assert answer.status == 201


# --- an agent that is frozen


async def test_an_agent_that_is_frozen(own_platform: Platform, cluster_a: Cluster) -> None:
    agent = await own_platform.start_agent(cluster_a)
    admin = User(own_platform)
    await admin.works("alpha")
    agent.send(signal.SIGSTOP)
    try:
        first = await asyncio.gather(admin.get("alpha"), admin.ask("DELETE", f"/clusters/alpha{LIST}/absent"))
        for answer in first:
            answer.expect(504, "Timeout", "agent", "agent of cluster alpha did not answer in time", UNSURE, within=1.75)
        for _ in range(3):
            answer = await admin.get("alpha")
            answer.expect(503, "ServiceUnavailable", "agent", "connected to Kulvert, but does not answer", within=0.5)
            assert "retry-after" not in answer.headers
        await kubectl_says(own_platform, cluster_a, "alpha", "ServiceUnavailable", "but does not answer")
    finally:
        agent.send(signal.SIGCONT)
    assert await admin.works("alpha") < 1.5

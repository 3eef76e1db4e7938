"""Streams that break off, or that stop for a while: what was lost is never taken for the end of what there was."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio

from tests.support.cluster import Cluster
from tests.support.cluster_helpers import create_pod, delete_pod
from tests.support.kubectl import SPDY
from tests.support.kubectl_through import through
from tests.support.platform import Platform, Usage

MIB = 1 << 20


@pytest.fixture(params=["websocket", "spdy"])
def mode(request: pytest.FixtureRequest) -> dict[str, str]:
    return SPDY if request.param == "spdy" else {}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pod(cluster_a: Cluster) -> AsyncIterator[str]:
    await create_pod(cluster_a, "cut")
    yield "cut"
    await delete_pod(cluster_a, "cut")


@pytest.mark.parametrize("who", ["agent", "server"])
async def test_what_was_cut_off_ends_at_once_and_is_no_success(
    own_platform: Platform, cluster_a: Cluster, pod: str, who: str
) -> None:
    await own_platform.start_agent(cluster_a)
    kubectl = through(own_platform, cluster_a)
    cluster_a.log_file("default", pod).write_text("begun\n")
    async with (
        kubectl.running("exec", pod, "--", "sh", "-c", "echo begun; sleep 30") as command,
        kubectl.running("exec", "-i", pod, "--", "sh", "-c", "echo begun; cat") as interactive,
        kubectl.running("logs", "-f", pod) as logs,
    ):
        cut = (command, interactive, logs)
        for running in cut:
            assert await running.line() == "begun"
        await kill(own_platform, who)
        assert await asyncio.gather(*(running.wait(5) for running in cut)) == [1, 1, 1]
        for running in cut:
            assert b"unexpected EOF" in await running.stderr.read()


async def test_what_was_cut_off_ends_at_once_over_spdy(own_platform: Platform, cluster_a: Cluster, pod: str) -> None:
    """There kubectl takes any end of a connection for success, that of kube-apiserver's own death too: nobody but
    kubectl could tell its user more.
    """
    await own_platform.start_agent(cluster_a)
    kubectl = through(own_platform, cluster_a, SPDY)
    async with kubectl.running("exec", "-i", pod, "--", "sh", "-c", "echo begun; cat") as running:
        assert await running.line() == "begun"
        await kill(own_platform, "agent")
        await running.wait(5)


async def kill(platform: Platform, who: str) -> None:
    if who == "agent":
        await platform.stop_agent("alpha", signal.SIGKILL)
    else:
        await platform.stop_server(signal.SIGKILL)


async def test_everything_works_without_own_links(
    own_platform: Platform, cluster_a: Cluster, pod: str, mode: dict[str, str]
) -> None:
    """Behind a NAT that allows one connection, every stream stays on the shared link, and none holds another up."""
    await own_platform.start_agent(cluster_a, maxLinks=0)
    kubectl = through(own_platform, cluster_a, mode)
    log = cluster_a.log_file("default", pod)
    log.write_text("begun\n")
    payloads = [os.urandom(5 * MIB) for _ in range(3)]
    async with (
        kubectl.running("logs", "-f", pod) as logs,
        kubectl.running("get", "pods", pod, "-o", "name", "--watch") as watch,
        kubectl.running("exec", pod, "--", "sh", "-c", "echo begun; exec cat /dev/zero") as stalled,
    ):
        assert [await running.line() for running in (logs, stalled, watch)] == ["begun", "begun", f"pod/{pod}"]
        backs = await asyncio.gather(*(kubectl.run("exec", "-i", pod, "--", "cat", input=sent) for sent in payloads))
        assert [back.check().stdout == sent for back, sent in zip(backs, payloads, strict=True)] == [True] * 3
        with log.open("a") as file:
            file.write("more\n")
        assert await logs.line(1) == "more"
        (await kubectl.run("label", "pod", pod, "--overwrite", f"links={len(mode)}")).check()
        assert await watch.line(1) == f"pod/{pod}"
    await asyncio.sleep(0.5)  # the endless command ends with its kubectl; an agent that goes first would leave it


async def test_a_reader_that_stopped_holds_no_more_than_its_credit(
    platform: Platform, cluster_a: Cluster, pod: str, mode: dict[str, str]
) -> None:
    """6 kubectls that take nothing of an endless output: a bound on memory, and everybody else goes on."""
    kubectl = through(platform, cluster_a, mode)
    before = resident(platform)
    async with AsyncExitStack() as stack:
        for _ in range(6):
            endless = kubectl.running("exec", pod, "--", "sh", "-c", "echo begun; exec cat /dev/zero")
            assert await (await stack.enter_async_context(endless)).line() == "begun"
        await asyncio.sleep(1)
        assert (await kubectl.run("exec", pod, "--", "echo", "through", timeout=3)).check().out == "through"
        grown = [after - at_first for after, at_first in zip(resident(platform), before, strict=True)]
    print(f"server and agent grew by {[size // MIB for size in grown]} MiB for 6 stalled readers")
    assert max(grown) < 6 * 8 * MIB


def resident(platform: Platform) -> list[int]:
    return [Usage.of(process.pid).rss for process in (platform.server(), platform.agent("alpha"))]

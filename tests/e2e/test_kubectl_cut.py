"""Streams that break off, or that stop for a while: what was lost is never taken for the end of what there was."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.cluster import Cluster
from tests.support.cluster_helpers import create_pod, delete_pod
from tests.support.kubectl import SPDY, Running
from tests.support.kubectl_through import through
from tests.support.platform import Platform


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pod(cluster_a: Cluster) -> AsyncIterator[str]:
    await create_pod(cluster_a, "cut")
    yield "cut"
    await delete_pod(cluster_a, "cut")


async def begun(running: Running) -> Running:
    assert await running.line() == "begun"
    return running


@pytest.mark.parametrize("who", ["agent", "server"])
async def test_a_command_that_was_cut_off_is_no_success(
    own_platform: Platform, cluster_a: Cluster, pod: str, who: str
) -> None:
    await own_platform.start_agent(cluster_a)
    websocket, spdy = through(own_platform, cluster_a), through(own_platform, cluster_a, SPDY)
    log = cluster_a.log_file("default", pod)
    log.write_text("begun\n")
    command = ("exec", pod, "--", "sh", "-c", "echo begun; sleep 30")
    async with (
        websocket.running(*command) as one,
        spdy.running(*command) as two,
        spdy.running("exec", "-i", pod, "--", "sh", "-c", "echo begun; cat") as three,
        websocket.running("logs", "-f", pod) as four,
    ):
        for running in (one, two, three, four):
            await begun(running)
        if who == "agent":
            await own_platform.stop_agent("alpha", signal.SIGKILL)
        else:
            await own_platform.stop_server(signal.SIGKILL)
        codes = await asyncio.gather(*(running.wait() for running in (one, two, three, four)))
        said = [(await running.stderr.read()).decode() for running in (one, two, three, four)]
    assert all(codes), (codes, said)
    assert all(said), (codes, said)

"""Limits that users meet, and that they should not notice: an agent behind a NAT with 64 ports.

It has one shared link, and at most 16 own ones. What finds no own link stays on the shared one, for as long as it
takes, with 64 KiB under way: nobody waits for somebody else's watch or terminal to end.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import ssl
import statistics
import time
from collections.abc import AsyncIterator, Sequence

import pytest

from tests.support.cluster import Cluster
from tests.support.cluster_api import ApiError, until
from tests.support.cluster_helpers import create_namespace, create_pod, delete_pod
from tests.support.execclient import Exec
from tests.support.https import User
from tests.support.kubectl import Result
from tests.support.load import Asking, under_load
from tests.support.loadclient import Client
from tests.support.loadwatch import Watching
from tests.support.platform import Platform, Usage
from tests.support.ports import waiting_ports, watched
from tests.support.tlsof import tls_of
from tunnel.limits import MIB

MAX_LINKS = 16
PORTS = 64
WATCHES = 500
LIGHT = 90
KUBECTL = 10
EVENTS = 20
NAMESPACE = "limits"
OBJECTS = f"/api/v1/namespaces/{NAMESPACE}/configmaps"
POD = "/api/v1/namespaces/default/pods/limits"
LARGE = 40_000
"""Numbers: about 270 kB of output, four times what the shared link's credit covers."""
SMALL = 500
SHORT = 80
FEW = 20
PATIENCE = 10.0
"""Seconds for the slowest GET: this process, on a machine that has others, reads 500 watchers' JSON between two of its
own bytes. Half of the GETs take less than a fifth of that.
"""


@pytest.fixture
async def natted(own_platform: Platform, cluster_a: Cluster) -> AsyncIterator[Platform]:
    """An agent with few links, a pod, and a namespace."""
    await own_platform.start_agent(cluster_a, maxLinks=MAX_LINKS)
    await create_pod(cluster_a, "limits")
    await create_namespace(cluster_a, NAMESPACE)
    await cluster_a.wait_for(lambda: cluster_a.api.get(f"{OBJECTS}/kube-root-ca.crt"), "what every namespace has")
    yield own_platform
    await delete_pod(cluster_a, "limits")
    with contextlib.suppress(ApiError):
        await cluster_a.api.request("DELETE", f"/api/v1/namespaces/{NAMESPACE}")


def numbers(first: int, count: int) -> bytes:
    return b"".join(b"%d\n" % number for number in range(first, first + count))


def command(first: int, count: int) -> tuple[str, ...]:
    """It says all its numbers, waits for a word, repeats it, and says all of them again."""
    seq = f"seq {first} {first + count - 1}"
    return ("sh", "-c", f"{seq}; read word; echo $word; {seq}")


def expected(first: int, count: int) -> bytes:
    return numbers(first, count) + b"go\n" + numbers(first, count)


async def create(cluster: Cluster, name: str) -> str:
    """Gives its resourceVersion."""
    made = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"text": "x" * 200}}
    return str((await cluster.api.create(OBJECTS, made))["metadata"]["resourceVersion"])


class Terminals:
    """Execs that all run at once: each has said its first half before the first one is told to go on."""

    def __init__(self, platform: Platform, cluster: Cluster, url: str, tls: ssl.SSLContext) -> None:
        self._platform = platform
        self._cluster = cluster
        self._light = [Exec(url, tls, "limits", command(one * 100_000, self.count(one))) for one in range(1, LIGHT + 1)]
        self._half = asyncio.Event()
        self.told: list[float] = []
        """Seconds until each had said its first half."""

    @staticmethod
    def count(number: int) -> int:
        return LARGE if number % 9 == 0 else SMALL

    async def run(self) -> None:
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            kubectl = [group.create_task(self._kubectl(number)) for number in range(1_000, 1_000 + KUBECTL)]
            light = [group.create_task(self._run(one, number, began)) for number, one in enumerate(self._light, 1)]
            await until(self._all_said, "all terminals to be there", 60.0)
            self._half.set()
        for number, task in enumerate(kubectl, 1_000):
            result = task.result().check()
            assert hashlib.sha256(result.stdout).digest() == hashlib.sha256(expected(number, SMALL)).digest()
        assert all(task.done() for task in light)

    async def _all_said(self) -> bool:
        return len(self.told) == LIGHT

    async def _run(self, one: Exec, number: int, began: float) -> None:
        first, count = number * 100_000, self.count(number)
        async with one:
            await one.said(len(numbers(first, count)))
            self.told.append(time.monotonic() - began)
            await self._half.wait()
            await one.say(b"go\n")
            await one.end()
        assert bytes(one.out) == expected(first, count), f"terminal {number}: {len(one.out)} bytes, {one.status}"
        assert one.status["status"] == "Success"

    async def _kubectl(self, number: int) -> Result:
        """In a few at a time: each is a large process."""
        kubeconfig = self._platform.kubeconfig("alpha")
        return await self._cluster.kubectl("exec", "-i", "limits", "--", *command(number, SMALL),
                                           kubeconfig=kubeconfig, input=b"go\n", timeout=120)  # fmt: skip


def told(what: str, seconds: Sequence[float]) -> str:
    return f"{what}: p50 {1000 * statistics.median(seconds):.0f} ms, max {1000 * max(seconds):.0f} ms of {len(seconds)}"


async def test_five_hundred_watches_and_a_hundred_terminals_share_sixteen_links(
    natted: Platform, cluster_a: Cluster
) -> None:
    url, tls = f"{natted.url}/clusters/alpha", tls_of(natted)
    agent, server = natted.agent("alpha").pid, natted.server().pid
    before = {"server": Usage.of(server), "agent": Usage.of(agent)}
    watchers = [Watching(Client(url, tls), OBJECTS) for _ in range(WATCHES)]
    direct_tls = ssl.create_default_context(cafile=str(cluster_a.ca_file))
    direct_tls.load_cert_chain(cluster_a.files.admin.cert, cluster_a.files.admin.key)
    direct = Watching(Client(cluster_a.server, direct_tls), OBJECTS)
    await direct.list()
    for watcher in watchers:
        watcher.start = watcher.version = direct.version
    readers = [Asking(Client(url, tls), [POD, OBJECTS], 0.05) for _ in range(4)]
    async with watched(agent, natted.agents_port) as ports:
        async with under_load([*watchers, direct]):
            began = time.monotonic()
            there = await create(cluster_a, "there")
            for watcher in watchers:
                await watcher.until(there, 60.0)
            print(f"{WATCHES} watches are there after {time.monotonic() - began:.1f} s")
            async with under_load(readers):
                terminals = Terminals(natted, cluster_a, url, tls)
                running = asyncio.create_task(terminals.run())
                events: list[float] = []
                for number in range(EVENTS):
                    began = time.monotonic()
                    version = await create(cluster_a, f"event-{number}")
                    for watcher in watchers:
                        await watcher.until(version, 30.0)
                    events.append(time.monotonic() - began)
                await running
                after = {"server": Usage.of(server), "agent": Usage.of(agent)}
            await direct.until(version)
        print(told("a ConfigMap to the last of all watchers", events))
    waited = [one.seconds for reader in readers for one in reader.outcomes]
    print(told("GETs meanwhile", waited))
    print(told("a terminal's first half", terminals.told))
    print(f"ports: {ports.most} at a time, {len(ports.used)} in all, {len(waiting_ports(natted.agents_port))} waiting")
    for name, usage in after.items():
        grown = usage.rss - before[name].rss
        print(
            f"{name}: {grown / MIB:.0f} MiB more, {usage.cpu - before[name].cpu:.1f} s of CPU, {usage.fds} descriptors"
        )
        assert grown < 200 * MIB
    assert [one.why for reader in readers for one in reader.failed()] == []
    assert max(waited) < PATIENCE
    assert statistics.median(waited) < PATIENCE / 5
    assert [one for watcher in watchers for one in (*watcher.cut, *watcher.refused)] == []
    assert all(watcher.events == direct.events for watcher in watchers)
    assert len(direct.events) == EVENTS + 1
    assert ports.most <= 1 + MAX_LINKS


async def test_watches_that_come_and_go_leave_a_nat_its_ports(natted: Platform) -> None:
    """Each that is cut takes its own link with it, whose port a NAT keeps for two minutes; this takes seconds."""
    user, agent = User(natted), natted.agent("alpha").pid
    quick = []
    async with watched(agent, natted.agents_port, 0.005) as ports:
        for _ in range(SHORT):
            async with await user.connect() as connection:
                connection.say("GET", f"/clusters/alpha{OBJECTS}?watch=1")
                status, _ = await connection.head()
                assert status == 200
            began = time.monotonic()
            assert (await user.get("alpha")).status == 200
            quick.append(time.monotonic() - began)
        await asyncio.sleep(0.5)
    print(told("GETs between", quick))
    print(f"ports: {ports.most} at a time, {len(ports.used)} in all, after {SHORT} watches")
    assert ports.most <= 1 + MAX_LINKS
    assert 1 + MAX_LINKS < len(ports.used) <= PORTS - 1, "one has to be left for the next shared link"
    assert max(quick) < PATIENCE


async def test_an_agent_that_has_all_it_takes_says_so_and_goes_on_when_something_ends(
    own_platform: Platform, cluster_a: Cluster
) -> None:
    await own_platform.start_agent(cluster_a, exchanges=FEW)
    user, path = User(own_platform), "/clusters/alpha/api/v1/namespaces/default/configmaps?watch=1"
    async with contextlib.AsyncExitStack() as stack:
        open_ones = []
        for _ in range(FEW):
            connection = await stack.enter_async_context(await user.connect())
            connection.say("GET", path)
            assert (await connection.head())[0] == 200
            open_ones.append(connection)
        refused = await user.get("alpha")
        assert (refused.status, refused.json["reason"]) == (429, "TooManyRequests")
        assert "have all they can take; try again" in refused.json["message"]
        assert refused.headers["retry-after"] == "1"
        await open_ones[0].__aexit__(None, None, None)

        async def served() -> bool:
            return (await user.get("alpha")).status == 200

        await until(served, "the agent to take more", 5.0)

"""Processes killed, links cut and frozen: every client ends with an error, kubectl works again within five seconds,
and nothing is left behind."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import pytest

from tests.support.cluster import Cluster
from tests.support.cluster_api import until
from tests.support.cluster_helpers import create_pod, delete_pod
from tests.support.cuttable import Cuttable
from tests.support.https import Broken, Https, User, children
from tests.support.kubectl import Running
from tests.support.platform import Platform, Usage
from tests.support.processes import Process

RECOVERY = 5.0
PODS = "/clusters/alpha/api/v1/namespaces/default/pods"


@pytest.fixture
async def talker(cluster_a: Cluster) -> AsyncIterator[Cluster]:
    """Alpha, with a pod that talks."""
    await create_pod(cluster_a, "talker")
    cluster_a.log_file("default", "talker").write_text("one\n")
    yield cluster_a
    await delete_pod(cluster_a, "talker")


@dataclass
class Clients:
    """One of each kind, in the middle of something."""

    streams: list[Https]
    programs: list[Running]

    async def end(self, within: float, *, in_order: bool | None = False) -> None:
        """All of them end, with an error, in time: nothing hangs, and nothing that was cut passes for whole. `in_order`
        is an agent that stops: it ends watches between two events. None: a server that did not get to that, perhaps.
        """
        began, (logs, watch) = time.monotonic(), self.streams
        async with asyncio.timeout(within):
            assert not (await logs.ended(within)).endswith(b"0\r\n\r\n")
            if in_order:
                await watch.answered_end(within)
            else:
                rest = await watch.ended(within)
                assert in_order is None or not rest.endswith(b"0\r\n\r\n")
            codes = await asyncio.gather(*(program.process.wait() for program in self.programs))
        assert 0 not in codes
        print(f"clients ended within {time.monotonic() - began:.2f} s, kubectl by {codes}")


@asynccontextmanager
async def busy(platform: Platform, cluster: Cluster) -> AsyncIterator[Clients]:
    """logs -f and a watch by raw HTTP; logs -f, get -w, exec and port-forward by kubectl."""
    admin = User(platform)
    kubeconfig = platform.kubeconfig("alpha")
    async with AsyncExitStack() as stack:
        streams = []
        for target in (f"{PODS}/talker/log?follow=true", f"{PODS}?watch=true"):
            stream = await stack.enter_async_context(await admin.connect())
            stream.say("GET", target)
            assert (await stream.head())[0] == 200
            streams.append(stream)
        programs = []
        for command in (
            ["logs", "-f", "talker"],
            ["exec", "talker", "--", "sh", "-c", "echo one; sleep 60"],
        ):
            program = await stack.enter_async_context(cluster.commands.running(*command, kubeconfig=kubeconfig))
            assert await program.line() == "one"
            programs.append(program)
        yield Clients(streams, programs)


async def quiet(process: Process, usage: Usage) -> None:
    """A process has given back what it held; nothing that it started is left.

    An agent keeps connections to its API server for 55 s: as many as kubectl's discovery used at a time. Two own links
    stay warm at both ends once a stream has wanted one.
    """
    kept = 4 if process.name.startswith("agent") else 2

    async def back() -> bool:
        return Usage.of(process.pid).fds <= usage.fds + kept

    try:
        await until(back, "descriptors to be closed", 12)
    except TimeoutError:
        raise AssertionError(f"{process.name}: {Usage.of(process.pid).fds} descriptors, had {usage.fds}") from None
    assert children(process.pid) == []


async def kubectl_works(platform: Platform, cluster: Cluster) -> None:
    result = await cluster.kubectl("get", "pods", "-o", "name", kubeconfig=platform.kubeconfig("alpha"))
    assert "pod/talker" in result.check().out.split()


async def settled(platform: Platform, admin: User) -> tuple[Usage, Usage]:
    """What server and agent hold at rest, warm links and a kept connection to the API server included."""
    for _ in range(3):
        await admin.works("alpha")
    await asyncio.sleep(0.3)
    return Usage.of(platform.server().pid), Usage.of(platform.agent("alpha").pid)


async def test_an_agent_killed_and_started_again(own_platform: Platform, talker: Cluster) -> None:
    await own_platform.start_agent(talker)
    admin = User(own_platform)
    server, _ = await settled(own_platform, admin)
    async with busy(own_platform, talker) as clients:
        await own_platform.stop_agent("alpha", signal.SIGKILL)
        await clients.end(3.0)
    answer = await admin.get("alpha")
    answer.expect(503, "ServiceUnavailable", "stub", "No agent of cluster alpha is connected")
    await own_platform.restart_agent("alpha")
    seconds = await admin.works("alpha", RECOVERY)
    print(f"works {seconds:.2f} s after the new agent is ready")
    await kubectl_works(own_platform, talker)
    await quiet(own_platform.server(), server)


@pytest.mark.parametrize("how", ["SIGKILL", "SIGTERM twice"])
async def test_a_server_that_ends_and_starts_again(own_platform: Platform, talker: Cluster, how: str) -> None:
    await own_platform.start_agent(talker)
    admin = User(own_platform)
    _, agent = await settled(own_platform, admin)
    async with busy(own_platform, talker) as clients:
        server = own_platform.server()
        if how == "SIGKILL":
            server.send(signal.SIGKILL)
        else:
            server.send(signal.SIGTERM)
            await asyncio.sleep(0.3)
            assert server.exited is None  # what is under way may finish
            server.send(signal.SIGTERM)
        await clients.end(3.0, in_order=False if how == "SIGKILL" else None)
        await until(lambda: _gone(server), "the server to end", 3)
        await own_platform.stop_server()
    await own_platform.start_server()
    seconds = await admin.works("alpha", RECOVERY)
    print(f"{how}: works {seconds:.2f} s after the server is ready")
    await kubectl_works(own_platform, talker)
    await quiet(own_platform.agent("alpha"), agent)


async def _gone(process: Process) -> bool:
    return process.exited is not None


async def test_a_server_that_stops_in_order_finishes_what_is_under_way(own_platform: Platform, talker: Cluster) -> None:
    """SIGTERM, while a request waits for the rest of its body and a log is followed: both end whole."""
    await own_platform.start_agent(talker)
    admin = User(own_platform)
    await settled(own_platform, admin)
    body = b'{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "late"}}'
    async with await admin.connect() as late, await admin.connect() as following:
        following.say("GET", f"{PODS}/talker/log?follow=true")
        _, headers = await following.head()
        target = "/clusters/alpha/api/v1/namespaces/default/configmaps?dryRun=All"
        late.say("POST", target, "Content-Type: application/json", f"Content-Length: {len(body)}")
        late.writer.write(body[:10])
        await asyncio.sleep(0.2)
        server = own_platform.server()
        server.send(signal.SIGTERM)
        await asyncio.sleep(1.5)  # the agent has been told, and knocks at the door again and again
        with pytest.raises(OSError):
            await admin.get("alpha")
        late.writer.write(body[10:])
        answer = await late.answer()
        assert (answer.status, answer.headers["connection"]) == (201, "close")
        talker.log_file("default", "talker").unlink()
        assert await following.body(headers) == b"one\n"
    await until(lambda: _gone(server), "the server to end", 5)
    assert server.exited == 0
    await own_platform.stop_server()
    await own_platform.start_server()
    seconds = await admin.works("alpha", RECOVERY)
    print(f"SIGTERM: works {seconds:.2f} s after the server is ready")


@pytest.mark.parametrize("signals", [1, 2])
async def test_an_agent_that_stops_ends_within_its_patience(
    own_platform: Platform, talker: Cluster, signals: int
) -> None:
    """Live streams do not keep it: after its patience they are cut; a second signal does not wait for that."""
    process = await own_platform.start_agent(talker, drain=2)
    admin = User(own_platform)
    server, _ = await settled(own_platform, admin)
    async with busy(own_platform, talker) as clients:
        began = time.monotonic()
        process.send(signal.SIGTERM)
        if signals == 1:
            await asyncio.sleep(0.5)
            assert process.exited is None
            refused = await admin.get("alpha")
            refused.expect(503, "ServiceUnavailable", "stub", "No agent of cluster alpha")
        else:
            await asyncio.sleep(0.3)
            process.send(signal.SIGTERM)
        await until(lambda: _gone(process), "the agent to end", 5)
        seconds = time.monotonic() - began
        print(f"{signals} signals: the agent ended after {seconds:.2f} s")
        assert (2.0 <= seconds < 4.0) if signals == 1 else seconds < 2.0
        await clients.end(3.0, in_order=True)
    assert not process.alive
    await quiet(own_platform.server(), server)
    await own_platform.stop_agent("alpha")


async def test_a_link_cut_in_mid_stream(own_platform: Platform, talker: Cluster) -> None:
    """A reset of all of the agent's connections: both ends see it at once, and the agent comes back by itself."""
    async with Cuttable(own_platform.agents_port) as between:
        await own_platform.start_agent(talker, servers=[f"https://localhost:{between.port}"])
        admin = User(own_platform)
        server, agent = await settled(own_platform, admin)
        async with busy(own_platform, talker) as clients, await admin.connect() as half:
            half.say("POST", PODS, "Content-Length: 1000")
            half.writer.write(b"{" * 10)
            await asyncio.sleep(0.2)
            assert between.connections >= 3
            began = time.monotonic()
            between.cut()
            answer = await half.answer()
            answer.expect(502, "InternalError", "stub", "agent of cluster alpha was lost", within=1.0)
            await clients.end(3.0)
            await admin.works("alpha", RECOVERY)
            seconds = time.monotonic() - began
            print(f"works {seconds:.2f} s after the cut")
            assert seconds < RECOVERY
        await kubectl_works(own_platform, talker)
        await quiet(own_platform.server(), server)
        await quiet(own_platform.agent("alpha"), agent)
        await own_platform.stop_agent("alpha")


async def test_a_network_that_drops_everything_for_a_while(own_platform: Platform, talker: Cluster) -> None:
    """Without a RST nobody is told; requests fail in time all the same, and streams go on where they were."""
    async with Cuttable(own_platform.agents_port) as between:
        await own_platform.start_agent(talker, servers=[f"https://localhost:{between.port}"])
        admin = User(own_platform)
        server, agent = await settled(own_platform, admin)
        async with await admin.connect() as following:
            following.say("GET", f"{PODS}/talker/log?follow=true")
            await following.head()
            between.freeze()
            answer = await admin.get("alpha")
            answer.expect(504, "Timeout", "agent", "did not answer in time", within=1.75)
            answer = await admin.get("alpha")
            answer.expect(503, "ServiceUnavailable", "agent", "does not answer", within=0.5)
            with talker.log_file("default", "talker").open("a") as log:
                log.write("two\n")
            between.thaw()
            seconds = await admin.works("alpha", RECOVERY)
            print(f"works {seconds:.2f} s after the thaw")
            assert seconds < 1.5
            async with asyncio.timeout(3):
                assert await following.reader.readuntil(b"two\n")
            talker.log_file("default", "talker").unlink()
            assert await following.answered_end() == b"0\r\n\r\n"
        await quiet(own_platform.server(), server)
        await quiet(own_platform.agent("alpha"), agent)
        await own_platform.stop_agent("alpha")


async def test_clients_that_vanish_leave_nothing(own_platform: Platform, talker: Cluster) -> None:
    """Fifty of each kind are killed at once; server, agent and API server let go of what they had for them."""
    await own_platform.start_agent(talker)
    admin = User(own_platform)
    server, agent = await settled(own_platform, admin)
    connections = [await admin.connect() for _ in range(100)]
    for n, connection in enumerate(connections):
        connection.say("GET", f"{PODS}/talker/log?follow=true" if n % 2 else f"{PODS}?watch=true")
    await asyncio.gather(*(connection.head() for connection in connections))

    async def all_have_own_links() -> bool:
        return Usage.of(own_platform.server().pid).fds >= server.fds + 200

    await until(all_have_own_links, "each stream to have its own link", 10)
    for connection in connections:
        connection.writer.transport.abort()
    began = time.monotonic()
    await quiet(own_platform.server(), server)
    await quiet(own_platform.agent("alpha"), agent)
    print(f"everything is given back within {time.monotonic() - began:.2f} s")
    with pytest.raises(Broken):
        await connections[0].answer()

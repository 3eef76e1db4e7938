"""Readers that have stopped reading: two hundred of them hold what the limits say, and nobody waits for them.

One slow reader of `logs -f` that stalls everybody is the most reported defect of gateways with one shared connection.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from gateway.limits import DoorLimits
from tests.support.cluster import Cluster
from tests.support.cluster_api import until
from tests.support.cluster_helpers import create_pod, delete_pod
from tests.support.https import Https, User
from tests.support.platform import Platform, Usage
from tunnel.limits import KIB, MIB, LinkLimits

READERS = 200
RECEIVE = 4 * KIB
"""The clients' socket buffers: they stall early."""
OUTPUT = 4 * MIB
LOG = "/clusters/alpha/api/v1/namespaces/default/pods/talker/log?follow=true"

LIMITS = LinkLimits()
TLS_READ = 256 * KIB
"""uvloop's SSL_READ_MAX_SIZE: the buffer that each TLS connection reads into, and the most that one read gives."""


def bio(most: int) -> int:
    """OpenSSL's memory BIO, which grows by a third at a time and never shrinks, when it has held so much."""
    return most * 4 // 3


COMMITTED = LIMITS.transport_buffer + LIMITS.frame_payload
"""What a link hands to its transport: up to the high-water mark, and the frame that crosses it."""
TO_CLIENT = LIMITS.own_credit + DoorLimits().write_buffer
"""The client's transport takes what the agent may send without new credit, beyond its own high-water mark."""
SERVER = TLS_READ + bio(TLS_READ) + TO_CLIENT + bio(TO_CLIENT)
"""For each reader: the own link, which is read, and the client's connection, which is full."""
AGENT = TLS_READ + bio(TLS_READ) + LIMITS.send_queue + TLS_READ + COMMITTED + bio(COMMITTED)
"""For each reader: the API server's connection, the exchange's queue and the read that filled it, the own link."""
SLACK = 32 * MIB
"""The processes' own growth (allocator, imports on first use), whatever the number of readers."""


@pytest.fixture
async def talker(own_platform: Platform, cluster_a: Cluster) -> AsyncIterator[Platform]:
    """A pod that will say plenty, and an agent."""
    await own_platform.start_agent(cluster_a)
    await create_pod(cluster_a, "talker")
    cluster_a.log_file("default", "talker").write_bytes(b"begin\n")
    yield own_platform
    await delete_pod(cluster_a, "talker")


async def measure(connection: Https, seconds: float) -> list[float]:
    """GETs, one after the other; each has to succeed. Their times, sorted."""
    times = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        answer = await connection.ask("GET", "/clusters/alpha/api/v1/namespaces/default")
        assert answer.status == 200
        times.append(answer.seconds)
        await asyncio.sleep(0.005)
    return sorted(times)


async def stalled(admin: User) -> Https:
    """A reader that has read the beginning, and then stops."""
    reader = await admin.connect(receive=RECEIVE)
    reader.say("GET", LOG)
    assert (await reader.head())[0] == 200
    return reader


async def test_two_hundred_stalled_readers_hold_a_bounded_memory_and_delay_nobody(
    talker: Platform, cluster_a: Cluster
) -> None:
    admin = User(talker)
    server, agent = talker.server().pid, talker.agent("alpha").pid
    asking = await admin.connect()
    before_times = await measure(asking, 1.5)
    before = Usage.of(server), Usage.of(agent)
    readers: list[Https] = []
    for _ in range(READERS // 20):
        readers += await asyncio.gather(*(stalled(admin) for _ in range(20)))
    attached = Usage.of(server), Usage.of(agent)
    with cluster_a.log_file("default", "talker").open("ab") as log:
        for _ in range(OUTPUT // MIB):
            log.write(b"x" * 1023 * KIB + b"\n" * KIB)
    flood = await measure(asking, 4.0)
    await _settled(server, agent)
    during = await measure(asking, 2.0)
    after = Usage.of(server), Usage.of(agent)
    print(f"GET p50/p99 ms: before {_shown(before_times)}, flood {_shown(flood)}, stalled {_shown(during)}")
    for name, bound, *used in zip(("server", "agent"), (SERVER, AGENT), before, attached, after, strict=True):
        rss = [one.rss / MIB for one in used]
        each = (used[2].rss - used[0].rss) / READERS / KIB
        print(f"{name}: RSS MiB {rss}, each reader {each:.0f} KiB of {bound // KIB}")
    for name, bound, one, other in zip(("server", "agent"), (SERVER, AGENT), before, after, strict=True):
        grown = other.rss - one.rss
        assert grown < READERS * bound + SLACK, f"{name}: {grown / MIB:.0f} MiB"
    assert flood[-1] < 5.0  # both processes work as fast as they can, and yet everybody has a turn
    middle = len(during) // 2
    assert during[middle] < max(0.05, 4 * before_times[len(before_times) // 2])
    assert during[-1] < 1.0
    for reader in readers:
        async with reader:
            pass
    await _back(server, before[0].fds, agent, before[1].fds)
    assert (await asking.ask("GET", "/clusters/alpha/version")).status == 200
    async with asking:
        pass


def _shown(times: list[float]) -> str:
    return f"{times[len(times) // 2] * 1e3:.1f}/{times[int(len(times) * 0.99)] * 1e3:.1f} ({len(times)})"


async def _settled(*pids: int) -> None:
    """Nothing flows any more: the processes have nothing to do."""

    async def idle() -> bool:
        first = [Usage.of(pid).cpu for pid in pids]
        await asyncio.sleep(0.3)
        return all(Usage.of(pid).cpu - one < 0.1 for pid, one in zip(pids, first, strict=True))

    await until(idle, "the flow to stop", 20)


async def _back(server: int, server_fds: int, agent: int, agent_fds: int) -> None:
    """Descriptors are back where they were; own links beyond the two warm ones may stay for 10 s."""

    async def back() -> bool:
        return Usage.of(server).fds <= server_fds + 3 and Usage.of(agent).fds <= agent_fds + 3

    await until(back, "descriptors to be closed", 15)

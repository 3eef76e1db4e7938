"""Logs through the gateway: whole, the last of them, and followed line by line."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.cluster import Cluster
from tests.support.cluster_helpers import create_pod, delete_pod
from tests.support.kubectl_through import Requests, Through, through
from tests.support.platform import Platform

MIB = 1 << 20
AT_ONCE = 1.0


@pytest.fixture
def kubectl(platform: Platform, cluster_a: Cluster) -> Through:
    return through(platform, cluster_a)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pod(cluster_a: Cluster) -> AsyncIterator[str]:
    await create_pod(cluster_a, "logging")
    yield "logging"
    await delete_pod(cluster_a, "logging")


@pytest.fixture
async def log(cluster_a: Cluster, pod: str) -> AsyncIterator[Path]:
    """What the container logs."""
    path = cluster_a.log_file("default", pod)
    path.touch()
    yield path
    path.unlink(missing_ok=True)


def append(log: Path, text: str) -> None:
    with log.open("a") as file:
        file.write(text)


async def test_logs_are_all_that_was_logged_or_the_last_of_it(kubectl: Through, pod: str, log: Path) -> None:
    assert (await kubectl.same("logs", pod)).check().stdout == b""
    append(log, "one\ntwo\nthrée\n")
    assert (await kubectl.same("logs", pod)).check().out == "one\ntwo\nthrée"
    assert (await kubectl.same("logs", pod, "--tail=2")).check().out == "two\nthrée"


async def test_logs_of_100_mib_arrive_whole(kubectl: Through, pod: str, log: Path) -> None:
    with log.open("wb") as file:
        for _ in range(100):
            file.write(os.urandom(MIB // 2).hex().encode())
    logged = await kubectl.run("logs", pod)
    assert len(logged.check().stdout) == 100 * MIB
    assert hashlib.sha256(logged.stdout).digest() == hashlib.sha256(log.read_bytes()).digest()


async def test_followed_logs_bring_each_line_at_once(kubectl: Through, pod: str, log: Path) -> None:
    append(log, "old\n")
    delays = []
    async with kubectl.running("logs", "-f", pod) as following:
        assert await following.line() == "old"
        for number in range(20):
            await asyncio.sleep(0.03)
            appended = time.monotonic()
            append(log, f"line {number}\n")
            assert await following.line(AT_ONCE) == f"line {number}"
            delays.append(time.monotonic() - appended)
        log.unlink()
        assert await following.wait() == 0
        assert await following.line() == ""
    print(f"slowest line: {max(delays) * 1000:.0f} ms")


async def test_a_line_is_not_held_back_until_it_is_complete(platform: Platform, pod: str, log: Path) -> None:
    """kubectl itself waits for the end of a line, so this asks without it."""
    requests = Requests(platform, "alpha")
    connection = requests.connect()
    try:
        connection.request("GET", f"{requests.prefix}/api/v1/namespaces/default/pods/{pod}/log?follow=true")
        answer = await asyncio.to_thread(connection.getresponse)
        for piece in (b"no", b" newline", b" yet"):
            append(log, piece.decode())
            async with asyncio.timeout(AT_ONCE):
                assert await asyncio.to_thread(answer.read1, 100) == piece
        log.unlink()
        assert await asyncio.to_thread(answer.read) == b""
    finally:
        connection.close()


async def test_followed_logs_survive_silence(kubectl: Through, pod: str, log: Path) -> None:
    async with kubectl.running("logs", "-f", pod) as following:
        append(log, "before\n")
        assert await following.line() == "before"
        with pytest.raises(TimeoutError):
            await following.line(2)
        append(log, "after\n")
        assert await following.line(AT_ONCE) == "after"


async def test_one_reader_that_stopped_delays_no_other(kubectl: Through, pod: str, log: Path) -> None:
    """konnectivity's most-reported defect: followers that do not read what is logged hold everybody up."""
    async with AsyncExitStack() as stack:
        stalled = [await stack.enter_async_context(kubectl.running("logs", "-f", pod)) for _ in range(5)]
        append(log, "begin\n")
        for following in stalled:
            assert await following.line() == "begin"
        log.write_bytes(b"begin\n" + b"x" * (20 * MIB) + b"\n")
        await asyncio.sleep(0.5)  # their pipes, and all that lies before them, fill up
        reading = await stack.enter_async_context(kubectl.running("logs", "-f", "--tail=1", pod))
        assert len(await reading.stdout.readexactly(20 * MIB + 1)) == 20 * MIB + 1
        append(log, "more\n")
        assert await reading.line(AT_ONCE) == "more"
        began = time.monotonic()
        (await kubectl.run("get", "pod", pod)).check()
        assert time.monotonic() - began < 2

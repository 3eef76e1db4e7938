"""The server as a whole: it starts, says what it is, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
import ssl
import threading
from pathlib import Path

import aiohttp
import pytest
import yaml

from cli.sample import SampleServer
from cli.sample.seed import demo_command
from tests.cli.sample.client import PODS, Client


def children() -> set[int]:
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except OSError:
                continue
            if int(stat.rpartition(")")[2].split()[1]) == os.getpid():
                found.add(int(entry.name))
    return found


async def test_it_says_everywhere_that_it_is_a_sample(client: Client, sample: SampleServer) -> None:
    assert (await client.get("/version"))["gitVersion"] == "v1.36.0-kulvert-sample"
    system = await client.get("/api/v1/namespaces/kube-system")
    assert system["metadata"]["labels"]["kulvert.dev/sample"] == "true"
    assert system["metadata"]["uid"] == sample.uid
    nodes = (await client.get("/api/v1/nodes"))["items"]
    assert [node["metadata"]["labels"]["kulvert.dev/sample"] for node in nodes] == ["true"]
    note = await client.get("/api/v1/namespaces/kube-system/configmaps/kulvert-sample")
    assert "not a cluster" in note["data"]["note"]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc to count processes")
async def test_nothing_is_left_after_it_has_stopped_in_the_middle_of_everything() -> None:
    tasks, processes = asyncio.all_tasks(), children()
    async with SampleServer() as server:
        context = ssl.create_default_context(cadata=server.ca_pem.decode())
        session = aiohttp.ClientSession(server.url, connector=aiohttp.TCPConnector(ssl=context))
        client = Client(session, server.token)
        watch = await client.raw("GET", f"{PODS}?watch=1").__aenter__()
        follow = await client.raw("GET", f"{PODS}/demo/log?follow=true").__aenter__()
        shell = f"{PODS}/demo/exec?command=sleep&command=60&stdout=true"
        socket = await session.ws_connect(shell, headers=client.headers(), protocols=("v5.channel.k8s.io",))
        await socket.receive()
        assert len(children() - processes) >= 2
    watch.close()
    follow.close()
    await socket.close()
    await session.close()
    await asyncio.sleep(0)
    assert children() == processes
    assert {t for t in asyncio.all_tasks() if not t.done()} == tasks
    assert not [t for t in threading.enumerate() if "_reap" in t.name]


async def test_a_kubeconfig_acts_as_somebody_and_is_for_its_owner_only(sample: SampleServer, tmp_path: Path) -> None:
    path = sample.kubeconfig(tmp_path / "config")
    user = yaml.safe_load(path.read_text())["users"][0]["user"]
    assert user == {"token": sample.token, "as": "admin", "as-groups": ["kulvert:admins"]}
    assert path.stat().st_mode & 0o777 == 0o600


async def test_a_kubeconfig_without_a_user_is_the_agents(sample: SampleServer, tmp_path: Path) -> None:
    path = sample.kubeconfig(tmp_path / "config", user=None)
    assert yaml.safe_load(path.read_text())["users"][0]["user"] == {"token": sample.token}


async def test_tokens_and_ids_differ_from_one_sample_to_the_next() -> None:
    one, other = SampleServer(), SampleServer()
    assert one.token != other.token
    assert one.uid != other.uid


async def test_a_given_token_and_id_are_kept() -> None:
    async with SampleServer("a-token", uid="an-id") as server:
        assert (server.token, server.uid) == ("a-token", "an-id")


def test_the_demo_pod_is_a_shell_that_waits_between_lines() -> None:
    assert "sleep 0.5" in demo_command(0.5)[-1]

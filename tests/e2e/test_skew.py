"""Version skew: the previous release's agents with this server, and this tree's agents with the previous server.

Releases are rolled one side at a time, so both have to work for as long as it takes. KULVERT_PREVIOUS names a checkout
of the previous release (tests/support/skew.py); without one, these tests are skipped, and say so.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.e2e.conftest import _bind as bind_admins
from tests.support.cluster import Cluster
from tests.support.cluster_api import until
from tests.support.cluster_helpers import create_pod, delete_pod
from tests.support.load import Asking, under_load
from tests.support.loadclient import Client
from tests.support.loadwatch import Watching
from tests.support.skew import PRESENT, Skewed, due_soon, previous
from tests.support.tlsof import tls_of

OLD = previous()
OBJECTS = "/api/v1/namespaces/default/configmaps"
SETTINGS = {"timeouts": {"drain": 3.0}}
pytestmark = pytest.mark.skipif(isinstance(OLD, str), reason=f"NO VERSION SKEW WAS TESTED: {OLD}")


@pytest.fixture(params=["old-agent", "old-server"])
async def skewed(
    request: pytest.FixtureRequest, clusters: tuple[Cluster, Cluster], tmp_path: Path
) -> AsyncIterator[Skewed]:
    assert not isinstance(OLD, str)
    await bind_admins(clusters)
    alpha = clusters[0]
    server, agents = (PRESENT, OLD) if request.param == "old-agent" else (OLD, PRESENT)
    async with Skewed(tmp_path / "platform", server, agents, SETTINGS) as served:
        await served.start_agent(alpha, drain=3)
        await create_pod(alpha, "skew")
        alpha.log_file("default", "skew").write_bytes(b"")
        yield served
        await delete_pod(alpha, "skew")


async def reached(served: Skewed, alpha: Cluster) -> bool:
    found = await alpha.kubectl("get", "--raw", "/version", kubeconfig=served.kubeconfig("alpha"))
    return found.returncode == 0


async def serials(served: Skewed) -> set[str]:
    shown = await served.command("cluster", "certificates", "alpha")
    return {line.split()[0] for line in shown.splitlines()[1:]}


async def test_what_users_do_works(skewed: Skewed, cluster_a: Cluster) -> None:
    """get, a large list, writes, exec in both ways, watch, logs -f."""
    kubeconfig = skewed.kubeconfig("alpha")
    run = cluster_a.commands
    named = await cluster_a.kubectl("get", "pod", "skew", "-o", "name", kubeconfig=kubeconfig)
    assert named.check().out == "pod/skew"
    said = await cluster_a.kubectl(
        "exec", "-i", "skew", "--", "sh", "-c", "cat; seq 1 20000", kubeconfig=kubeconfig, input=b"over\n"
    )
    assert said.check().stdout == b"over\n" + b"".join(b"%d\n" % number for number in range(1, 20_001))
    failed = await cluster_a.kubectl("exec", "skew", "--", "sh", "-c", "exit 7", kubeconfig=kubeconfig)
    assert failed.returncode == 7
    url = f"{skewed.url}/clusters/alpha"
    watcher = Watching(Client(url, tls_of(skewed)), OBJECTS)
    await watcher.list()
    async with under_load([watcher]):
        text = "x" * 200_000
        for name in ("skew-1", "skew-2"):
            (await cluster_a.kubectl("create", "configmap", name, f"--from-literal=text={text[:100_000]}",
                                     kubeconfig=kubeconfig)).check()  # fmt: skip
        (await cluster_a.kubectl("delete", "configmap", "skew-1", "skew-2", kubeconfig=kubeconfig)).check()
        await asyncio.sleep(0.5)
    kinds = [(one.kind, one.name) for one in watcher.events if one.name.startswith("skew")]
    assert kinds == [("ADDED", "skew-1"), ("ADDED", "skew-2"), ("DELETED", "skew-1"), ("DELETED", "skew-2")]
    async with run.running("logs", "-f", "skew", kubeconfig=kubeconfig) as following:
        for number in range(3):
            with cluster_a.log_file("default", "skew").open("a") as log:
                log.write(f"line {number}\n")
            assert await following.line(10.0) == f"line {number}"


async def test_a_server_that_drains_and_comes_back_has_its_agents_again(skewed: Skewed, cluster_a: Cluster) -> None:
    agent = skewed.agent("alpha").pid
    for number in (signal.SIGTERM, signal.SIGKILL):
        await skewed.stop_server(number)
        await skewed.start_server()
        await until(lambda: reached(skewed, cluster_a), "the agent to be back", 30.0)
    assert skewed.agent("alpha").pid == agent


async def test_an_agent_that_drains_costs_nobody_a_request(skewed: Skewed) -> None:
    """There is a second one, of the same release: GETs go on while one after the other is started anew."""
    await skewed.further_agent("alpha", "alpha-2")
    url = f"{skewed.url}/clusters/alpha"
    readers = [Asking(Client(url, tls_of(skewed)), ["/version", OBJECTS]) for _ in range(2)]
    async with under_load(readers):
        for name in ("alpha", "alpha-2"):
            await asyncio.sleep(0.5)
            await skewed.stop_agent(name)
            await asyncio.sleep(0.5)
            await skewed.restart_agent(name)
        await asyncio.sleep(0.5)
    assert [one.why for reader in readers for one in reader.failed()] == []
    print(f"{sum(len(reader.outcomes) for reader in readers)} GETs")


async def test_a_certificate_is_renewed(skewed: Skewed, cluster_a: Cluster) -> None:
    await skewed.stop_agent("alpha")
    due = await due_soon(skewed, cluster_a)
    before = await serials(skewed)
    assert due in before
    await skewed.restart_agent("alpha")

    async def renewed() -> bool:
        return len(await serials(skewed)) > len(before)

    await until(renewed, "the certificate to be renewed", 40.0)
    assert await reached(skewed, cluster_a)
    await skewed.stop_agent("alpha")
    await skewed.restart_agent("alpha")
    assert await reached(skewed, cluster_a), "by the new one"


async def test_the_previous_servers_state_is_taken_over(clusters: tuple[Cluster, Cluster], tmp_path: Path) -> None:
    """An upgrade in place: the old server ends, this one begins on its state; agents and users notice a restart."""
    assert not isinstance(OLD, str)
    await bind_admins(clusters)
    alpha = clusters[0]
    async with Skewed(tmp_path / "platform", OLD, OLD, SETTINGS) as served:
        await served.start_agent(alpha)
        kubeconfig = served.kubeconfig("alpha")
        await served.command("grant", "create", "ops", "--group", "ops", "--cluster", "*")
        agent, before = served.agent("alpha").pid, await serials(served)
        await served.stop_server()
        served.releases["server"] = PRESENT
        await served.start_server()

        async def back() -> bool:
            return (await alpha.kubectl("get", "--raw", "/version", kubeconfig=kubeconfig)).returncode == 0

        await until(back, "the agent to be back", 30.0)
        assert (served.agent("alpha").pid, await serials(served)) == (agent, before)
        assert "ops" in await served.command("grant", "list")

"""A cluster's life by the commands alone: it joins, is accepted, handed over, revoked, removed, and joins again."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.conftest import _bind as bind_admins
from tests.e2e.conftest import _run as run_to_end
from tests.support.cluster import Cluster
from tests.support.cluster_api import ApiError
from tests.support.cluster_helpers import bind, service_account_token, token_kubeconfig
from tests.support.kubectl import Result
from tests.support.platform import PROGRAM, Platform
from tests.support.processes import Process

NAMESPACE = "/api/v1/namespaces/kulvert"
GRACE = "2"


@pytest.fixture(scope="module")
def gamma(testbed: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster of this module's own: agents are installed in it, and uninstall themselves."""
    cluster = Cluster("gamma", testbed, tmp_path_factory.mktemp("gamma"))
    try:
        run_to_end(cluster.start())
        run_to_end(bind(cluster, "cluster-admin", group="kulvert:admins"))
        yield cluster
    finally:
        run_to_end(cluster.stop())


@pytest.fixture
async def server(tmp_path: Path, clusters: tuple[Cluster, Cluster]) -> AsyncIterator[Platform]:
    """A server without a cluster, that hands names over soon."""
    await bind_admins(clusters)
    async with Platform(tmp_path / "platform", env={"KULVERT_ENROLMENT_TAKEOVER_GRACE": GRACE}) as served:
        yield served


async def kulvert(server: Platform, *args: str, timeout: float = 60) -> Result:
    """A command on the server's machine."""
    process = await asyncio.create_subprocess_exec(
        PROGRAM, *args, "--state-dir", str(server.state), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(timeout):
        out, err = await process.communicate()
    assert process.returncode is not None
    return Result(args, process.returncode, out, err)


async def eventually(question: Callable[[], Awaitable[object]], what: str, timeout: float = 30) -> None:
    deadline = time.monotonic() + timeout
    while not await question():
        assert time.monotonic() < deadline, f"waited {timeout:.0f} s for {what}"
        await asyncio.sleep(0.2)


async def applied(cluster: Cluster) -> tuple[dict[str, Any], str]:
    """What was installed, as the agent's pod would see it: its configuration, and its join token."""
    config = await cluster.api.get(f"{NAMESPACE}/configmaps/kulvert-agent")
    secret = await cluster.kubectl(
        "get", "secret", "-n", "kulvert", "kulvert-agent-join", "-o", "go-template={{.data.token|base64decode}}"
    )
    return config["data"], secret.check().out


async def run_installed(server: Platform, cluster: Cluster, name: str) -> Process:
    """There is no container runtime here: the agent of the applied Deployment runs as a process, with the applied
    configuration, as the applied service account.
    """
    await eventually(lambda: _there(cluster, "/apis/apps/v1/namespaces/kulvert/deployments/kulvert-agent"), "the agent")
    data, token = await applied(cluster)
    home = server.directory / f"{name}.installed"
    home.mkdir(exist_ok=True)
    settings = yaml.safe_load(data["agent.yaml"])
    (home / "token").write_text(token)
    (home / "ca.crt").write_text(data["ca.crt"])
    account = await service_account_token(cluster, "kulvert", "kulvert-agent")
    kubeconfig = await token_kubeconfig(cluster, account, f"{name}.installed.kubeconfig")
    settings |= {"joinTokenFile": str(home / "token"), "caFile": str(home / "ca.crt"), "stateDir": str(home / "own")}
    settings |= {"kubeconfig": str(kubeconfig)}
    (home / "agent.yaml").write_text(yaml.safe_dump(settings))
    return server.run_agent(f"{name}", home / "agent.yaml")


async def _there(cluster: Cluster, path: str) -> bool:
    try:
        await cluster.api.get(path)
    except ApiError:
        return False
    return True


async def conditions(server: Platform, name: str) -> dict[str, str]:
    shown = yaml.safe_load((await kulvert(server, "cluster", "show", name, "-o", "yaml")).check().out)
    return {one["type"]: one["status"] for one in shown["status"]["conditions"]}


async def available(server: Platform, name: str) -> bool:
    return (await conditions(server, name)).get("Available") == "True"


async def reached(server: Platform, cluster: Cluster, name: str) -> Result:
    return await cluster.kubectl("get", "namespace", "kube-system", "-o", "jsonpath={.metadata.uid}",
                                 kubeconfig=server.kubeconfig(name))  # fmt: skip


async def join(server: Platform, cluster: Cluster, name: str) -> Process:
    """By a kubeconfig."""
    agents = f"https://localhost:{server.agents_port}"
    joining = asyncio.create_task(
        kulvert(server, "cluster", "join", name, "--server", agents, "--kubeconfig", str(cluster.admin_kubeconfig))
    )
    agent = await run_installed(server, cluster, name)
    result = (await joining).check()
    assert f"cluster {name} has joined" in result.out
    return agent


async def test_a_cluster_joins_by_a_kubeconfig_is_removed_and_joins_again(server: Platform, gamma: Cluster) -> None:
    for _ in range(2):
        await eventually(lambda: _gone(gamma, NAMESPACE), "the namespace to be gone")
        await join(server, gamma, "edge")
        assert (await reached(server, gamma, "edge")).check().out == gamma.uid
        await is_constrained(gamma)
        removed = (await kulvert(server, "cluster", "remove", "edge")).check()
        assert "agent uninstalled" in removed.out
        assert "left behind" not in removed.out
        for role in ("kulvert-agent", "kulvert-agent-uninstall"):
            for kind in ("clusterroles", "clusterrolebindings"):
                path = f"/apis/rbac.authorization.k8s.io/v1/{kind}/{role}"
                await eventually(lambda path=path: _gone(gamma, path), path)  # type: ignore[misc]  # a default is no parameter
        assert (await reached(server, gamma, "edge")).returncode != 0
        assert "edge" not in (await kulvert(server, "cluster", "list")).check().out
        await server.stop_agent("edge")
    for file in server.state.iterdir():
        assert "client-key-data" not in file.read_text(errors="replace")


async def another_pod(server: Platform, cluster: Cluster, name: str) -> None:
    """A pod takes another's place after the join token has expired: it finds the certificate in its Secret."""

    async def kept() -> bool:
        return "agent.pem" in (await cluster.api.get(f"{NAMESPACE}/secrets/kulvert-agent-state")).get("data", {})

    await eventually(kept, "the certificate to be kept")
    await server.stop_agent(name)
    home = server.directory / f"{name}.installed"
    shutil.rmtree(home / "own")
    (home / "token").write_text(server.join_token("another-name"))  # no good for this one
    server.run_agent(name, home / "agent.yaml")

    async def there() -> bool:
        return (await reached(server, cluster, name)).out == cluster.uid

    await eventually(there, "the next pod's agent to be attached")


async def is_constrained(cluster: Cluster) -> None:
    """The API server itself keeps the agent from acting as a node, a service account, or system:masters."""
    kubeconfig = cluster.directory / "edge.installed.kubeconfig"
    ask = ("get", "--raw", "/api/v1/namespaces/kube-system")
    allowed = await cluster.kubectl(*ask, "--as", "ada", "--as-group", "kulvert:admins", kubeconfig=kubeconfig)
    assert allowed.returncode == 0
    for more in (("ada", "--as-group", "system:masters"), ("system:node:n1",), ("system:serviceaccount:a:b",)):
        refused = await cluster.kubectl(*ask, "--as", *more, kubeconfig=kubeconfig)
        assert "cannot impersonate" in refused.err or "is not allowed" in refused.err, more


async def _gone(cluster: Cluster, path: str) -> bool:
    return not await _there(cluster, path)


async def test_an_owner_applies_the_manifest_and_an_administrator_accepts(server: Platform, gamma: Cluster) -> None:
    await eventually(lambda: _gone(gamma, NAMESPACE), "the namespace to be gone")
    agents = f"https://localhost:{server.agents_port}"
    manifest = (await kulvert(server, "cluster", "join", "edge", "--server", agents)).check().out.encode()
    (await gamma.kubectl("apply", "--server-side", "-f", "-", input=manifest)).check()
    (await gamma.kubectl("apply", "--server-side", "--dry-run=server", "-f", "-", input=manifest)).check()
    await run_installed(server, gamma, "edge")

    async def asks() -> bool:
        return gamma.uid in (await kulvert(server, "cluster", "requests")).check().out

    await eventually(asks, "the agent to ask")
    assert (await conditions(server, "edge"))["HubAccepted"] == "False"
    assert (await reached(server, gamma, "edge")).returncode != 0
    (await kulvert(server, "cluster", "accept", "edge")).check()
    await eventually(lambda: available(server, "edge"), "the cluster to be available")
    assert (await reached(server, gamma, "edge")).check().out == gamma.uid
    assert (await conditions(server, "edge")) == {"HubAccepted": "True", "Joined": "True", "Available": "True"}
    await another_pod(server, gamma, "edge")
    (await kulvert(server, "cluster", "remove", "edge")).check()


async def test_a_second_cluster_waits_for_the_first_to_be_gone(
    server: Platform, clusters: tuple[Cluster, Cluster]
) -> None:
    alpha, beta = clusters
    await server.start_agent(alpha, "edge")
    second = await server.second_agent(beta, "edge")

    async def asks() -> bool:
        return beta.uid in (await kulvert(server, "cluster", "requests")).check().out

    await eventually(asks, "the second cluster to ask")
    assert "waiting" in (await kulvert(server, "cluster", "accept", "edge", "--id", beta.uid)).check().out
    await asyncio.sleep(float(GRACE) + 1)
    assert (await reached(server, alpha, "edge")).check().out == alpha.uid
    await server.stop_agent("edge")

    async def taken_over() -> bool:
        return (await reached(server, beta, "edge")).out == beta.uid

    await eventually(taken_over, "the second cluster to have the name", 90)
    assert second.exited is None


async def test_a_cluster_that_is_cut_off_is_removed_by_force_and_what_is_left_is_said(
    server: Platform, cluster_a: Cluster
) -> None:
    await server.start_agent(cluster_a, "edge")
    await server.stop_agent("edge")
    waits = await kulvert(server, "cluster", "remove", "edge", "--timeout", "2s")
    assert waits.returncode == 1
    assert "for an agent of the cluster to be attached" in waits.err
    assert "Terminating" in (await kulvert(server, "cluster", "list")).check().out
    forced = (await kulvert(server, "cluster", "remove", "edge", "--force")).check()
    assert "left behind in the cluster" in forced.out
    assert "Namespace kulvert" in forced.out
    (await kulvert(server, "cluster", "add", "edge")).check()


async def test_a_revoked_certificate_sends_its_agent_away_for_good(server: Platform, cluster_a: Cluster) -> None:
    await server.start_agent(cluster_a, "edge")
    assert (await reached(server, cluster_a, "edge")).returncode == 0
    listed = yaml.safe_load((await kulvert(server, "cluster", "certificates", "edge", "-o", "yaml")).check().out)
    (serial,) = (one["metadata"]["name"] for one in listed["items"])
    (await kulvert(server, "cluster", "revoke", "edge", serial)).check()

    async def away() -> bool:
        return (await reached(server, cluster_a, "edge")).returncode != 0

    await eventually(away, "the agent to be sent away", 60)
    await asyncio.sleep(3)
    assert (await reached(server, cluster_a, "edge")).returncode != 0


async def test_users_wait_for_the_gates_administrators_among_them(server: Platform, cluster_a: Cluster) -> None:
    await server.start_agent(cluster_a, "edge")
    (await kulvert(server, "cluster", "gate", "add", "edge", "example.com/Scanned")).check()

    async def refused() -> bool:
        result = await reached(server, cluster_a, "edge")
        return bool(result.returncode) and "example.com/Scanned is not True" in result.err

    await eventually(refused, "the gate to close")
    (await kulvert(server, "cluster", "condition", "set", "edge", "example.com/Scanned=True")).check()

    async def open_again() -> bool:
        return (await reached(server, cluster_a, "edge")).returncode == 0

    await eventually(open_again, "the gate to open")


async def test_streams_end_when_a_removal_is_asked_for_though_it_has_to_wait(
    server: Platform, cluster_a: Cluster
) -> None:
    await server.start_agent(cluster_a, "edge")
    (await kulvert(server, "cluster", "finalizer", "add", "edge", "example.com/dns")).check()
    kubeconfig = server.kubeconfig("edge")
    watching = asyncio.create_task(cluster_a.kubectl("get", "namespaces", "--watch", kubeconfig=kubeconfig, timeout=60))
    await asyncio.sleep(2)
    assert not watching.done()
    waits = await kulvert(server, "cluster", "remove", "edge", "--timeout", "1s")
    assert waits.returncode == 1
    async with asyncio.timeout(30):
        await watching
    refused = await reached(server, cluster_a, "edge")
    assert "being removed" in refused.err

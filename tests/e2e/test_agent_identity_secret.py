"""An agent's certificate outlives its pod: in a Secret of the real API server, by the role that is shipped."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import yaml

from agent import kubeconfig
from agent.identityfile import AgentIdentity, IdentityFile
from agent.membership import Membership
from agent.pool import PoolLimits, UpstreamPool
from agent.statesecret import StateSecret, StateTiming
from agent.trust import Trust
from gateway.joining.manifest import STATE
from tests.support.agentauthority import Book
from tests.support.cluster import Cluster
from tests.support.cluster_helpers import agent_identity, token_kubeconfig
from tests.support.platform import Platform
from tests.support.processes import Process
from tunnel.batch import Batch

MANIFEST = Path(__file__).parents[2] / "charts" / "agent-state-rbac.yaml"
ACCOUNT = "system:serviceaccount:kulvert:kulvert-agent"
QUICK = StateTiming(look=0.1, see=0.5, retry=0.5)


@pytest.fixture
async def secret(cluster_a: Cluster) -> AsyncIterator[Cluster]:
    """A cluster with the agent's service account, the empty Secret, and the role."""
    await agent_identity(cluster_a)
    (await cluster_a.kubectl("apply", "-f", MANIFEST)).check()

    async def in_force() -> bool:
        asked = ("auth", "can-i", "update", f"secrets/{STATE}", "-n", "kulvert", "--as", ACCOUNT)
        return (await cluster_a.kubectl(*asked)).out == "yes"

    await cluster_a.wait_for(in_force, "the role to be in force")
    try:
        yield cluster_a
    finally:
        (await cluster_a.kubectl("delete", "-f", MANIFEST)).check()


async def kept(cluster: Cluster) -> dict[str, str]:
    found = await cluster.api.get(f"/api/v1/namespaces/kulvert/secrets/{STATE}")
    return dict(found.get("data") or {})


async def holds_certificate(cluster: Cluster) -> bool:
    return "agent.pem" in await kept(cluster)


async def test_the_role_is_for_this_secret_alone(secret: Cluster) -> None:
    for verb, what in (("get", "secrets/other"), ("list", "secrets"), ("watch", "secrets"), ("create", "secrets"),
                       ("delete", f"secrets/{STATE}"), ("patch", f"secrets/{STATE}")):  # fmt: skip
        asked = await secret.kubectl("auth", "can-i", verb, what, "-n", "kulvert", "--as", ACCOUNT)
        assert asked.out == "no", (verb, what)


# --- whole agents


async def tokenless(server: Platform, name: str, **settings: str) -> Process:
    """A new pod of an agent that has been enrolled before: no token, and nothing on its disk."""
    document = yaml.safe_load((server.directory / "edge.agent.yaml").read_text()) | settings
    del document["joinTokenFile"]
    document["stateDir"] = str(server.directory / f"{name}.pod")
    path = server.directory / f"{name}.agent.yaml"
    path.write_text(yaml.safe_dump(document))
    return server.run_agent(name, path)


async def attached(cluster: Cluster, process: Process) -> None:
    async def said() -> bool:
        assert process.exited is None, process.tail(20)
        return "ready: " in process.log.read_text(errors="replace")

    await cluster.wait_for(said, "the agent to be attached", 60)


async def reaches(server: Platform, cluster: Cluster) -> bool:
    asked = ("get", "namespace", "kube-system", "-o", "jsonpath={.metadata.uid}")
    return (await cluster.kubectl(*asked, kubeconfig=server.kubeconfig("edge"))).out == cluster.uid


async def test_a_new_pod_without_a_token_comes_back(own_platform: Platform, secret: Cluster) -> None:
    await own_platform.start_agent(secret, "edge", stateSecret=STATE)
    await secret.wait_for(lambda: holds_certificate(secret), "the certificate to be kept")
    before = await kept(secret)
    await own_platform.stop_agent("edge")
    process = await tokenless(own_platform, "next")
    await attached(secret, process)
    assert await reaches(own_platform, secret)
    log = process.log.read_text()
    assert "restored from its Secret" in log
    assert "PRIVATE KEY" not in log
    assert (await kept(secret))["agent.pem"] == before["agent.pem"]
    (await secret.kubectl("apply", "-f", MANIFEST)).check()
    assert await kept(secret) == before, "an installation that is repeated loses nothing"


async def test_two_at_once_share_one_secret(own_platform: Platform, secret: Cluster) -> None:
    """The second has no token at all: it waits until the first one was enrolled."""
    own_platform.join_token("edge")
    waiting = await _second_before_the_first(own_platform, secret)
    await own_platform.start_agent(secret, "edge", stateSecret=STATE)
    await attached(secret, waiting)
    assert await reaches(own_platform, secret)
    await own_platform.stop_agent("edge")
    await secret.wait_for(lambda: reaches(own_platform, secret), "the other replica to serve")


async def _second_before_the_first(server: Platform, cluster: Cluster) -> Process:
    """Its Secret is empty when it starts."""
    token = next(cluster.directory.glob("kulvert-kulvert-agent.token")).read_text()
    config = await token_kubeconfig(cluster, token, "second.agent.kubeconfig")
    document = {
        "servers": [f"https://localhost:{server.agents_port}"],
        "cluster": "edge",
        "caFile": str(server.state / "ca.crt"),
        "kubeconfig": str(config),
        "stateDir": str(server.directory / "second.pod"),
        "stateSecret": STATE,
    }
    path = server.directory / "second.agent.yaml"
    path.write_text(yaml.safe_dump(document))
    process = server.run_agent("second", path)

    async def said() -> bool:
        return "no join token" in process.log.read_text(errors="replace")

    await cluster.wait_for(said, "the agent to say what it misses")
    return process


# --- replicas by their parts, where the moment matters


@asynccontextmanager
async def replica(cluster: Cluster, directory: Path) -> AsyncIterator[tuple[StateSecret, Membership]]:
    token = (cluster.directory / "kulvert-kulvert-agent.token").read_text()
    access = kubeconfig.load(await token_kubeconfig(cluster, token, f"{directory.name}.kubeconfig"), None)
    loop = asyncio.get_running_loop()
    pool = UpstreamPool(access, Batch(loop.call_soon), PoolLimits(), loop, random.Random(1).random)
    try:
        state = StateSecret(pool, "kulvert", STATE, directory, QUICK)
        await state.restore("edge", cluster.uid)
        membership = Membership("edge", cluster.uid, IdentityFile(directory), Trust(None, directory), lambda _tls: None)
        yield state, membership
    finally:
        await pool.close()


def der(membership: Membership) -> bytes:
    identity = membership.identity
    assert isinstance(identity, AgentIdentity)
    return identity.der


async def test_of_two_that_write_at_once_one_counts_and_a_renewal_reaches_the_other(
    secret: Cluster, tmp_path: Path
) -> None:
    book = Book()
    async with replica(secret, tmp_path / "one") as (one, first), replica(secret, tmp_path / "two") as (two, second):
        await first.adopt(book.issued("edge", secret.uid))
        await second.adopt(book.issued("edge", secret.uid))
        assert all(await asyncio.gather(one.look(first), two.look(second)))
        assert await one.look(first)
        assert der(first) == der(second)
        following = asyncio.create_task(two.run(second), name="follow the Secret")
        try:
            renewed = book.issued("edge", secret.uid)
            await first.adopt(renewed)
            assert await one.look(first)

            async def seen() -> bool:
                return der(second) == renewed.der

            await secret.wait_for(seen, "the renewal to reach the other")
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
    async with replica(secret, tmp_path / "three") as (_, third):
        assert der(third) == renewed.der


async def test_without_the_role_it_goes_on_and_keeps_it_once_it_may(secret: Cluster, tmp_path: Path) -> None:
    (await secret.kubectl("delete", "rolebinding", "-n", "kulvert", STATE)).check()
    async with replica(secret, tmp_path / "one") as (state, membership):
        await membership.adopt(Book().issued("edge", secret.uid))

        async def refused() -> bool:
            return not await state.look(membership)

        await secret.wait_for(refused, "the role to be gone")
        assert membership.identity is not None
        (await secret.kubectl("apply", "-f", MANIFEST)).check()
        await secret.wait_for(lambda: state.look(membership), "the role to be back")
    assert await holds_certificate(secret)

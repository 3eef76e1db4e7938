"""A server is lost with its disk, and another one is made of its backup: nobody has to come in anew."""

from __future__ import annotations

import shutil
import signal
import time
from pathlib import Path

import pytest

from tests.support.cluster import Cluster
from tests.support.cluster_api import until
from tests.support.cluster_helpers import bind
from tests.support.commands import kulvert
from tests.support.kubectl import Result
from tests.support.load import Asking, under_load
from tests.support.loadclient import Client
from tests.support.platform import Platform
from tests.support.skew import due_soon
from tests.support.tlsof import tls_of

SEEN = "jsonpath={.metadata.uid}"


@pytest.fixture
async def served(own_platform: Platform, clusters: tuple[Cluster, Cluster]) -> Platform:
    """Two clusters, whose agents know the server by a file of their own, as in a cluster of theirs."""
    trusted = own_platform.directory / "trusted.crt"
    shutil.copy(own_platform.state / "ca.crt", trusted)
    for cluster in clusters:
        await own_platform.start_agent(cluster, caFile=str(trusted))
        (own_platform.directory / f"{cluster.name}.token").unlink()  # nothing to enrol anew by
        if not (cluster.directory / "viewers-bound").exists():
            await bind(cluster, "view", group="viewers")
            (cluster.directory / "viewers-bound").touch()
    return own_platform


async def kubeconfig(served: Platform, user: str, *more: str, cluster: str = "alpha") -> Path:
    path = served.directory / f"{user}.yaml"
    who = ("--user", user, "--group", "viewers", "--server", served.url)
    (await kulvert(served.state, "kubeconfig", cluster, *who, "-o", path, *more)).check()
    return path


async def looks(cluster: Cluster, path: Path) -> Result:
    return await cluster.kubectl("get", "namespace", "default", "-o", SEEN, kubeconfig=path)


async def reaches(cluster: Cluster, path: Path) -> bool:
    return (await looks(cluster, path)).returncode == 0


async def certificates(served: Platform) -> list[str]:
    """The agents', by serial."""
    found = [(await kulvert(served.state, "cluster", "certificates", name)).check().out for name in ("alpha", "beta")]
    return [line.split()[0] for text in found for line in text.splitlines()]


async def test_a_server_is_restored_from_its_backup_and_nobody_comes_in_anew(
    served: Platform, clusters: tuple[Cluster, Cluster]
) -> None:
    alpha, beta = clusters
    (await kulvert(served.state, "grant", "create", "viewers", "--group", "viewers", "--cluster", "*")).check()
    by_certificate = await kubeconfig(served, "ada")
    by_token = await kubeconfig(served, "ben", "--token", "--ttl", "1h", cluster="beta")
    revoked, later = await kubeconfig(served, "eve"), await kubeconfig(served, "mallory")
    (await kulvert(served.state, "certificate", "revoke", "--user", "eve")).check()
    unused = (await kulvert(served.state, "token", "create", "alpha", "--quiet")).check().out
    await until(lambda: reaches(alpha, by_certificate), "the grant to count")
    assert (await looks(beta, by_token)).check().out
    issued, pids = await certificates(served), [served.agent(name).pid for name in ("alpha", "beta")]
    assert len(issued) >= 2

    backup = served.directory / "kulvert.tar"
    async with under_load([asking := Asking(Client(f"{served.url}/clusters/alpha", tls_of(served)), ["/api"])]):
        (await kulvert(served.state, "backup", backup)).check()
        await until(lambda: _asked(asking, 20), "GETs after the backup")
    assert asking.failed() == []
    (await kulvert(served.state, "certificate", "revoke", "--user", "mallory")).check()

    await served.stop_server(signal.SIGKILL)
    shutil.rmtree(served.state)
    began = time.monotonic()
    served.state = served.directory / "elsewhere"
    (await kulvert(served.state, "restore", backup)).check()
    await served.start_server()

    await until(lambda: reaches(alpha, by_certificate), "alpha's agent to be back", 30.0)
    await until(lambda: reaches(beta, by_token), "beta's agent to be back", 30.0)
    print(f"both clusters are reached {time.monotonic() - began:.1f} s after the restore began")
    assert [served.agent(name).pid for name in ("alpha", "beta")] == pids
    assert await certificates(served) == issued, "no agent has enrolled anew"
    refused = await looks(alpha, revoked)
    assert "the client certificate has been revoked" in refused.err

    # what was revoked after the backup is not in it: docs/operations.md says to do it again
    assert await reaches(alpha, later)
    (await kulvert(served.state, "certificate", "revoke", "--user", "mallory")).check()
    await until(lambda: _refused(alpha, later), "the revocation to count", 5.0)

    (served.directory / "unused.token").write_text(unused)
    more = {"joinTokenFile": str(served.directory / "unused.token"), "caFile": str(served.directory / "trusted.crt")}
    await served.further_agent("alpha", "alpha-2", **more)
    assert len(await certificates(served)) == len(issued) + 1


async def _asked(asking: Asking, count: int) -> bool:
    return len(asking.outcomes) >= count


async def _refused(cluster: Cluster, path: Path) -> bool:
    return "has been revoked" in (await looks(cluster, path)).err


async def test_a_running_servers_state_is_not_restored_over(served: Platform) -> None:
    backup = served.directory / "kulvert.tar"
    (await kulvert(served.state, "backup", backup)).check()
    refused = await kulvert(served.state, "restore", backup)
    assert (refused.returncode, "another Kulvert server runs on" in refused.err) == (1, True)


async def test_an_agent_whose_certificate_is_newer_than_the_backup_needs_a_join_token(
    served: Platform, clusters: tuple[Cluster, Cluster]
) -> None:
    """What docs/operations.md says of it, and what to do: a certificate counts only while it is in the store."""
    alpha, admin = clusters[0], served.kubeconfig("alpha")
    token = served.directory / "alpha.token"
    await served.stop_agent("alpha")
    await due_soon(served, alpha)
    (await kulvert(served.state, "backup", served.directory / "kulvert.tar")).check()
    token.write_text((await kulvert(served.state, "token", "create", "alpha", "--quiet")).check().out)
    await served.restart_agent("alpha")
    await until(lambda: _logged(served, "certificate renewed"), "the renewal", 40.0)
    await served.stop_server(signal.SIGKILL)
    served.state = served.directory / "elsewhere"
    (await kulvert(served.state, "restore", served.directory / "kulvert.tar")).check()
    await served.start_server()
    await until(lambda: _logged(served, "the agent's certificate has been revoked"), "the agent to be refused", 20.0)
    assert not await reaches(alpha, admin)
    await served.stop_agent("alpha")
    token.write_text((await kulvert(served.state, "token", "create", "alpha", "--quiet")).check().out)
    await served.restart_agent("alpha")
    assert await reaches(alpha, admin)


async def _logged(served: Platform, words: str) -> bool:
    return words in served.agent("alpha").log.read_text()

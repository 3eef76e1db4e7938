"""Kulvert's own API of an installation whose replicas each have some clusters' agents: it tells and does the same
wherever it is asked, and what is said to one replica counts at all.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import ssl
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from stub.leases.rendezvous import best, shard_of
from tests.e2e.conftest import _bind as bind_admins
from tests.support.cluster import Cluster
from tests.support.cluster_api import ApiError, until
from tests.support.cluster_helpers import create_namespace, token_kubeconfig
from tests.support.installation import NAMESPACE, Installation, forget_installations
from tests.support.kubectl import Result
from tests.support.platform import PROGRAM

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]
QUICK = {"duration": 4, "renewDeadline": 3, "retryPeriod": 0.5, "settle": 1, "moving": 16}
API = "/apis/kulvert.dev/v1alpha1"
GRACE = 4
ACCOUNTS = Path(__file__).parents[2] / "charts" / "agent-serviceaccounts-rbac.yaml"


@dataclass
class Answer:
    """Of the management API."""

    code: int
    body: Any

    @property
    def message(self) -> str:
        return str(self.body.get("message", self.body))


class Api:
    """Kulvert's own API at one replica."""

    def __init__(self, port: int, tls: ssl.SSLContext, bearer: str = "") -> None:
        self._port = port
        self._tls = tls
        self._bearer = bearer

    async def ask(self, method: str, path: str, body: object = None, *, base: str = API) -> Answer:
        return await asyncio.to_thread(self._ask, method, base + path, body)

    async def get(self, path: str) -> Any:
        found = await self.ask("GET", path)
        assert found.code == 200, found
        return found.body

    def _ask(self, method: str, path: str, body: object) -> Answer:
        connection = http.client.HTTPSConnection("localhost", self._port, context=self._tls, timeout=20)
        headers = {"Content-Type": "application/json"}
        if self._bearer:
            headers["Authorization"] = f"Bearer {self._bearer}"
        try:
            connection.request(method, path, json.dumps(body) if body is not None else None, headers)
            answer = connection.getresponse()
            text = answer.read()
            return Answer(answer.status, json.loads(text) if text.startswith(b"{") else {"message": text.decode()})
        finally:
            connection.close()


class Scene:
    """An installation. Beta is its hub, alpha is attached under as many names as tests want."""

    def __init__(self, made: Installation, alpha: Cluster) -> None:
        self.made = made
        self.alpha = alpha

    def api(self, replica: str, user: str = "admin") -> Api:
        return Api(self.made.replicas[replica].port, self.made.tls(user))

    def bearer(self, replica: str, token: str) -> Api:
        return Api(
            self.made.replicas[replica].port, ssl.create_default_context(cadata=self.made.first.ca.decode()), token
        )

    async def held_by(self, prefix: str, leads: bool) -> tuple[str, str]:
        """(name, holder): a name that the leader holds, or somebody else."""
        leader, holders = await self.made.holder(), dict[int, str]()
        for name in (f"{prefix}-{number}" for number in range(200)):
            shard = shard_of(name, self.made.shards)
            if shard not in holders:
                holders[shard] = await self.made.owner(name)
            if holders[shard] and (holders[shard] == leader) is leads:
                return name, holders[shard]
        raise AssertionError("shards are not shared out")

    async def elsewhere(self, prefix: str) -> tuple[str, str, str]:
        """(name, holder, bystander): a name whose holder does not lead, and a replica that neither leads nor holds."""
        name, holder = await self.held_by(prefix, leads=False)
        leader = await self.made.holder()
        return name, holder, next(one for one in self.made.replicas if one not in (leader, holder))

    async def attach(self, name: str, **settings: Any) -> None:
        await self.made.start_agent(self.alpha, name, **settings)

    async def agents_at(self, replica: str, name: str) -> int:
        """As that replica alone knows."""
        metrics = (await self.api(replica).ask("GET", "/metrics", base="")).message
        counts = [line for line in metrics.splitlines() if line.startswith(f'kulvert_agents{{cluster="{name}"}}')]
        return int(float(counts[0].split()[-1])) if counts else 0

    async def kulvert(self, replica: str, *args: str) -> Result:
        state = str(self.made.replicas[replica].state)
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(PROGRAM, *args, "--state-dir", state, stdout=pipe, stderr=pipe)
        async with asyncio.timeout(60):
            out, err = await process.communicate()
        assert process.returncode is not None
        return Result(args, process.returncode, out, err)

    async def condition(self, replica: str, name: str) -> str:
        shown = await self.api(replica).get(f"/clusters/{name}")
        return next((str(one["status"]) for one in shown["status"]["conditions"] if one["type"] == "Available"), "")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene(clusters: tuple[Cluster, Cluster], tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    await bind_admins(clusters)
    alpha, hub = clusters
    await forget_installations(hub)
    await create_namespace(alpha, "managed")
    settings = {"serviceAccounts": {"enabled": True}, "enrolment": {"takeoverGrace": GRACE}}
    directory = tmp_path_factory.mktemp("management") / "made"
    async with Installation(directory, hub, "sharded", leases=QUICK, settings=settings) as made:
        await until(lambda: held(made), "all shards to be held", 20.0)
        yield Scene(made, alpha)


async def held(made: Installation) -> bool:
    """Somebody leads, and each shard is where it stays."""
    found = await made.hub.kubectl("get", "leases", "-n", NAMESPACE, "-o", "json")
    holders = {
        one["metadata"]["name"]: one["spec"].get("holderIdentity") for one in json.loads(found.check().out)["items"]
    }
    shards = {number: holders.get(f"kulvert-shard-{number}") for number in range(made.shards)}
    return bool(holders.get("kulvert")) and all(best(n, made.replicas) == one for n, one in shards.items())


async def test_every_replica_tells_the_same_of_clusters_that_any_has(scene: Scene) -> None:
    name, holder, bystander = await scene.elsewhere("told")
    own, _ = await scene.held_by("own", leads=True)
    await asyncio.gather(scene.attach(name), scene.attach(own))

    async def available() -> bool:
        return [await scene.condition(holder, one) for one in (name, own)] == ["True", "True"]

    async def told() -> bool:
        lists = [(await scene.api(one).get("/clusters"))["items"] for one in scene.made.replicas]
        return all(len(one["status"]["agentReports"]) == 1 for items in lists for one in items)

    await until(available, "the clusters to be available", 10.0)
    await until(told, "the agents' first reports, which come after they have attached", 10.0)
    listed = []
    for replica in scene.made.replicas:
        found = (await scene.api(replica).get("/clusters"))["items"]
        assert {one["metadata"]["name"] for one in found} == {name, own}
        assert [(one["status"]["agents"], one["status"]["readyAgents"]) for one in found] == [(1, 1)] * 2, replica
        for one in found:
            (report,) = one["status"]["agentReports"]
            assert report["apiServer"]["ready"]
            report["apiServer"].pop("roundTripMs")
        listed.append(found)
        shown = await scene.api(replica).get(f"/clusters/{name}")
        assert (shown["status"]["agents"], shown["status"]["ready"]) == (1, True)
    assert listed[0] == listed[1] == listed[2]
    await scene.made.first.further_agent(name, f"{name}-b")

    async def two() -> bool:
        counts = [(await scene.api(one).get(f"/clusters/{name}"))["status"]["agents"] for one in scene.made.replicas]
        return counts == [2, 2, 2]

    await until(two, "the second agent to be seen by all", 3.0)
    tables = [(await scene.kulvert(one, "cluster", "list")).check().out for one in scene.made.replicas]
    assert tables[0] == tables[1] == tables[2]
    assert tables[0].count("Available") == 2, tables[0]
    for agent in (name, f"{name}-b"):
        await scene.made.first.stop_agent(agent)

    async def none() -> bool:
        shown = [(await scene.api(one).get(f"/clusters/{name}"))["status"]["agents"] for one in scene.made.replicas]
        return shown == [0, 0, 0]

    await until(none, "nobody to be seen by any", 3.0)

    async def unavailable() -> bool:
        return await scene.condition(holder, name) != "True"

    await until(unavailable, "the cluster not to be available", 45.0)
    removed = await scene.kulvert(bystander, "cluster", "remove", own)
    assert "the name is free" in removed.check().out

    async def gone() -> bool:
        lists = [(await scene.kulvert(one, "cluster", "list")).check().out for one in scene.made.replicas]
        return not any(own in one for one in lists)

    await until(gone, "the cluster to be gone from all lists", 5.0)


def _account(name: str) -> dict[str, Any]:
    return {
        "apiVersion": "kulvert.dev/v1alpha1",
        "kind": "ManagedServiceAccount",
        "metadata": {"name": "deployer"},
        "spec": {"cluster": name, "namespace": "managed", "holder": "ada", "file": f"{name}.token"},
    }


async def _whoami(cluster: Cluster, token: str) -> str:
    path = await token_kubeconfig(cluster, token, "sharded.whoami.kubeconfig")
    told = await cluster.kubectl("auth", "whoami", "-o", "jsonpath={.status.userInfo.username}", kubeconfig=path)
    return told.out if told.returncode == 0 else "refused"


async def _there(cluster: Cluster, path: str) -> bool:
    try:
        await cluster.api.get(path)
    except ApiError:
        return False
    return True


async def test_a_service_account_is_managed_and_its_cluster_removed_from_anywhere(scene: Scene) -> None:
    name, holder, bystander = await scene.elsewhere("removed")
    alpha, api, leader = scene.alpha, scene.api(bystander), await scene.made.holder()
    (await alpha.kubectl("apply", "-f", ACCOUNTS)).check()
    await scene.attach(name, managedServiceAccounts=True)
    path = f"/clusters/{name}/managedserviceaccounts/managed/deployer"
    made = await api.ask("PUT", path, _account(name))
    assert made.code in (200, 201), made

    async def issued() -> bool:
        status = (await api.get(path))["status"]
        return all(one["status"] == "True" for one in status["conditions"]) and "expirationTimestamp" in status

    await until(issued, "a token", 20.0)
    files = {
        one: list((scene.made.replicas[one].state / "serviceaccounts").glob("**/*.token"))
        for one in scene.made.replicas
    }
    assert {one for one, found in files.items() if found} == {leader}
    token = files[leader][0].read_text()
    assert await _whoami(alpha, token) == "system:serviceaccount:managed:deployer"
    account = "/api/v1/namespaces/managed/serviceaccounts/deployer"
    assert await _there(alpha, account)

    removed = await api.ask("DELETE", f"/clusters/{name}")
    assert removed.code == 202, removed
    assert removed.body["status"]["agents"] == 1

    async def cleaned() -> bool:
        return not await _there(alpha, account)

    await until(cleaned, "the account to be deleted", 20.0)

    async def freed() -> bool:
        found = await api.ask("GET", f"/clusters/{name}")
        return found.code == 404

    await until(freed, "the name to be free", 60.0)
    for replica in scene.made.replicas:
        assert name not in [one["metadata"]["name"] for one in (await scene.api(replica).get("/clusters"))["items"]]
    assert await scene.agents_at(holder, name) == 0
    (await alpha.kubectl("delete", "-f", ACCOUNTS, "--wait=false", "--ignore-not-found")).check()

    async def sent_away() -> bool:
        refused = await alpha.kubectl("get", "ns", kubeconfig=scene.made.replicas[bystander].kubeconfig(name))
        return "knows no cluster" in refused.err

    await until(sent_away, "users to be refused", 10.0)


async def test_a_name_given_to_another_cluster_anywhere_sends_the_agents_of_another_replica_away(scene: Scene) -> None:
    name, holder, bystander = await scene.elsewhere("switched")
    await scene.attach(name)
    assert await scene.agents_at(holder, name) == 1
    switched = await scene.api(bystander).ask("POST", f"/clusters/{name}/switch", {"clusterId": "another"})
    assert switched.code == 200, switched

    async def away() -> bool:
        return await scene.agents_at(holder, name) == 0

    await until(away, "the agent to be sent away", 5.0)


async def test_a_certificate_revoked_anywhere_sends_the_agent_of_another_replica_away(scene: Scene) -> None:
    name, _holder, bystander = await scene.elsewhere("revoked")
    await scene.attach(name)
    api = scene.api(bystander)
    serials = [one["metadata"]["name"] for one in (await api.get(f"/clusters/{name}/certificates"))["items"]]
    for serial in serials:
        assert (await api.ask("DELETE", f"/clusters/{name}/certificates/{serial}")).code == 200

    async def away() -> bool:
        return bool((await api.get(f"/clusters/{name}"))["status"]["agents"] == 0)

    await until(away, "the agent to be sent away", 30.0)


async def test_a_name_waits_for_the_connections_of_the_one_that_has_it(scene: Scene, cluster_b: Cluster) -> None:
    name, _holder, bystander = await scene.elsewhere("wanted")
    await scene.attach(name)
    second = await scene.made.first.second_agent(cluster_b, name)
    api = scene.api(bystander)

    async def asks() -> bool:
        return any(one["spec"]["clusterId"] == cluster_b.uid for one in (await api.get("/enrolments"))["items"])

    await until(asks, "the second cluster to ask", 20.0)
    accepted = await api.ask("POST", f"/clusters/{name}/accept", {"clusterId": cluster_b.uid})
    assert accepted.code == 200, accepted

    async def uid() -> str:
        return str((await api.get(f"/clusters/{name}"))["status"]["clusterId"])

    await asyncio.sleep(GRACE + 10)
    assert await uid() == scene.alpha.uid
    await scene.made.first.stop_agent(name)
    began = time.monotonic()

    async def taken() -> bool:
        return await uid() == cluster_b.uid

    await until(taken, "the second cluster to have the name", 60.0)
    assert time.monotonic() - began >= GRACE - 1
    assert second.exited is None


async def test_a_grant_made_at_one_replica_counts_at_all(scene: Scene) -> None:
    name, _, bystander = await scene.elsewhere("granted")
    await scene.attach(name)
    spec = {"subjects": [{"kind": "User", "name": "grace"}], "clusters": [name]}
    document = {"apiVersion": "kulvert.dev/v1alpha1", "kind": "Grant", "metadata": {"name": "grace"}, "spec": spec}
    kubeconfigs = {one: made.kubeconfig(name, "grace", ()) for one, made in scene.made.replicas.items()}

    async def told(replica: str) -> str:
        found = await scene.alpha.kubectl("get", "ns", kubeconfig=kubeconfigs[replica])
        return found.err

    assert all(["no grant" in await told(one) for one in kubeconfigs])
    made = await scene.api(bystander).ask("POST", "/grants", document)
    assert made.code == 201, made

    async def all_let() -> bool:
        said = await asyncio.gather(*map(told, kubeconfigs))
        return not any("no grant" in one for one in said)

    await until(all_let, "the grant to count at all", 5.0)
    assert (await scene.api(bystander).ask("DELETE", "/grants/grace")).code == 200

    async def none_let() -> bool:
        return all("no grant" in one for one in await asyncio.gather(*map(told, kubeconfigs)))

    await until(none_let, "the grant to count nowhere", 5.0)


async def test_a_credential_revoked_at_one_replica_is_refused_by_all(scene: Scene) -> None:
    _, holder, bystander = await scene.elsewhere("any")
    request = {"apiVersion": "kulvert.dev/v1alpha1", "kind": "TokenRequest", "spec": {"expirationSeconds": 900}}
    made = await scene.api(bystander, "hopper").ask("POST", "/tokenrequests", request)
    assert made.code == 201, made
    token = made.body["status"]["token"]

    async def codes() -> set[int]:
        return {(await scene.bearer(one, token).ask("GET", "/version", base="")).code for one in scene.made.replicas}

    assert await codes() == {200}
    (await scene.kulvert(holder, "certificate", "revoke", "--user", "hopper")).check()

    async def refused() -> bool:
        return await codes() == {401}

    await until(refused, "the token to be refused by all", 10.0)

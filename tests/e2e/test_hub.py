"""A real kube-apiserver as the hub: its word on tokens and access, and its Grant objects, schema and all."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import ec

from auth.authenticator import AuthenticationFailed, AuthenticationUnavailable, Undecided
from auth.decision import Decision
from auth.grants.accessreview import AccessReviews
from auth.identity import Credentials, Identity
from auth.oidc.jwkscache import IssuerKeys
from auth.oidc.token import read_token
from auth.tokenreview import HubFetcher, TokenReviewAuthenticator
from gateway.hub.client import Hub, HubError
from gateway.hub.grants import GRANTS, read
from gateway.hub.informer import Informer, InformerTiming
from gateway.hub.settings import HubSettings
from gateway.settling import settled
from tests.support.cluster import Cluster
from tests.support.cluster_api import Object, until
from tests.support.cluster_helpers import RBAC, bind, service_account_token, token_kubeconfig
from tests.support.token_forge import Forge

CHARTS = Path(__file__).parents[2] / "charts"
CRDS = CHARTS / "crds"
ADA = Identity("ada", ("dev",), "", (), "x509", "X509SHA256=1", 2**40)


@pytest.fixture
async def hub(cluster_a: Cluster) -> AsyncIterator[Hub]:
    async with Hub(HubSettings(kubeconfig=cluster_a.admin_kubeconfig)) as opened:
        yield opened


class Reviewing:
    """The authenticator of one hub, and how often it has asked for a review."""

    def __init__(self, hub: Hub) -> None:
        self.reviews = 0
        self._hub = hub
        self._keys = IssuerKeys("the hub", HubFetcher(hub.key_set), time.time)

    async def authenticate(self, *tokens: str) -> list[Identity | AuthenticationFailed | None]:
        issuers = await self._hub.issuers()
        authenticator = TokenReviewAuthenticator(
            self._review, lambda: issuers, self._keys, frozenset({"kulvert"}), asyncio.get_running_loop().time
        )
        running = asyncio.create_task(self._keys.run(), name="keys of the hub")
        try:
            return [await self._one(authenticator, token) for token in tokens]
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    async def _one(self, authenticator: TokenReviewAuthenticator, token: str) -> Identity | AuthenticationFailed | None:
        try:
            return await settled(
                lambda: authenticator.authenticate(Credentials(b"Bearer " + token.encode()), time.time())
            )
        except AuthenticationFailed as failed:
            return failed

    async def _review(self, token: str) -> Mapping[str, Any]:
        self.reviews += 1
        return await self._hub.review_token(token)


async def reviewed(hub: Hub, token: str) -> Identity | None:
    (found,) = await Reviewing(hub).authenticate(token)
    if isinstance(found, AuthenticationFailed):
        raise found
    return found


async def test_a_service_account_of_the_hub_is_known_by_a_token_for_us(hub: Hub, cluster_a: Cluster) -> None:
    found = await reviewed(hub, await service_account_token(cluster_a, "default", "robot", audiences=("kulvert",)))
    assert found is not None
    assert (found.user, found.source) == ("system:serviceaccount:default:robot", "hub")
    assert {"system:serviceaccounts", "system:serviceaccounts:default"} <= set(found.groups)
    assert 3000 < found.expires - time.time() <= 3660


async def test_a_token_for_the_hub_itself_is_not_for_us(hub: Hub, cluster_a: Cluster) -> None:
    with pytest.raises(AuthenticationFailed):
        await reviewed(hub, await service_account_token(cluster_a, "default", "robot"))


async def test_a_forged_token_of_the_right_issuer_never_reaches_the_review(hub: Hub, cluster_a: Cluster) -> None:
    good = await service_account_token(cluster_a, "default", "robot", audiences=("kulvert",))
    head, body, signature = good.split(".")
    told = read_token(good)
    stranger = ec.generate_private_key(ec.SECP256R1())
    forged = Forge(stranger, str(told.kid), told.claims, int(time.time()))
    reviewing = Reviewing(hub)
    tokens = [f"{head}.{body}.{'A' * len(signature)}", forged.good(), *forged.bad().values(), forged.headed(kid=None)]
    answers = await reviewing.authenticate(*tokens, good)
    assert not any(isinstance(answer, Identity | AuthenticationUnavailable) for answer in answers[:-1])
    assert isinstance(answers[-1], Identity)
    assert reviewing.reviews == 1, "of the good one"


async def test_the_token_of_a_deleted_account_is_refused(hub: Hub, cluster_a: Cluster) -> None:
    token = await service_account_token(cluster_a, "default", "shortlived", audiences=("kulvert",))
    await cluster_a.api.request("DELETE", "/api/v1/namespaces/default/serviceaccounts/shortlived")
    with pytest.raises(AuthenticationFailed, match="does not know this token"):
        await reviewed(hub, token)


ASKED = ("/openid/v1/jwks", "/.well-known/openid-configuration")


async def may_get(cluster: Cluster, path: str) -> bool:
    return (await cluster.kubectl("auth", "can-i", "get", path, "--as", "by-role-alone")).out == "yes"


async def test_the_servers_role_reads_the_keys_and_reviews(cluster_a: Cluster) -> None:
    """Asked for a user who has that role alone: all service accounts may read the keys in a cluster as it comes."""
    assert not [path for path in ASKED if await may_get(cluster_a, path)]
    (await cluster_a.kubectl("apply", "--server-side", "-f", CHARTS / "server-hub-rbac.yaml")).check()
    try:
        await bind(cluster_a, "kulvert-server", user="by-role-alone")
        assert [path for path in ASKED if await may_get(cluster_a, path)] == [*ASKED]
        own = await service_account_token(cluster_a, "kulvert", "kulvert-server")
        config = await token_kubeconfig(cluster_a, own, "reviewer.kubeconfig")
        robot = await service_account_token(cluster_a, "default", "robot", audiences=("kulvert",))
        async with Hub(HubSettings(kubeconfig=config)) as as_the_server:
            assert await reviewed(as_the_server, robot) is not None
    finally:
        role = ("-f", CHARTS / "server-hub-rbac.yaml", "-l", "app.kubernetes.io/name=kulvert-server")
        await cluster_a.kubectl("delete", *role, "--ignore-not-found")
        await cluster_a.kubectl("delete", "clusterrolebinding", "kulvert-server-by-role-alone", "--ignore-not-found")


async def allowed(hub: Hub, verb: str, cluster: str = "edge-7") -> bool:
    reviews = AccessReviews(hub.review_access, asyncio.get_running_loop().time)
    asked = Request(verb)
    try:
        decision: Decision = reviews.decide(ADA, cluster, time.time(), asked)
    except Undecided as undecided:
        await undecided.settle()
        decision = reviews.decide(ADA, cluster, time.time(), asked)
    return decision.allowed


class Request:
    """A resource request with a verb."""

    path = api_group = namespace = resource = subresource = name = ""
    is_resource_request, interactive = True, False

    def __init__(self, verb: str) -> None:
        self.verb = verb


async def test_the_hubs_rbac_decides_by_cluster_and_verb(hub: Hub, cluster_a: Cluster) -> None:
    rule = {
        "apiGroups": ["cluster.open-cluster-management.io"],
        "resources": ["managedclusters/proxy"],
        "resourceNames": ["edge-7"],
        "verbs": ["get", "list", "watch"],
    }
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "reach-edge-7"}
    meta = {"metadata": {"name": "reach-edge-7"}}
    subject = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "dev"}
    await cluster_a.api.create(f"{RBAC}/clusterroles", meta | {"rules": [rule]})
    await cluster_a.api.create(f"{RBAC}/clusterrolebindings", meta | {"roleRef": reference, "subjects": [subject]})
    await cluster_a.wait_for(lambda: allowed(hub, "list"), "the binding to be in force")
    assert not await allowed(hub, "create")
    assert not await allowed(hub, "get", "edge-8")


async def test_a_hub_that_is_not_there_is_unavailable_and_not_a_no(tmp_path: Path, cluster_a: Cluster) -> None:
    document = yaml.safe_load(cluster_a.admin_kubeconfig.read_text())
    document["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:1"
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump(document))
    async with Hub(HubSettings(kubeconfig=path)) as nobody:
        with pytest.raises(AuthenticationUnavailable, match="cannot be reached"):
            await nobody.review_access({})
        with pytest.raises(AuthenticationUnavailable):
            await nobody.review_token("s3cr3t")
        with pytest.raises(AuthenticationUnavailable):
            await nobody.key_set()


async def test_a_wrong_kubeconfig_says_so(tmp_path: Path) -> None:
    with pytest.raises(HubError, match="there is no such file"):
        async with Hub(HubSettings(kubeconfig=tmp_path / "missing")):
            pass


# --- the Grant objects' schema, judged by the API server


@pytest.fixture
async def grants(cluster_a: Cluster) -> None:
    result = await cluster_a.kubectl("apply", "--server-side", "-f", CRDS)
    assert result.returncode == 0, result.stderr
    done = await cluster_a.kubectl("wait", "--for=condition=Established", "crd/grants.kulvert.dev", "--timeout=20s")
    assert done.returncode == 0, done.stderr


def grant(name: str = "dev", **spec: Any) -> Object:
    base = {"subjects": [{"kind": "Group", "name": "dev"}], "clusters": ["edge-*"]}
    spec = {key: value for key, value in (base | spec).items() if value is not None}
    return {"apiVersion": "kulvert.dev/v1alpha1", "kind": "Grant", "metadata": {"name": name}, "spec": spec}


async def dry_run(cluster: Cluster, document: Object) -> str:
    """ "" where the API server takes it, else its words."""
    result = await cluster.kubectl("create", "--dry-run=server", "-f", "-", input=yaml.safe_dump(document).encode())
    return "" if result.returncode == 0 else result.err


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ({}, ""),
        ({"clusters": None, "clusterSelector": {"matchLabels": {"env": "dev"}}}, ""),
        ({"access": {"readOnly": True, "namespaces": ["team-*"], "interactive": ["exec"]}}, ""),
        ({"expirationTimestamp": "2027-01-01T00:00:00Z", "delegate": True}, ""),
        ({"clusters": None}, "clusterSelector"),
        ({"subjects": []}, "at least 1"),
        ({"subjects": [{"kind": "Robot", "name": "x"}]}, "Unsupported value"),
        ({"subjects": [{"kind": "User", "name": "x", "namespace": "apps"}]}, "go with a ServiceAccount"),
        ({"subjects": [{"kind": "ServiceAccount", "name": "x"}]}, "go with a ServiceAccount"),
        (
            {"subjects": [{"kind": "ServiceAccount", "namespace": "ci", "name": "x", "cluster": "edge-7"}]},
            "passThrough",
        ),
        ({"clusters": ["Edge"]}, "should match"),
        ({"expirationTimestamp": "tomorrow"}, "date-time"),
        ({"grantedBy": {"user": "ada"}, "allowProtected": ["system:masters"]}, "no protected identities"),
        ({"acces": {"readOnly": True}}, "unknown field"),
    ],
)
@pytest.mark.usefixtures("grants")
async def test_the_schema_says_what_a_grant_is(cluster_a: Cluster, spec: dict[str, Any], why: str) -> None:
    answer = await dry_run(cluster_a, grant(**spec))
    assert (why in answer) if why else not answer, answer


# --- delegation at the hub: who may not administer grants can only grant in his own name


async def create_as(cluster: Cluster, user: str, document: Object) -> str:
    who = ("--as", user, "--as-group", "owners", "--as-group", "system:authenticated")
    result = await cluster.kubectl("create", *who, "-f", "-", input=yaml.safe_dump(document).encode())
    return "" if result.returncode == 0 else result.err


@pytest.mark.usefixtures("grants")
async def test_an_owner_grants_in_his_own_name_or_not_at_all(cluster_a: Cluster) -> None:
    rule = {"apiGroups": ["kulvert.dev"], "resources": ["grants"], "verbs": ["create", "update", "delete", "get"]}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "grant-writers"}
    meta = {"metadata": {"name": "grant-writers"}}
    subject = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "owners"}
    await cluster_a.api.create(f"{RBAC}/clusterroles", meta | {"rules": [rule]})
    await cluster_a.api.create(f"{RBAC}/clusterrolebindings", meta | {"roleRef": reference, "subjects": [subject]})

    async def own_is_taken() -> bool:
        own = grant("ada-own", grantedBy={"user": "ada", "groups": ["owners"]})
        return not await create_as(cluster_a, "ada", own) or "AlreadyExists" in await create_as(cluster_a, "ada", own)

    await cluster_a.wait_for(own_is_taken, "ada to grant in her own name")

    async def policy_holds() -> bool:
        return "must name you" in await create_as(cluster_a, "ada", grant("ada-nobody"))

    await cluster_a.wait_for(policy_holds, "the admission policy to be in force")
    for name, by in (("bob", {"user": "bob"}), ("group", {"user": "ada", "groups": ["kulvert:admins"]})):
        assert "must name you" in await create_as(cluster_a, "ada", grant(f"ada-{name}", grantedBy=by))
    stranger = await cluster_a.kubectl("delete", "grants.kulvert.dev", "ada-own", "--as", "bob", "--as-group", "owners")
    assert "granted yourself" in stranger.err


# --- reading them


class Reader:
    """What an informer has read."""

    def __init__(self, hub: Hub) -> None:
        self.informer = Informer(hub.api, GRANTS, read, lambda: 0.5, InformerTiming(watch=5, page=5, most=1))

    async def sees(self, *names: str) -> bool:
        return self.informer.items.keys() == set(names)


@pytest.mark.usefixtures("grants")
async def test_objects_are_read_and_followed_and_outlive_the_hubs_absence(hub: Hub, cluster_a: Cluster) -> None:
    path = "/apis/kulvert.dev/v1alpha1/grants"
    await cluster_a.kubectl("delete", "grants.kulvert.dev", "--all")
    await cluster_a.api.create(path, grant("one"))
    reader = Reader(hub)
    running = asyncio.create_task(reader.informer.run(), name="read grants")
    try:
        await cluster_a.wait_for(lambda: reader.sees("one"), "the list")
        await cluster_a.api.create(path, grant("two"))
        await cluster_a.wait_for(lambda: reader.sees("one", "two"), "the watch")
        await cluster_a.api.request("DELETE", f"{path}/one")
        await cluster_a.wait_for(lambda: reader.sees("two"), "the deletion")
        await cluster_a.stop_apiserver(0)
        await until(lambda: _is(reader.informer.problem is not None), "the absence to be noticed", 10)
        assert await reader.sees("two"), "what was read last counts"
        await cluster_a.start_apiserver()
        await cluster_a.api.create(path, grant("three"))
        await cluster_a.wait_for(lambda: reader.sees("two", "three"), "the next list")
        assert reader.informer.problem is None
        await asyncio.sleep(6)
        await cluster_a.api.request("DELETE", f"{path}/two")
        await cluster_a.wait_for(lambda: reader.sees("three"), "the watch after the watch")
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def _is(yes: bool) -> bool:
    return yes

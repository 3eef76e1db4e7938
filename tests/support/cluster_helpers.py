"""What tests need in a cluster again and again: pods, tokens, roles, and the identity that an agent has."""

from dataclasses import dataclass
from pathlib import Path

from tests.support import cluster_objects as objects
from tests.support.cluster import Cluster
from tests.support.cluster_api import Object
from tests.support.cluster_config import write_kubeconfig
from tests.support.cluster_pki import write_private

AGENT_NAMESPACE = "kulvert"
AGENT_ACCOUNT = "kulvert-agent"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"


@dataclass(frozen=True)
class AgentIdentity:
    """What is mounted into an agent's pod: where its API server is, whom to trust, and its token."""

    server: str
    ca_file: Path
    token_file: Path
    namespace: str
    service_account: str

    @property
    def user(self) -> str:
        """Its name, as the API server knows it."""
        return f"system:serviceaccount:{self.namespace}:{self.service_account}"

    @property
    def token(self) -> str:
        """Its bound token, read afresh, since tokens are rotated."""
        return self.token_file.read_text()


async def create_namespace(cluster: Cluster, name: str) -> None:
    """Makes a namespace, and waits until pods are admitted there."""
    await cluster.api.create("/api/v1/namespaces", objects.namespace(name))
    account = f"/api/v1/namespaces/{name}/serviceaccounts/default"
    await cluster.wait_for(lambda: cluster.api.get(account), f"service accounts in {name}")


async def create_pod(cluster: Cluster, name: str, namespace: str = "default") -> Object:
    """Makes a pod on the node, and returns it once it runs."""
    pods = f"/api/v1/namespaces/{namespace}/pods"
    await cluster.api.create(pods, objects.pod(name))

    async def running() -> Object | None:
        pod = await cluster.api.get(f"{pods}/{name}")
        return pod if pod["status"]["phase"] == "Running" else None

    pod = await cluster.wait_for(running, f"pod {namespace}/{name} to run")
    assert pod
    return pod


async def delete_pod(cluster: Cluster, name: str, namespace: str = "default") -> None:
    """Deletes a pod, which ends what follows its log too."""
    await cluster.api.request("DELETE", f"/api/v1/namespaces/{namespace}/pods/{name}")
    cluster.log_file(namespace, name).unlink(missing_ok=True)


async def service_account_token(
    cluster: Cluster, namespace: str, name: str, seconds: int = 3600, audiences: tuple[str, ...] = ()
) -> str:
    """Makes the service account if need be, and a bound token for it (TokenRequest)."""
    accounts = f"/api/v1/namespaces/{namespace}/serviceaccounts"
    await cluster.api.create(accounts, objects.service_account(name))
    request = objects.token_request(seconds, audiences)
    answer = await cluster.api.request("POST", f"{accounts}/{name}/token", request)
    token: str = answer["status"]["token"]
    return token


async def bind(cluster: Cluster, role: str, *, user: str = "", group: str = "") -> None:
    """Binds a ClusterRole to a user or a group, and returns when that is in force."""
    subject = objects.user_subject(user) if user else objects.group_subject(group)
    binding = objects.binding(f"{role}-{user or group}".replace(":", "-").replace("@", "-"), role, subject)
    await cluster.api.create(f"{RBAC}/clusterrolebindings", binding)
    await _in_force(cluster, role, user=user, group=group)


async def _in_force(cluster: Cluster, role: str, *, user: str = "", group: str = "") -> None:
    """Waits until the API server's authoriser has seen a binding: it watches them, and may lag behind."""
    rules = (await cluster.api.get(f"{RBAC}/clusterroles/{role}"))["rules"]
    review = objects.access_review(next(rule for rule in rules if "resources" in rule), user=user, group=group)

    async def allowed() -> bool:
        answer = await cluster.api.request("POST", REVIEWS, review)
        return bool(answer["status"]["allowed"])

    await cluster.wait_for(allowed, f"{role} to be in force for {user or group}")


async def token_kubeconfig(cluster: Cluster, token: str, file_name: str) -> Path:
    """A kubeconfig for the cluster itself, by token."""
    path = cluster.directory / file_name
    write_kubeconfig(path, cluster.name, cluster.server, cluster.ca_pem, {"token": token})
    return path


async def agent_identity(
    cluster: Cluster, namespace: str = AGENT_NAMESPACE, name: str = AGENT_ACCOUNT, seconds: int = 3600
) -> AgentIdentity:
    """Makes the service account of an agent, its role (unrestricted impersonation), and its token's file."""
    await create_namespace(cluster, namespace)
    token = await service_account_token(cluster, namespace, name, seconds)
    await cluster.api.create(f"{RBAC}/clusterroles", objects.impersonator(name))
    subject = objects.service_account_subject(namespace, name)
    await cluster.api.create(f"{RBAC}/clusterrolebindings", objects.binding(name, name, subject))
    path = cluster.directory / f"{namespace}-{name}.token"
    write_private(path, token.encode())
    identity = AgentIdentity(cluster.server, cluster.ca_file, path, namespace, name)
    await _in_force(cluster, name, user=identity.user)
    return identity

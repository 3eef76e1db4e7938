"""The files and command lines of one cluster: what kubeadm would write, cut down to what a test needs."""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.support.cluster_pki import Authority, KeyPair, signing_key, write_private

STAGES = Path(__file__).parent.parent / "testbed" / "stages.yaml"
CONTROLLERS = (
    "namespace-controller",
    "serviceaccount-controller",
    "root-ca-certificate-publisher-controller",
    "garbage-collector-controller",
    "clusterrole-aggregation-controller",
    "deployment-controller",
    "replicaset-controller",
    "job-controller",
)


@dataclass(frozen=True)
class Ports:
    """Where the cluster's servers listen, on 127.0.0.1."""

    etcd: int
    etcd_peer: int
    apiserver: int
    kubelet: int


@dataclass(frozen=True)
class Files:
    """One cluster's directory: PKI, kubeconfigs, logs of processes and of containers, containers' files."""

    name: str
    root: Path
    ca: Authority
    apiserver: KeyPair
    kubelet: KeyPair
    kubelet_client: KeyPair
    admin: KeyPair
    service_account_key: Path
    admin_kubeconfig: Path
    stages: Path

    @property
    def container_logs(self) -> Path:
        """NAMESPACE_POD_CONTAINER.log, what `kubectl logs` shows."""
        return self.root / "container-logs"

    @property
    def container_files(self) -> Path:
        """The working directory of all commands that exec runs."""
        return self.root / "container-files"

    @property
    def home(self) -> Path:
        """kubectl's home, for its caches."""
        return self.root / "home"


def write_files(root: Path, name: str, ports: Ports) -> Files:
    """Makes everything that has to be there before the first process starts."""
    for directory in ("container-logs", "container-files", "home"):
        (root / directory).mkdir()
    ca = Authority(root, name)
    admin = ca.client(f"{name}-admin", "system:masters")
    kubeconfig, stages = root / "admin.kubeconfig", root / "stages.yaml"
    write_kubeconfig(kubeconfig, name, f"https://127.0.0.1:{ports.apiserver}", ca.pem, client_certificate(admin))
    stages.write_text(STAGES.read_text().replace("KUBELET_PORT", str(ports.kubelet)))
    return Files(
        name,
        root,
        ca,
        apiserver=ca.server("apiserver"),
        kubelet=ca.server("kubelet"),
        kubelet_client=ca.client("kube-apiserver-kubelet-client", "system:masters"),
        admin=admin,
        service_account_key=signing_key(root / "service-account.key"),
        admin_kubeconfig=kubeconfig,
        stages=stages,
    )


def client_certificate(pair: KeyPair) -> dict[str, str]:
    """A kubeconfig's user by certificate."""
    return {"client-certificate-data": _base64(pair.cert), "client-key-data": _base64(pair.key)}


def write_kubeconfig(path: Path, name: str, server: str, ca_pem: bytes, user: Mapping[str, str]) -> None:
    """A kubeconfig with one context, in JSON, which is YAML."""
    cluster = {"server": server, "certificate-authority-data": base64.b64encode(ca_pem).decode()}
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": cluster}],
        "users": [{"name": name, "user": dict(user)}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "current-context": name,
    }
    write_private(path, json.dumps(content, indent=1).encode())


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()

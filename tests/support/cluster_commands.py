"""The command line of each of a cluster's processes."""

from collections.abc import Callable
from pathlib import Path

from tests.support.cluster_config import CONTROLLERS, Files, Ports

Command = list[str | Path]


def etcd(binaries: Path, files: Files, ports: Ports) -> Command:
    """Without fsync: its data lives as long as the test run."""
    client, peer = f"http://127.0.0.1:{ports.etcd}", f"http://127.0.0.1:{ports.etcd_peer}"
    return [
        binaries / "etcd",
        f"--data-dir={files.root / 'etcd'}",
        "--unsafe-no-fsync",
        "--log-level=warn",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
    ]


def kube_apiserver(binaries: Path, files: Files, ports: Ports) -> Command:
    """Without the taint that a node-lifecycle controller would take off again: nothing schedules here."""
    return [
        binaries / "kube-apiserver",
        f"--etcd-servers=http://127.0.0.1:{ports.etcd}",
        "--bind-address=127.0.0.1",
        f"--secure-port={ports.apiserver}",
        f"--tls-cert-file={files.apiserver.cert}",
        f"--tls-private-key-file={files.apiserver.key}",
        f"--client-ca-file={files.ca.file}",
        "--authorization-mode=RBAC",
        "--disable-admission-plugins=TaintNodesByCondition",
        f"--kubelet-certificate-authority={files.ca.file}",
        f"--kubelet-client-certificate={files.kubelet_client.cert}",
        f"--kubelet-client-key={files.kubelet_client.key}",
        "--kubelet-preferred-address-types=InternalIP",
        f"--service-account-key-file={files.service_account_key}",
        f"--service-account-signing-key-file={files.service_account_key}",
        "--service-account-issuer=https://kubernetes.default.svc",
        "--service-cluster-ip-range=10.0.0.0/24",
        "--endpoint-reconciler-type=none",
    ]


def kube_controller_manager(binaries: Path, files: Files, _ports: Ports) -> Command:
    """Only the controllers whose work tests look at; nothing elects a leader among one."""
    return [
        binaries / "kube-controller-manager",
        f"--kubeconfig={files.admin_kubeconfig}",
        f"--controllers={','.join(CONTROLLERS)}",
        f"--root-ca-file={files.ca.file}",
        f"--service-account-private-key-file={files.service_account_key}",
        "--leader-elect=false",
        "--secure-port=0",
        "--kube-api-qps=200",
        "--kube-api-burst=400",
    ]


def kwok(binaries: Path, files: Files, _ports: Ports) -> Command:
    """Keeps nodes and pods up. Its own server for streams stays off: it loses exit codes."""
    return [
        binaries / "kwok",
        f"--kubeconfig={files.admin_kubeconfig}",
        f"--config={files.stages}",
        "--manage-all-nodes",
    ]


def kubelet(binaries: Path, files: Files, ports: Ports) -> Command:
    """Our own program, see tests/testbed/kubernetes/kubelet."""
    return [
        binaries / "kubelet",
        f"--listen=127.0.0.1:{ports.kubelet}",
        f"--tls-cert-file={files.kubelet.cert}",
        f"--tls-private-key-file={files.kubelet.key}",
        f"--client-ca-file={files.ca.file}",
        f"--cluster={files.name}",
        f"--files={files.container_files}",
        f"--logs={files.container_logs}",
    ]


COMMANDS: dict[str, Callable[[Path, Files, Ports], Command]] = {
    "etcd": etcd,
    "kube-apiserver": kube_apiserver,
    "kube-controller-manager": kube_controller_manager,
    "kwok": kwok,
    "kubelet": kubelet,
}

"""What the test bed consists of, and the key under which a build of exactly that is kept."""

import hashlib
import platform
import re
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Binary:
    """One program: where its module pins it, what it is called there, and whether others bring it too."""

    name: str
    module: str
    package: str
    bring_own: bool = True  # False: an ordinary KUBEBUILDER_ASSETS directory has it already

    @property
    def directory(self) -> Path:
        """Where the go command has to run, for this program's go.mod to count."""
        return HERE / self.module


BINARIES = (
    Binary("etcd", "kubernetes", "./etcd", bring_own=False),
    Binary("kube-apiserver", "kubernetes", "k8s.io/kubernetes/cmd/kube-apiserver", bring_own=False),
    Binary("kubectl", "kubernetes", "k8s.io/kubernetes/cmd/kubectl", bring_own=False),
    Binary("kube-controller-manager", "kubernetes", "k8s.io/kubernetes/cmd/kube-controller-manager"),
    Binary("kubelet", "kubernetes", "./kubelet"),
    Binary("kwok", "kwok", "sigs.k8s.io/kwok/cmd/kwok"),
    Binary("dex", "dex", "."),
)
GO_MODULES = tuple(sorted({binary.module for binary in BINARIES}))


def kubernetes_version() -> str:
    """The release as its go.mod line pins it, for `kubectl version` and /version to say."""
    match = re.search(r"^\s*k8s\.io/kubernetes v(\S+)$", (HERE / "kubernetes" / "go.mod").read_text(), re.M)
    assert match, "kubernetes/go.mod pins no k8s.io/kubernetes"
    return match[1]


def go_needed() -> tuple[int, ...]:
    """The newest Go that any of the modules asks for."""
    lines = [(HERE / module / "go.mod").read_text() for module in GO_MODULES]
    versions = [re.search(r"^go (\d+(?:\.\d+)*)$", text, re.M) for text in lines]
    return max(tuple(int(part) for part in match[1].split(".")) for match in versions if match)


def ldflags() -> str:
    """Without symbols (half the size), and with the version that release builds are stamped with."""
    version = kubernetes_version()
    major, minor = version.split(".")[:2]
    stamp = {"gitVersion": f"v{version}", "gitMajor": major, "gitMinor": minor}
    return "-s -w " + " ".join(f"-X k8s.io/component-base/version.{k}={v}" for k, v in stamp.items())


def key() -> str:
    """Changes with whatever a build depends on: pins, our own Go source, the flags, the platform."""
    digest = hashlib.sha256(repr((BINARIES, ldflags(), platform.system(), platform.machine())).encode())
    for path in sorted(p for module in GO_MODULES for p in (HERE / module).rglob("*") if _is_source(p)):
        digest.update(f"\0{path.relative_to(HERE)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _is_source(path: Path) -> bool:
    return path.name in ("go.mod", "go.sum") or path.suffix == ".go"

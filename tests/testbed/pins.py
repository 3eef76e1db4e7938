"""What the test bed consists of, and the keys under which builds of exactly that are kept."""

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

    @property
    def key(self) -> str:
        """Changes with whatever the build of this program depends on: pins, our own Go source, flags, platform."""
        made = repr((self, ldflags(self), platform.system(), platform.machine()))
        digest = hashlib.sha256(made.encode())
        for path in sorted(path for path in self.directory.rglob("*") if _is_source(path)):
            digest.update(f"\0{path.relative_to(HERE)}\0".encode() + path.read_bytes())
        return digest.hexdigest()[:16]


BINARIES = (
    Binary("etcd", "kubernetes", "./etcd", bring_own=False),
    Binary("kube-apiserver", "kubernetes", "k8s.io/kubernetes/cmd/kube-apiserver", bring_own=False),
    Binary("kubectl", "kubernetes", "k8s.io/kubernetes/cmd/kubectl", bring_own=False),
    Binary("kube-controller-manager", "kubernetes", "k8s.io/kubernetes/cmd/kube-controller-manager"),
    Binary("kubelet", "kubernetes", "./kubelet"),
    Binary("kwok", "kwok", "sigs.k8s.io/kwok/cmd/kwok"),
    Binary("dex", "dex", "."),
    Binary("helm", "helm", "helm.sh/helm/v4/cmd/helm"),
)
GO_MODULES = tuple(sorted({binary.module for binary in BINARIES}))


def kubernetes_version() -> str:
    """The release as its go.mod line pins it, for `kubectl version` and /version to say."""
    return _pinned("kubernetes", "k8s.io/kubernetes")


def go_needed() -> tuple[int, ...]:
    """The newest Go that any of the modules asks for."""
    lines = [(HERE / module / "go.mod").read_text() for module in GO_MODULES]
    versions = [re.search(r"^go (\d+(?:\.\d+)*)$", text, re.M) for text in lines]
    return max(tuple(int(part) for part in match[1].split(".")) for match in versions if match)


def ldflags(binary: Binary) -> str:
    """Without symbols (half the size), and with the version that release builds are stamped with."""
    return "-s -w " + " ".join(f"-X {variable}={value}" for variable, value in _stamps(binary).items())


def key() -> str:
    """Of all programs together: changes when that of any of them does."""
    return hashlib.sha256(repr([(binary.name, binary.key) for binary in BINARIES]).encode()).hexdigest()[:16]


def _stamps(binary: Binary) -> dict[str, str]:
    if binary.module == "helm":
        return {"helm.sh/helm/v4/internal/version.version": f"v{_pinned('helm', 'helm.sh/helm/v4')}"}
    version = kubernetes_version()
    major, minor = version.split(".")[:2]
    stamp = {"gitVersion": f"v{version}", "gitMajor": major, "gitMinor": minor}
    return {f"k8s.io/component-base/version.{name}": value for name, value in stamp.items()}


def _pinned(module: str, path: str) -> str:
    match = re.search(rf"^(?:require)?\s*{re.escape(path)} v(\S+)$", (HERE / module / "go.mod").read_text(), re.M)
    assert match, f"{module}/go.mod pins no {path}"
    return match[1]


def _is_source(path: Path) -> bool:
    return path.name in ("go.mod", "go.sum") or path.suffix == ".go"

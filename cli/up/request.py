"""What `kulvert up` was asked for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

USER = "admin"
ADMINS = "kulvert:admins"
PORT = 8443
SAMPLE = "sample"
HOST = "127.0.0.1"
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Request:
    """`port` is None where the default one may give way; `kubectl` is how the printed commands call it."""

    cluster: str
    state_dir: Path
    kubeconfig: Path | None = None
    context: str | None = None
    port: int | None = None
    kubectl: str = "kubectl"

    @property
    def sample(self) -> bool:
        """Whether there is no cluster, so that the embedded API server stands in."""
        return self.kubeconfig is None

    @property
    def admin_kubeconfig(self) -> Path:
        """What the user goes on with."""
        return self.state_dir / "admin.kubeconfig"


def cluster_name(wanted: str | None, context: str | None, *, sample: bool) -> str:
    """The name asked for, else `sample`, else the context's where that is a name, else `cluster`."""
    if wanted is not None:
        return wanted
    if sample:
        return SAMPLE
    return context if context and _NAME.fullmatch(context) else "cluster"

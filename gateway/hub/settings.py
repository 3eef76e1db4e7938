"""Settings of what the server does with its hub."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class HubSettings:
    """`hub.…`: the Kubernetes cluster that the server belongs to, if any."""

    kubeconfig: Path | None = None
    """How to reach it from outside."""
    in_cluster: bool = False
    """The server runs in it, and has a service account there."""
    token_review: bool = False
    """Its service accounts are users (see docs/identity.md); the server may create TokenReviews there."""
    audiences: tuple[str, ...] = ("kulvert",)
    """The audiences that tokens of its service accounts must be for."""
    grants: bool = False
    """Its Grant objects (charts/crds) count, beside the grants file and the server's own."""
    access_review: bool = False
    """Its RBAC on managedclusters/proxy lets users in, too."""
    clusters: bool = False
    """Its ManagedClusters and the registry are kept alike, and each cluster has a heartbeat Lease there; the server
    needs charts/server-hub-clusters-rbac.yaml."""

    @property
    def wanted(self) -> bool:
        """Whether there is a hub at all."""
        return self.kubeconfig is not None or self.in_cluster


@dataclass(frozen=True, slots=True)
class AutoJoinSettings:
    """`autoJoin.…`: needs a hub, and charts/server-hub-join-rbac.yaml there."""

    enabled: bool = False
    agents_address: tuple[str, ...] = ()
    """Where agents reach this server: https://HOST:8444, in the order in which they try."""
    namespaces: tuple[str, ...] = ("kulvert-join",)
    """Namespaces of the hub in which Secrets with kubeconfigs may be."""
    image: str = ""
    """The agent's; without it kulvert/kulvert in the server's version."""
    timeout: float = 600.0
    """How long an installed agent may take until it is available."""

    def problems(self) -> Iterator[str]:
        """What cannot be, as texts for the configuration's reader."""
        if self.enabled and not self.agents_address:
            yield "autoJoin.enabled needs autoJoin.agentsAddress: where agents reach this server"
        if self.enabled and not self.namespaces:
            yield "autoJoin.namespaces is empty: name where Secrets with kubeconfigs may be"
        if any(not one.startswith("https://") for one in self.agents_address):
            yield "autoJoin.agentsAddress must be https://HOST[:PORT]"

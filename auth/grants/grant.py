"""One grant: who may reach which clusters there, for what, as whom, and until when."""

from __future__ import annotations

import math
from dataclasses import dataclass

from auth.decision import Decision, Impersonable
from auth.grants.access import Access
from auth.grants.labelselector import Labels, LabelSelector
from auth.grants.patterns import matches
from auth.identity import Identity
from auth.impersonation import EVERYBODY, HUB, AsWhom, own_headers
from tunnel.impersonate import ImpersonationRefused


@dataclass(frozen=True, slots=True)
class ServiceAccount:
    """A service account of the hub, or of one managed cluster."""

    namespace: str
    name: str
    cluster: str = ""

    @property
    def user(self) -> str:
        """As Kubernetes calls it."""
        return f"system:serviceaccount:{self.namespace}:{self.name}"


@dataclass(frozen=True, slots=True)
class Maker:
    """Who made a delegated grant, as authenticated then."""

    user: str
    groups: tuple[str, ...]
    source: str

    @property
    def identity(self) -> Identity:
        """Enough of one to ask grants about."""
        return Identity(self.user, self.groups, "", (), self.source, "", math.inf)


@dataclass(frozen=True, slots=True)
class Grant:
    """One rule. `clusters` are names, or patterns in which `*` stands for any characters; with a `selector` both must
    match. `access` None is everything. `expires` is epoch seconds. `priority` orders stored grants, lower first.

    `maker` is set where an owner made it by delegation; it is in force as long as that owner could make it again.
    """

    name: str
    users: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()
    clusters: tuple[str, ...] = ()
    impersonate: AsWhom | None = None
    allow_protected: frozenset[str] = frozenset()
    allow_user_impersonation: bool | Impersonable = False
    accounts: frozenset[ServiceAccount] = frozenset()
    selector: LabelSelector | None = None
    access: Access | None = None
    pass_through: bool = False
    delegate: bool = False
    expires: float = math.inf
    priority: int = 0
    maker: Maker | None = None

    def covers(self, cluster: str, labels: Labels = ()) -> bool:
        """Whether this grant speaks of a cluster."""
        if self.clusters and not any(matches(pattern, cluster) for pattern in self.clusters):
            return False
        if self.selector is not None:
            return self.selector.matches(labels)
        return bool(self.clusters)

    def decision(self, identity: Identity) -> Decision:
        """What it says to somebody whom it names, of a cluster that it covers and a request that it allows."""
        if identity.cluster:
            reason = f"allowed by grant {self.name!r}, as the cluster's own service account"
            return Decision(True, self.name, reason, pass_through=True, expires=self.expires)
        try:
            headers = own_headers(identity, self.impersonate, self.allow_protected)
        except ImpersonationRefused as refused:
            return Decision(False, self.name, f"grant {self.name!r} matches, but {refused}", expires=self.expires)
        return Decision(
            True,
            self.name,
            f"allowed by grant {self.name!r}",
            headers,
            self.allow_user_impersonation,
            self.allow_protected,
            expires=self.expires,
        )

    def subject_keys(self) -> list[str]:
        """Its subjects, each as a key that `keys_of` gives for whoever is that subject."""
        accounts = [one for one in self.accounts if not one.cluster or self.pass_through]
        return [
            *(f"u/{user}" for user in self.users),
            *(f"g/{group}" for group in self.groups),
            *(f"a/{one.cluster}/{one.user}" for one in accounts),
        ]


def keys_of(identity: Identity) -> list[str]:
    """All subjects that somebody is. A cluster's own service account is that and nothing else: neither a user nor in
    anybody's group, not even in everybody's.
    """
    if identity.cluster:
        return [f"a/{identity.cluster}/{identity.user}"]
    keys = [f"u/{identity.user}", *(f"g/{group}" for group in identity.groups), f"g/{EVERYBODY}"]
    if identity.source == HUB:
        keys.append(f"a//{identity.user}")
    return keys

"""The server's settings: frozen, typed, and checked against one another. How they are said is in `gateway.spelling`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from gateway.audit.settings import AuditSettings
from gateway.hub.settings import AutoJoinSettings, HubSettings
from gateway.issuing.settings import CertificatesConfig, FrontProxyConfig, TokensConfig
from gateway.limits import DoorLimits, DoorTimeouts
from gateway.membership.enrolments import EnrolmentSettings
from gateway.recording.settings import RecordingSettings
from gateway.replicas.settings import ReplicaSettings
from gateway.serviceaccounts.keeper import ServiceAccountSettings
from gateway.wellknownapi import LoginSettings
from stub.leases.settings import LeaseSettings

AUTHENTICATORS = ("front-proxy", "certificate", "token", "cluster", "oidc", "hub")
MOST_WORKERS = 64


class ConfigError(Exception):
    """The settings cannot be used; the text says which one, where, and what to do."""


@dataclass(frozen=True, slots=True)
class TlsConfig:
    """PEM files. Without them the server makes a CA and a certificate of its own in its state directory."""

    certificate: Path | None = None
    key: Path | None = None
    client_ca: Path | None = None
    """Further authorities of users' certificates, beside the platform's own."""
    client_crl: Path | None = None
    announced_ca: Path | None = None
    """The authority of the server's next certificate: agents hear of it before it is used."""


@dataclass(frozen=True, slots=True)
class AuthenticationConfig:
    """How users are known."""

    order: tuple[str, ...] = AUTHENTICATORS
    """The first that knows a credential decides."""
    config: Path | None = None
    """Kubernetes' AuthenticationConfiguration: the OIDC issuers."""


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """`kulvert serve`."""

    listen: tuple[str, ...] = ("127.0.0.1:8443",)
    agents_listen: tuple[str, ...] = ("127.0.0.1:8444",)
    names: tuple[str, ...] = ("localhost", "127.0.0.1")
    """Host names and addresses that clients and agents dial; the server's own certificate is made for them."""
    domain: str = ""
    """NAME.DOMAIN leads to cluster NAME. It must be a domain for clusters alone, not the gateway's own parent."""
    state_dir: Path = Path("/var/lib/kulvert")
    grants: Path | None = None
    workers: int = 0
    """Processes that share the work, each with a core of its own; 0 or 1: this process alone."""
    agent_links: int = 20_000
    """Links of agents that this process takes in all: one for each agent, and own links besides."""
    server_id: str = "kulvert"
    """This server's name in the challenge to its agents (docs/protocol.md, 3)."""
    metrics_group: str = "kulvert:admins"
    admin_groups: tuple[str, ...] = ("kulvert:admins",)
    """Platform administrators: they may change all grants and clusters."""
    tls: TlsConfig = field(default_factory=TlsConfig)
    authentication: AuthenticationConfig = field(default_factory=AuthenticationConfig)
    front_proxy: FrontProxyConfig = field(default_factory=FrontProxyConfig)
    certificates: CertificatesConfig = field(default_factory=CertificatesConfig)
    tokens: TokensConfig = field(default_factory=TokensConfig)
    login: LoginSettings = field(default_factory=LoginSettings)
    hub: HubSettings = field(default_factory=HubSettings)
    auto_join: AutoJoinSettings = field(default_factory=AutoJoinSettings)
    enrolment: EnrolmentSettings = field(default_factory=EnrolmentSettings)
    service_accounts: ServiceAccountSettings = field(default_factory=ServiceAccountSettings)
    replicas: ReplicaSettings = field(default_factory=ReplicaSettings)
    leases: LeaseSettings = field(default_factory=LeaseSettings)
    audit: AuditSettings = field(default_factory=AuditSettings)
    recording: RecordingSettings = field(default_factory=RecordingSettings)
    limits: DoorLimits = field(default_factory=DoorLimits)
    timeouts: DoorTimeouts = field(default_factory=DoorTimeouts)

    def __post_init__(self) -> None:
        """Raises ConfigError where settings contradict each other."""
        if (self.tls.certificate is None) is not (self.tls.key is None):
            raise ConfigError("tls.certificate and tls.key go together: set both, or neither")
        for address in (*self.listen, *self.agents_listen):
            host_and_port(address)
        if not self.listen or not self.agents_listen:
            raise ConfigError("listen and agentsListen each need at least one HOST:PORT")
        if not self.names:
            raise ConfigError("names is empty: name the host names and addresses that clients dial")
        for problem in self._problems():
            raise ConfigError(problem)

    def _problems(self) -> Iterator[str]:
        order, known = self.authentication.order, set(AUTHENTICATORS)
        if not order or len(set(order)) < len(order) or not known.issuperset(order):
            yield f"authentication.order names each of {', '.join(AUTHENTICATORS)} once at most, and at least one"
        hub = self.hub
        if not hub.wanted and (hub.token_review or hub.grants or hub.access_review or hub.clusters):
            every = "hub.tokenReview, hub.grants, hub.accessReview and hub.clusters"
            yield f"{every} need a hub: set hub.kubeconfig or hub.inCluster"
        if not self.hub.wanted and (self.auto_join.enabled or self.service_accounts.secret_namespaces):
            yield "autoJoin and serviceAccounts.secretNamespaces need a hub: set hub.kubeconfig or hub.inCluster"
        yield from self.auto_join.problems()
        if self.hub.wanted and not self.hub.audiences:
            yield "hub.audiences is empty: name what tokens of the hub's service accounts are to be for"
        if self.tokens.lifetime > 86_400.0:
            yield "tokens.lifetime is more than a day (86400)"
        if self.tokens.issuer and not self.tokens.issuer.startswith("https://"):
            yield f"tokens.issuer {self.tokens.issuer!r} is no https:// address"
        if not self.admin_groups:
            yield "adminGroups is empty: nobody could change a grant"
        if (login := self.login.problem()) is not None:
            yield login
        yield from self.audit.problems()
        yield from self._worker_problems()
        yield from self.enrolment.problems()
        yield from self.replicas.problems()
        yield from self.leases.problems()
        if self.replicas.several and not self.hub.wanted:
            yield f"replicas.mode {self.replicas.mode!r} needs a hub: set hub.kubeconfig or hub.inCluster"
        if self.replicas.several and self.hub.wanted and not self.replicas.own_namespace():
            yield "replicas.namespace: say in which namespace of the hub Leases and shared records are"

    def _worker_problems(self) -> Iterator[str]:
        if self.workers <= 1:
            return
        if self.workers > MOST_WORKERS:
            yield f"workers is {self.workers}: {MOST_WORKERS} are the most that there can be"
        if self.replicas.several:
            mode = self.replicas.mode
            yield f"workers and replicas.mode {mode!r} do not go together: run more replicas instead"
        if "-" in self.audit.log_path:
            yield "audit.logPath is standard output, where lines of several workers would mix: name a file"


def host_and_port(address: str) -> tuple[str, int]:
    """`HOST:PORT`, `[IPV6]:PORT`. Raises ConfigError."""
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65_535:
        raise ConfigError(f"{address!r} is no address: write HOST:PORT, for example 0.0.0.0:8443")
    return host.removeprefix("[").removesuffix("]"), int(port)

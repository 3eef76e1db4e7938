"""The server's settings: frozen, typed, each with one name in three spellings.

    tls.clientCa in the file  =  KULVERT_TLS_CLIENT_CA in the environment  =  --tls-client-ca as a flag

Flags win over the environment, which wins over the file. A setting that does not exist is an error that names its
neighbours: a typing error must not silently leave a limit or an authority at its default. (In the environment names
that are not ours pass, because Kubernetes puts KULVERT_PORT_… there for a Service named kulvert.)
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

import yaml

from auth.yamlnodes import Value, YamlError, read_document
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

ENVIRONMENT = "KULVERT_"
AUTHENTICATORS = ("front-proxy", "certificate", "token", "cluster", "oidc", "hub")
MOST_WORKERS = 64
_UPPER = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


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


@dataclass(frozen=True, slots=True)
class Setting:
    """One leaf of the tree, and its spellings."""

    path: tuple[str, ...]
    kind: Any
    default: Any

    @property
    def flag(self) -> str:
        """Without its two dashes."""
        return "-".join(_UPPER.sub("-", part).lower() for part in self.path)

    @property
    def variable(self) -> str:
        """In the environment."""
        return ENVIRONMENT + self.flag.replace("-", "_").upper()

    @property
    def key(self) -> str:
        """In the file."""
        return ".".join(self.path)


def settings() -> tuple[Setting, ...]:
    """Every setting there is: for flags, their help, and the documentation."""
    return tuple(_leaves(ServerConfig, ()))


def load(file: Path | None, environment: Mapping[str, str], flags: Mapping[str, str]) -> ServerConfig:
    """Settings from all three places; `flags` are by their names without dashes. Raises ConfigError."""
    known = {setting.key: setting for setting in settings()}
    values: dict[str, Any] = {}
    if file is not None:
        values |= _from_file(file, known)
    for setting in known.values():
        if setting.variable in environment:
            values[setting.key] = _parsed(setting, environment[setting.variable], setting.variable)
    by_flag = {setting.flag: setting for setting in known.values()}
    for name, text in flags.items():
        if name not in by_flag:
            raise ConfigError(f"--{name}: there is no such setting{_suggestion(name, by_flag)}")
        values[by_flag[name].key] = _parsed(by_flag[name], text, f"--{name}")
    return _built(ServerConfig, (), values)  # type: ignore[no-any-return]


def host_and_port(address: str) -> tuple[str, int]:
    """`HOST:PORT`, `[IPV6]:PORT`. Raises ConfigError."""
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65_535:
        raise ConfigError(f"{address!r} is no address: write HOST:PORT, for example 0.0.0.0:8443")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _leaves(kind: Any, path: tuple[str, ...]) -> Iterator[Setting]:
    hints = get_type_hints(kind)
    for one in fields(kind):
        here = (*path, _camel(one.name))
        if is_dataclass(hints[one.name]):
            yield from _leaves(hints[one.name], here)
        else:
            yield Setting(here, hints[one.name], one.default if one.default is not MISSING else None)


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


def _built(kind: Any, path: tuple[str, ...], values: Mapping[str, Any]) -> Any:
    hints = get_type_hints(kind)
    given = {}
    for one in fields(kind):
        here = (*path, _camel(one.name))
        if is_dataclass(hints[one.name]):
            given[one.name] = _built(hints[one.name], here, values)
        elif ".".join(here) in values:
            given[one.name] = values[".".join(here)]
    return kind(**given)


def _from_file(file: Path, known: Mapping[str, Setting]) -> dict[str, Any]:
    try:
        root = read_document(file.read_text(encoding="utf-8"), str(file))
        return dict(_walked(root, known))
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{file} is not UTF-8") from None
    except YamlError as error:
        raise ConfigError(str(error)) from None


def _walked(value: Value, known: Mapping[str, Setting]) -> Iterator[tuple[str, Any]]:
    """The file's leaves. Unknown names are errors with a suggestion."""
    if not isinstance(value.node, yaml.MappingNode):
        raise value.error("must be a mapping")
    seen: set[str] = set()
    for key, node in value.node.value:
        path = f"{value.path}.{key.value}".lstrip(".")
        here = Value(node, value.source, path, value.seen)
        if path in seen:
            raise here.error("the setting is there twice")
        seen.add(path)
        if path in known:
            yield path, _of_node(here, known[path])
        elif any(name.startswith(path + ".") for name in known):
            yield from _walked(here, known)
        else:
            raise here.error(f"there is no such setting{_suggestion(path, known)}")


def _of_node(value: Value, setting: Setting) -> Any:
    if setting.kind == tuple[str, ...]:
        return value.texts()
    if not isinstance(value.node, yaml.ScalarNode):
        raise value.error("must be a single value")
    return _parsed(setting, str(value.node.value), f"{value.source}:{value.node.start_mark.line + 1}: {value.path}")


def _parsed(setting: Setting, text: str, where: str) -> Any:
    try:
        if text == "0" and setting.kind is int and setting.default == 0:
            return 0  # what is off by default can be said to be
        return _PARSERS[setting.kind](text)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from None


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise ValueError(f"{text!r} is no positive whole number")
    return int(text)


def _flag(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError(f"{text!r} is neither true nor false")
    return text == "true"


def _seconds(text: str) -> float:
    if not re.fullmatch(r"\d{1,9}(?:\.\d{1,6})?", text, re.ASCII):
        raise ValueError(f"{text!r} is no number of seconds")
    return float(text)


def _path(text: str) -> Path:
    if not text:
        raise ValueError("the path is empty: leave the setting out instead")
    return Path(text)


def _list(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


_PARSERS: dict[Any, Callable[[str], Any]] = {
    str: str,
    int: _positive,
    bool: _flag,
    float: _seconds,
    Path: _path,
    Path | None: _path,
    tuple[str, ...]: _list,
}


def _suggestion(name: str, known: Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]}?" if close else f"; there are {', '.join(sorted(known))}"

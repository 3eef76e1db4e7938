"""A platform for the threat tests: everything at debug level, room for hostile agents, and recorded API servers.

What the processes print is kept, since the search for secrets reads all of it in the end.
"""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from auth.jointoken import JoinToken
from auth.pki import CertificateAuthority, Issued
from gateway.membership.registry import Cluster
from gateway.membership.stores import Stores
from gateway.state import State
from tests.support.platform import ADMINS, Grant, Platform, grant
from tests.support.processes import Process

ROGUES = 200
RECORDED = "recorded"
AGENT_TOKEN = "planted-kubeconfig-token-7d1c0a"
TOKENS_USER = "token-user"

GRANTS: tuple[Grant, ...] = (
    {**grant("delegates", ["*"], users=["delegate"]), "allowUserImpersonation": True},
    grant("mallory", ["*"], users=["mallory"], groups=["system:masters", "system:nodes"]),
    grant("protected users", ["*"], users=["system:admin"]),
    grant("everything but", ["*"], groups=["threats"]),
    {
        **grant("the hub's zoo", ["*"]),
        "subjects": [{"kind": "ServiceAccount", "namespace": "default", "name": "zoo"}],
        "impersonate": {"userPrefix": "hub:", "groupPrefix": "hub:"},
    },
    {
        **grant("residents", ["*"]),
        "subjects": [{"kind": "ServiceAccount", "cluster": RECORDED, "namespace": "default", "name": "resident"}],
        "passThrough": True,
    },
    ADMINS,
)


class ThreatPlatform(Platform):
    """Clusters `rogue-N` are registered, each with a join token of its own, for hostile agents."""

    def __init__(
        self, directory: Path, *flags: str, grants: Iterable[Grant] = GRANTS, settings: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(directory, grants, settings=settings)
        self._flags = flags
        self._rogues = iter(self._register_rogues())
        self.authority = CertificateAuthority.create("some other CA", time.time())
        self.context = cache(self._context)
        self.logs: list[Path] = []

    def _run(self, name: str, *args: str | Path, log: Path | None = None) -> Process:
        flags = self._flags if name == "server" else ()
        process = super()._run(name, *args, "--log-level", "debug", *flags, log=log)
        self.logs.append(process.log)
        return process

    def _register_rogues(self) -> list[tuple[str, str]]:
        stores, now = Stores.open(self.state / "clusters.db"), time.time()
        made = [(f"rogue-{number}", JoinToken.create(os.urandom)) for number in range(ROGUES)]
        try:
            for name, token in made:
                stores.registry.add(Cluster(name, None, now))
                stores.tokens.add(token.stored(name, now + 3600, created=now, accept=True))
        finally:
            stores.close()
        return [(name, token.text()) for name, token in made]

    def rogue(self) -> tuple[str, str]:
        """A cluster that nobody is attached as yet, and its join token."""
        return next(self._rogues)

    @property
    def platform_authority(self) -> CertificateAuthority:
        """The platform's CA."""
        return CertificateAuthority.load_or_create(self.state / "ca.pem", "kulvert", time.time())

    def token(self, user: str = TOKENS_USER, groups: Iterable[str] = ("kulvert:admins",), lifetime: float = 600) -> str:
        """A bearer token of Kulvert's own."""
        return State(self.state).signer(time.time()).issue(user, groups, "", f"jti-{user}", time.time(), lifetime)

    # --- TLS

    def _context(self, user: str = "", groups: tuple[str, ...] = ("kulvert:admins",)) -> ssl.SSLContext:
        """A client that trusts the platform's CA, with a user's certificate or (no user) none."""
        return client_context(self.ca, self.certificate(user, groups) if user else None, self.directory)

    # --- agents of what is no cluster

    def recorded_config(self, name: str, port: int, ca: bytes, servers: str = "", **settings: Any) -> Path:
        """The configuration of an agent whose API server listens on a port of 127.0.0.1."""
        kubeconfig = self.directory / f"{name}.kubeconfig"
        write_recorded_kubeconfig(kubeconfig, port, ca)
        self._prepare(name, kubeconfig, ({"servers": [servers]} if servers else {}) | settings)
        return self._prepared[name]

    async def start_recorded(self, name: str, port: int, ca: bytes, **settings: Any) -> None:
        """Attach one."""
        self.recorded_config(name, port, ca, **settings)
        await self.restart_agent(name)

    def launch_agent(self, name: str, config: Path) -> Process:
        """Start an agent that may never be attached; `stop_agent` ends it."""
        return self._run(f"agent-{name}", "agent", "--config", config)


def write_recorded_kubeconfig(path: Path, port: int, ca: bytes, cluster: dict[str, Any] | None = None) -> None:
    """A kubeconfig with a planted token."""
    server = {"server": f"https://127.0.0.1:{port}"} | (cluster or {})
    if ca:
        (path.parent / f"{path.name}.ca").write_bytes(ca)
        server["certificate-authority"] = str(path.parent / f"{path.name}.ca")
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": server}],
        "users": [{"name": "u", "user": {"token": AGENT_TOKEN}}],
    }
    path.write_text(yaml.safe_dump(document))


def client_context(ca: bytes, issued: Issued | None, directory: Path) -> ssl.SSLContext:
    """A verifying client."""
    context = ssl.create_default_context(cadata=ca.decode())
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if issued is not None:
        _load(context, issued, directory)
    return context


def server_context(issued: Issued, directory: Path) -> ssl.SSLContext:
    """A server that shows this certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _load(context, issued, directory)
    return context


def _load(context: ssl.SSLContext, issued: Issued, directory: Path) -> None:
    path = directory / "pair.pem"
    path.write_bytes(issued.certificate + issued.key)
    context.load_cert_chain(path)
    path.unlink()


def listening(pid: int) -> list[str]:
    """The sockets of a process that listen, TCP and UDP."""
    links = [os.readlink(entry.path) for entry in os.scandir(f"/proc/{pid}/fd") if os.path.islink(entry.path)]
    inodes = {link[8:-1] for link in links if link.startswith("socket:[")}
    found = []
    for table in ("tcp", "tcp6", "udp", "udp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[9] in inodes and (fields[3] == "0A" or table.startswith("udp")):
                found.append(line)
    return found

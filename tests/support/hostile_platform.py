"""A platform for the threat tests: everything at debug level, room for hostile agents, and recorded API servers.

What the processes print is kept, since the search for secrets reads all of it in the end.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from auth.pki import CertificateAuthority, Issued
from gateway.compose import State
from tests.support.platform import ADMINS, Grant, Platform, grant
from tests.support.processes import Process

ROGUES = 200
RECORDED = "recorded"
AGENT_TOKEN = "planted-kubeconfig-token-7d1c0a"
TOKENS_USER = "token-user"

GRANTS: tuple[Grant, ...] = (
    {**grant("delegates", ["*"], users=["delegate"]), "allowUserImpersonation": True},
    grant("mallory", ["*"], users=["mallory"], groups=["system:masters", "system:nodes"]),
    grant("protected users", ["*"], users=["system:admin", "system:serviceaccount:kulvert:kulvert-agent"]),
    grant("everything but", ["*"], groups=["threats"]),
    ADMINS,
)


class ThreatPlatform(Platform):
    """Clusters `rogue-N` are registered, each with a join token of its own, for hostile agents."""

    def __init__(self, directory: Path, grants: Iterable[Grant] = GRANTS, **settings: Any) -> None:
        super().__init__(directory, grants)
        self._more = settings
        self._rogues = iter([(f"rogue-{number}", self.join_token(f"rogue-{number}")) for number in range(ROGUES)])
        self.authority = CertificateAuthority.create("some other CA", time.time())
        self.context = cache(self._context)
        self.logs: list[Path] = []

    def _run(self, name: str, *args: str | Path, log: Path | None = None) -> Process:
        process = super()._run(name, *args, "--log-level", "debug", log=log)
        self.logs.append(process.log)
        return process

    def rogue(self) -> tuple[str, str]:
        """A cluster that nobody is attached as yet, and its join token."""
        return next(self._rogues)

    @property
    def platform_authority(self) -> CertificateAuthority:
        """The platform's CA."""
        return CertificateAuthority.load_or_create(self.state / "ca.pem", "kulvert", time.time())

    def token(self, user: str = TOKENS_USER, groups: Iterable[str] = ("kulvert:admins",), lifetime: float = 600) -> str:
        """A bearer token of Kulvert's own."""
        return State(self.state).signer().issue(user, groups, "", f"jti-{user}", time.time(), lifetime)

    # --- TLS

    def _context(self, user: str = "", groups: tuple[str, ...] = ("kulvert:admins",)) -> ssl.SSLContext:
        """A client that trusts the platform's CA, with a user's certificate or (no user) none."""
        return client_context(self.ca, self.certificate(user, groups) if user else None, self.directory)

    # --- agents of what is no cluster

    def recorded_config(self, name: str, port: int, ca: bytes, servers: str = "", **settings: Any) -> Path:
        """The configuration of an agent whose API server listens on a port of 127.0.0.1."""
        kubeconfig, token = self.directory / f"{name}.kubeconfig", self.directory / f"{name}.token"
        write_recorded_kubeconfig(kubeconfig, port, ca)
        token.write_text(self.join_token(name))
        path = self.directory / f"{name}.agent.yaml"
        document = {
            "servers": [servers or f"https://localhost:{self.agents_port}"],
            "cluster": name,
            "joinTokenFile": str(token),
            "caFile": str(self.state / "ca.crt"),
            "kubeconfig": str(kubeconfig),
            "agent": f"agent-{name}",
        }
        path.write_text(yaml.safe_dump(document | settings))
        return path

    async def start_recorded(self, name: str, port: int, ca: bytes) -> None:
        """Attach one."""
        self._prepared[name] = self.recorded_config(name, port, ca)
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

"""The agent's settings as one frozen value; `agent.config` reads it from a file, the environment and flags."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from agent.address import Address
from tunnel.errors import TunnelError
from tunnel.proof import join_key, parse_join_token


class ConfigError(TunnelError):
    """A setting is missing or wrong; the text names it and says what is expected, and holds no secret."""


@dataclass(frozen=True, slots=True)
class JoinToken:
    """`kvt_<id>.<secret>`, as `kulvert token create` prints it. The id may be shown."""

    id: str
    secret: bytes = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> JoinToken:
        """Raises ConfigError, which does not quote the text."""
        try:
            return cls(*parse_join_token(text.strip()))
        except ValueError as error:
            raise ConfigError(f"{error} (`kulvert token create` prints it)") from None

    def key(self) -> bytes:
        """What proves that this agent holds the token."""
        return join_key(self.id, self.secret)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Each field is a key of the file in camelCase, `KULVERT_AGENT_…` in the environment, and a flag."""

    servers: tuple[Address, ...]
    cluster: str
    join_token: JoinToken
    ca_file: Path | None = None
    server_name: str | None = None
    link_names: tuple[str, ...] = ()
    agent: str = ""
    kubeconfig: Path | None = None
    kubeconfig_context: str | None = None
    exchanges: int = 10_000
    max_links: int = 1_000
    upstream_connections: int = 10_000
    drain: int = 25
    allow_protected: frozenset[str] = frozenset()


HELP: Final = {
    "servers": "the server's addresses, https://HOST[:PORT], tried in turn",
    "cluster": "this cluster's name",
    "join_token": "the join token, kvt_ID.SECRET (better: joinTokenFile)",
    "join_token_file": "the file that holds the join token",
    "ca_file": "PEM file of the CA that signed the server's certificate (without it: the system's CAs)",
    "server_name": "the name in the server's certificate, if not its host",
    "link_names": "further names that own links may go to: NAME or *.DOMAIN",
    "agent": "a name for this agent, for people",
    "kubeconfig": "how to reach the API server (without it: the pod's own service account)",
    "kubeconfig_context": "a context of the kubeconfig other than its current one",
    "exchanges": "requests that may be under way at once",
    "max_links": "own links that may be open at once (0: none), for NATs with few ports",
    "upstream_connections": "connections to the API server at most",
    "drain": "seconds that requests under way get when the agent stops (less than its pod's grace period)",
    "allow_protected": "exact protected users and groups (system:masters, …) that may be impersonated",
}
"""What each setting is, for `--help` and the documentation."""

"""The agent's settings as one frozen value; `agent.config` reads it from a file, the environment and flags."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from agent.address import Address
from agent.policy import LocalPolicy
from agent.policyrules import Lists, RuleSettings
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
    join_token: JoinToken | None = None
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
    allow_pass_through: bool = False
    managed_service_accounts: bool = False
    read_only: bool = False
    interactive: bool = True
    allow_paths: tuple[str, ...] = ()
    deny_paths: tuple[str, ...] = ()
    allow_verbs: tuple[str, ...] = ()
    deny_verbs: tuple[str, ...] = ()
    allow_namespaces: tuple[str, ...] = ()
    deny_namespaces: tuple[str, ...] = ()
    deny_users: tuple[str, ...] = ()
    deny_groups: tuple[str, ...] = ()
    state_dir: Path | None = None
    state_secret: str = ""

    @property
    def rules(self) -> RuleSettings:
        """What this cluster's owner forbids."""
        return RuleSettings(
            read_only=self.read_only,
            interactive=self.interactive,
            paths=Lists(self.allow_paths, self.deny_paths),
            verbs=Lists(self.allow_verbs, self.deny_verbs),
            namespaces=Lists(self.allow_namespaces, self.deny_namespaces),
            deny_users=self.deny_users,
            deny_groups=self.deny_groups,
        )

    def policy(self) -> LocalPolicy:
        """What the agent checks each request by, whatever a gateway says."""
        return LocalPolicy(self.allow_protected, rules=self.rules.made(), allow_pass_through=self.allow_pass_through)


HELP: Final = {
    "servers": "the server's addresses, https://HOST[:PORT], tried in turn",
    "cluster": "this cluster's name",
    "join_token": "the join token, kvt_ID.SECRET (better: joinTokenFile), for the first enrolment alone",
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
    "state_dir": "where the agent keeps its key and certificate (without it: in memory, to be enrolled at each start)",
    "state_secret": "a Secret of the agent's namespace that stateDir is kept in, so that it outlives the pod",
    "allow_protected": "exact protected users and groups (system:masters, …) that may be impersonated",
    "allow_pass_through": "let service accounts of this cluster come through with tokens of their own",
    "managed_service_accounts": "let the server have service accounts made here, and tokens for them (needs a role)",
    "read_only": "let nothing through but get, list and watch",
    "interactive": "let exec, attach, port-forward, consoles and a node's proxy through",
    "allow_paths": "paths that are open, with * for any characters (none: all)",
    "deny_paths": "paths that are closed, with *; what is denied is not allowed by any list",
    "allow_verbs": "verbs that are open (get, list, watch, create, …; for other paths than resources: get, post, …)",
    "deny_verbs": "verbs that are closed",
    "allow_namespaces": "namespaces that are open, with *; requests for resources outside any are refused then",
    "deny_namespaces": "namespaces that are closed, with *; lists over all namespaces are refused then",
    "deny_users": "users, with *, that may not be impersonated",
    "deny_groups": "groups, with *, whose members may not come in",
}
"""What each setting is, for `--help` and the documentation."""

"""The contexts of all clusters that somebody may reach at a gateway, merged into a kubeconfig that holds others' too.

What is ours is known by what it does, not by its name: a cluster below the gateway's address, a user that runs
`kulvert credential` for it. Nothing else is touched.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any
from urllib.parse import urlsplit

from cli.credentialexec import V1
from cli.failures import Failed
from cli.kubeconfigfile import encoded
from cli.kubeconfigtree import Kubeconfig
from cli.tokencache import LoginKey

Document = dict[str, Any]
_TRUST = ("certificate-authority", "certificate-authority-data", "insecure-skip-tls-verify")
HINT = """\
`kulvert` is not on the PATH, and this context's credentials come from it.
Install it (pipx install kulvert), then: kulvert login --server {server}"""


@dataclass(frozen=True, slots=True)
class Contexts:
    """What is to be there: a context for each cluster, all with one user. `ca_pem` is empty for the system's CAs."""

    key: LoginKey
    clusters: tuple[str, ...]
    prefix: str
    option: str = ""
    """`--certificate` or `--kulvert-token`; empty: the ID token."""
    ca_pem: bytes = field(default=b"", repr=False)

    @property
    def user(self) -> str:
        """The name of the user's entry."""
        return f"kulvert@{urlsplit(self.key.server).netloc}" + (f"/{self.key.profile}" if self.key.profile else "")

    def context(self, cluster: str) -> str:
        """The name of a cluster's context, and of its cluster entry."""
        return self.prefix + cluster

    def url(self, cluster: str) -> str:
        """Where kubectl finds it."""
        return f"{self.key.server}/clusters/{cluster}"

    def exec(self) -> Document:
        """The user's entry: no secret is in it."""
        arguments = ["credential", "--server", self.key.server, "--issuer-url", self.key.issuer]
        arguments += ["--client-id", self.key.client_id]
        arguments += ["--profile", self.key.profile] if self.key.profile else []
        return {
            "apiVersion": V1,
            "command": "kulvert",
            "args": arguments + ([self.option] if self.option else []),
            "installHint": HINT.format(server=self.key.server),
            "interactiveMode": "IfAvailable",
            "provideClusterInfo": True,
        }


@dataclass(frozen=True, slots=True)
class Merged:
    """What became of it, by contexts. `stale` are there still, for clusters that one may reach no more."""

    added: tuple[str, ...]
    renewed: tuple[str, ...]
    stale: tuple[str, ...]
    removed: tuple[str, ...]


def merge(config: Kubeconfig, wanted: Contexts, *, prune: bool = False, force: bool = False) -> Merged:
    """:raises Failed: a name is taken by something that is not ours, and `force` does not say to take it."""
    names = {wanted.context(cluster): cluster for cluster in wanted.clusters}
    if not force:
        _check_free(config, wanted, names)
    before = set(config.names("contexts"))
    gone = _stale(config, wanted)
    _put(config, wanted, names)
    if prune:
        _remove(config, wanted, gone)
    added = tuple(name for name in names if name not in before)
    renewed = tuple(name for name in names if name in before)
    return Merged(added, renewed, () if prune else gone, gone if prune else ())


def choose(config: Kubeconfig, wanted: Contexts, name: str) -> None:
    """Make a context the current one, by its own name or its cluster's. :raises Failed: there is none."""
    there = config.names("contexts")
    found = next((one for one in (wanted.context(name), name) if one in there), None)
    if found is None:
        raise Failed(f"there is no context {name!r} to use; you may reach: {', '.join(wanted.clusters) or 'none'}")
    config.use(found)


def _put(config: Kubeconfig, wanted: Contexts, names: Mapping[str, str]) -> None:
    if names:
        config.put("users", wanted.user, {"exec": wanted.exec()})
    ca = {"certificate-authority-data": encoded(wanted.ca_pem)} if wanted.ca_pem else {}
    for name, cluster in names.items():
        config.put("clusters", name, {"server": wanted.url(cluster)} | ca, keep=True, drop=_TRUST)
        # keep: a namespace that its user has chosen (kubectl config set-context --namespace)
        config.put("contexts", name, {"cluster": name, "user": wanted.user}, keep=True)


def _check_free(config: Kubeconfig, wanted: Contexts, names: Mapping[str, str]) -> None:
    taken = [f"user {wanted.user}"] if not _user_is_ours(config, wanted, wanted.user, absent=True) else []
    for name in names:
        cluster, context = config.entry("clusters", name), config.entry("contexts", name)
        if cluster is not None and _cluster_of(wanted, cluster) is None:
            taken.append(f"cluster {name}")
        elif context is not None and _reached(config, wanted, context) is None:
            taken.append(f"context {name}")
    if taken:
        shown = ", ".join(taken[:3]) + (f" and {len(taken) - 3} more" if len(taken) > 3 else "")
        raise Failed(f"not Kulvert's for this gateway and login: {shown}; choose a --context-prefix, or --force")


def _stale(config: Kubeconfig, wanted: Contexts) -> tuple[str, ...]:
    found = {name: _reached(config, wanted, config.entry("contexts", name)) for name in config.names("contexts")}
    return tuple(name for name, cluster in found.items() if cluster is not None and cluster not in wanted.clusters)


def _reached(config: Kubeconfig, wanted: Contexts, context: Document | None) -> str | None:
    """The cluster that a context reaches as this login; None for everybody else's."""
    if context is None or context.get("user") != wanted.user or not _user_is_ours(config, wanted, wanted.user):
        return None
    return _cluster_of(wanted, config.entry("clusters", str(context.get("cluster"))))


def _cluster_of(wanted: Contexts, cluster: Document | None) -> str | None:
    server = str((cluster or {}).get("server", ""))
    front = f"{wanted.key.server}/clusters/"
    return server.removeprefix(front).rstrip("/") if server.startswith(front) else None


def _user_is_ours(config: Kubeconfig, wanted: Contexts, name: str, *, absent: bool = False) -> bool:
    entry = config.entry("users", name)
    if entry is None:
        return absent
    plugin = entry.get("exec")
    if not isinstance(plugin, dict) or PurePath(str(plugin.get("command"))).name != "kulvert":
        return False
    arguments = plugin.get("args")
    return isinstance(arguments, list) and "credential" in arguments and wanted.key.server in arguments


def _remove(config: Kubeconfig, wanted: Contexts, contexts: tuple[str, ...]) -> None:
    """The contexts, and what nobody else's refers to any more. Of a current context that goes, nothing stays."""
    clusters = {str((config.entry("contexts", name) or {}).get("cluster")) for name in contexts}
    for name in contexts:
        config.remove("contexts", name)
    left = [config.entry("contexts", name) or {} for name in config.names("contexts")]
    for cluster in clusters - {str(entry.get("cluster")) for entry in left}:
        config.remove("clusters", cluster)
    if contexts and wanted.user not in {str(entry.get("user")) for entry in left}:
        config.remove("users", wanted.user)
    if config.current in contexts:
        config.use("")

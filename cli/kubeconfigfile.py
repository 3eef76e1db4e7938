"""The kubeconfig's format: one cluster and its user, as a file of their own, or merged into one that is there."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from cli.failures import Failed
from cli.kubeconfigtree import LISTS, Kubeconfig

Document = dict[str, Any]
_LISTS = ("clusters", "users", "contexts")


@dataclass(frozen=True, slots=True)
class Entry:
    """A context and what it needs. `credentials` are a kubeconfig user's fields, and secret; an empty `ca_pem` leaves
    it to the system's CAs.
    """

    context: str
    server: str
    ca_pem: bytes
    user: str
    credentials: Mapping[str, str] = field(repr=False)

    def parts(self) -> dict[str, Document]:
        """Its cluster, user and context. The names say that they are Kulvert's, for files that hold others too."""
        name = f"kulvert-{self.context}"
        user = f"{name}-{self.user}"
        cluster = {"server": self.server}
        if self.ca_pem:
            cluster["certificate-authority-data"] = encoded(self.ca_pem)
        return {
            "clusters": {"name": name, "cluster": cluster},
            "users": {"name": user, "user": dict(self.credentials)},
            "contexts": {"name": self.context, "context": {"cluster": name, "user": user}},
        }

    def document(self) -> Document:
        """A kubeconfig with this entry alone."""
        parts = self.parts()
        head: Document = {"apiVersion": "v1", "kind": "Config"}
        return head | {key: [parts[key]] for key in _LISTS} | {"current-context": self.context}


def certificate(chain: bytes, key: bytes) -> dict[str, str]:
    """A user by client certificate."""
    return {"client-certificate-data": encoded(chain), "client-key-data": encoded(key)}


def encoded(data: bytes) -> str:
    """As a kubeconfig embeds files."""
    return base64.b64encode(data).decode("ascii")


def text(document: Document) -> str:
    """As YAML."""
    return yaml.safe_dump(document, sort_keys=False)


def merge(config: Kubeconfig, entry: Entry) -> None:
    """Add the entry's parts, or renew them; the current context stays the user's choice.

    :raises Failed: its context, by this name, is somebody else's.
    """
    parts = entry.parts()
    there = config.entry("contexts", entry.context)
    if there is not None and there.get("cluster") != parts["clusters"]["name"]:
        raise Failed(
            f"there is a context {entry.context!r} for another cluster already: write to a file of its own with "
            "--output FILE, without --merge"
        )
    for key, part in parts.items():
        config.put(key, part["name"], part[LISTS[key]])
    if not config.current:
        config.use(entry.context)


def read(path: Path) -> Document:
    """A kubeconfig that is there; an empty one where there is none. :raises Failed: it is something else."""
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        found = None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise Failed(f"{path} is not YAML: nothing was written") from None
    if found is None:
        return {"apiVersion": "v1", "kind": "Config"}
    lists = isinstance(found, dict) and all(_named(found.get(key)) for key in _LISTS)
    if not lists:
        raise Failed(f"{path} is not a kubeconfig: nothing was written")
    document: Document = found
    return document


def _named(items: object) -> bool:
    return items is None or (isinstance(items, list) and all(isinstance(item, dict) for item in items))

"""What a request asks for, in the words of Kubernetes authorisation: verb, group, resource, namespace, name.

Decided once from method, path and query (kube-apiserver's RequestInfo), so that authorisation and dispatch
can never read the same path differently.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote

_VERBS = {"GET": "get", "HEAD": "get", "POST": "create", "PUT": "update"}  # the rest are their own names
_CONNECT = ("exec", "attach", "portforward")
_OF_NAMESPACE = ("status", "finalize")


@dataclass(frozen=True, slots=True)
class Attributes:
    verb: str
    path: str
    group: str = ""
    version: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""

    @property
    def qualified(self) -> str:
        """`pods`, `leases.coordination.k8s.io`: the form in error messages."""
        return f"{self.resource}.{self.group}" if self.group else self.resource

    @property
    def full_resource(self) -> str:
        return f"{self.resource}/{self.subresource}" if self.subresource else self.resource


def read(method: str, raw_path: str, query: Mapping[str, str]) -> Attributes:
    parts = [unquote(part) for part in raw_path.strip("/").split("/")]
    path = "/" + "/".join(parts)
    verb = _VERBS.get(method, method.lower())
    prefix = _group_version(parts)
    if prefix is None:
        return Attributes(verb, path)
    group, version, rest = prefix
    namespace, rest = _namespace(rest)
    resource, name, subresource = (*rest, "", "")[:3]
    verb = _verb(verb, name, subresource, query)
    return Attributes(verb, path, group, version, resource, subresource, namespace, name)


def _group_version(parts: list[str]) -> tuple[str, str, list[str]] | None:
    """Group, version and what follows; None where nothing follows (discovery) or the path is no API path."""
    if parts[0] == "api" and len(parts) > 2:
        return "", parts[1], parts[2:]
    if parts[0] == "apis" and len(parts) > 3:
        return parts[1], parts[2], parts[3:]
    return None


def _namespace(rest: list[str]) -> tuple[str, list[str]]:
    """`namespaces/x` alone is the object x, seen (as in kube-apiserver) in its own namespace."""
    if rest[0] != "namespaces" or len(rest) < 2:
        return "", rest
    if len(rest) == 2 or rest[2] in _OF_NAMESPACE:
        return rest[1], rest
    return rest[1], rest[2:]


def _verb(verb: str, name: str, subresource: str, query: Mapping[str, str]) -> str:
    """Opening a stream into a pod is `create`, whatever the method: else `get` on pods would give a shell."""
    if subresource in _CONNECT:
        return "create"
    if verb == "get" and query.get("watch", "") in ("1", "true"):
        return "watch"
    if not name:
        return {"get": "list", "delete": "deletecollection"}.get(verb, verb)
    return verb

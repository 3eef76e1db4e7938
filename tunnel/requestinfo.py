"""What a request means to Kubernetes, read from method, path and query as kube-apiserver reads them.

Policy, retries, timeouts and audit go by meaning and not by method: a WebSocket exec is a GET. The path is
percent-decoded for this decision only; what goes upstream is the client's own bytes. So a path that another
reader could take for another one must not get that far: `gateway.route` refuses it, and `agent.policypath` for an
agent that has rules. Source: k8s.io/apiserver `endpoints/request.RequestInfoFactory`, and
`server/filters/longrunning.go`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import unquote_plus, unquote_to_bytes

_VERBS = {"GET": "get", "HEAD": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_STREAMS = frozenset({"exec", "attach", "portforward"})
# KubeVirt's ways into a machine; they are GETs too.
_CONSOLES = frozenset({"console", "vnc", "usbredir", "vsock"})
_RETRYABLE = frozenset({"", "status", "scale"})
_NAMESPACE_SUBRESOURCES = frozenset({"status", "finalize"})
_CACHED_BYTES = 512
_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_EXACT_NAME = re.compile(r"(?:^|,)metadata\.name==?([^,=!\\]+)(?=,|$)")


@dataclass(frozen=True, slots=True)
class RequestInfo:
    """A request's meaning. For what is no resource request, `verb` is the method in lower case and the rest
    is empty.
    """

    verb: str
    path: str
    is_resource_request: bool = False
    api_group: str = ""
    api_version: str = ""
    namespace: str = ""
    resource: str = ""
    subresource: str = ""
    name: str = ""
    is_long_running: bool = False
    is_retryable_read: bool = False
    interactive: bool = False


def request_info(method: str, path: bytes, query: bytes = b"") -> RequestInfo:
    """The meaning of a request. Never raises: a path that makes no sense is no resource request."""
    if len(method) + len(path) + len(query) <= _CACHED_BYTES:
        return _remembered(method, path, query)
    return _parsed(method, path, query)


def _parsed(method: str, raw: bytes, query: bytes) -> RequestInfo:
    path = unquote_to_bytes(raw).decode("utf-8", "replace")
    parts = path.strip("/").split("/")
    group = ""
    if parts[0] == "apis" and len(parts) >= 4:
        group, parts = parts[1], parts[2:]
    elif parts[0] == "api" and len(parts) >= 3:
        parts = parts[1:]
    else:
        return _non_resource(method, path)
    return _resource(method, path, group, parts[0], parts[1:], query)


def _non_resource(method: str, path: str) -> RequestInfo:
    profile = path.startswith("/debug/")
    readable = method in ("GET", "HEAD") and not profile
    return RequestInfo(
        method.lower(), path, is_long_running=path.startswith("/debug/pprof/"), is_retryable_read=readable
    )


def _resource(method: str, path: str, group: str, version: str, parts: list[str], query: bytes) -> RequestInfo:
    verb = _VERBS.get(method, "")
    if parts[0] in ("proxy", "watch") and len(parts) > 1:
        verb, parts = parts[0], parts[1:]
    namespace = ""
    if parts[0] == "namespaces" and len(parts) > 1:
        namespace = parts[1]
        if len(parts) > 2 and parts[2] not in _NAMESPACE_SUBRESOURCES:
            parts = parts[2:]
    resource = parts[0]
    name = parts[1] if len(parts) > 1 else ""
    subresource = parts[2] if len(parts) > 2 and verb != "proxy" else ""
    verb, name = _collective(verb, name, query)
    if subresource in _STREAMS and verb == "get":
        verb = "create"  # by meaning: the WebSocket form of a POST
    return RequestInfo(
        verb,
        path,
        True,
        group,
        version,
        namespace,
        resource,
        subresource,
        name,
        _is_long_running(verb, subresource, query),
        verb in ("get", "list") and subresource in _RETRYABLE,
        _is_interactive(group, verb, resource, subresource),
    )


def _collective(verb: str, name: str, query: bytes) -> tuple[str, str]:
    """Without a name, get is list or watch, and delete is deletecollection."""
    if name:
        return verb, name
    if verb == "delete":
        return "deletecollection", ""
    if verb != "get":
        return verb, ""
    if not query:
        return "list", ""
    return ("watch" if _flag(query, "watch") else "list"), _selected_name(query)


def _is_long_running(verb: str, subresource: str, query: bytes) -> bool:
    if verb in ("watch", "proxy") or subresource in _STREAMS or subresource in _CONSOLES or subresource == "proxy":
        return True
    return subresource == "log" and _flag(query, "follow")


def _is_interactive(group: str, verb: str, resource: str, subresource: str) -> bool:
    """Whether a request gives a hand inside a container or machine. A node's proxy does: its kubelet runs commands."""
    if subresource in _STREAMS or subresource in _CONSOLES or subresource == "ephemeralcontainers":
        return True
    return not group and resource == "nodes" and (subresource == "proxy" or verb == "proxy")


def _flag(query: bytes, name: str) -> bool:
    """As apimachinery's Convert_Slice_string_To_bool: the first value counts, and all but "0" and "false"
    are true.
    """
    value = _first(query, name)
    return value is not None and value.lower() not in ("0", "false")


def _selected_name(query: bytes) -> str:
    match = _EXACT_NAME.search(_first(query, "fieldSelector") or "")
    return match[1] if match and match[1] not in (".", "..") and not set(match[1]) & {"/", "%"} else ""


def _first(query: bytes, name: str) -> str | None:
    """A parameter's first value, read as Go's url.ParseQuery does: pairs with `;` or a broken escape do not count."""
    if name.encode() not in query and b"%" not in query:
        return None
    for pair in query.split(b"&"):
        if b";" in pair or _ESCAPE.search(pair):
            continue
        key, _, value = pair.partition(b"=")
        if unquote_plus(key.decode("latin-1")) == name:
            return unquote_plus(value.decode("latin-1"))
    return None


@lru_cache(maxsize=4096)
def _remembered(method: str, path: bytes, query: bytes) -> RequestInfo:
    """Watches and polls ask the same again and again. A pure function; the caller bounds the size of its keys."""
    return _parsed(method, path, query)

"""The catalogue of resources: everything that discovery, storage and printing need to know about a kind.

No workloads (Deployments and so on): there are no controllers here, and a Deployment that never makes a pod
would be a lie. Leases are kept because they need none.
"""

from __future__ import annotations

from dataclasses import dataclass

from cli.sample import columns
from cli.sample.columns import Column

_ALL = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
_NAMES = ("metadata.name", "metadata.namespace")
_INVOLVED = tuple(f"involvedObject.{key}" for key in ("kind", "name", "namespace", "uid", "fieldPath"))


@dataclass(frozen=True, slots=True)
class Resource:
    """`fields` are the field selectors that kube-apiserver accepts for this kind."""

    plural: str
    kind: str
    namespaced: bool = True
    short: tuple[str, ...] = ()
    group: str = ""
    version: str = "v1"
    columns: tuple[Column, ...] = columns.DEFAULT
    fields: tuple[str, ...] = _NAMES
    subresources: tuple[tuple[str, str, tuple[str, ...]], ...] = ()
    verbs: tuple[str, ...] = _ALL
    stored: bool = True

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def qualified(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural


_STATUS_VERBS = ("get", "patch", "update")
_POD_SUBRESOURCES = (
    ("status", "Pod", _STATUS_VERBS),
    ("log", "Pod", ("get",)),
    ("exec", "PodExecOptions", ("create", "get")),
    ("attach", "PodAttachOptions", ("create", "get")),
    ("portforward", "PodPortForwardOptions", ("create", "get")),
)

PODS = Resource(
    "pods",
    "Pod",
    short=("po",),
    columns=columns.PODS,
    fields=(*_NAMES, "spec.nodeName", "status.phase", "status.podIP"),
    subresources=_POD_SUBRESOURCES,
)
NAMESPACES = Resource(
    "namespaces",
    "Namespace",
    namespaced=False,
    short=("ns",),
    columns=columns.NAMESPACES,
    fields=("metadata.name", "status.phase"),
    subresources=(("status", "Namespace", _STATUS_VERBS),),
)
NODES = Resource(
    "nodes",
    "Node",
    namespaced=False,
    short=("no",),
    columns=columns.NODES,
    fields=("metadata.name", "spec.unschedulable"),
    subresources=(("status", "Node", _STATUS_VERBS),),
)
EVENTS = Resource(
    "events", "Event", short=("ev",), columns=columns.EVENTS, fields=(*_NAMES, *_INVOLVED, "type", "reason")
)
CONFIGMAPS = Resource("configmaps", "ConfigMap", short=("cm",), columns=columns.DATA)
SECRETS = Resource("secrets", "Secret", columns=columns.SECRETS, fields=(*_NAMES, "type"))
SERVICES = Resource("services", "Service", short=("svc",), columns=columns.SERVICES)
LEASES = Resource("leases", "Lease", group="coordination.k8s.io", columns=columns.LEASES)
WHOAMI = Resource(
    "selfsubjectreviews",
    "SelfSubjectReview",
    namespaced=False,
    group="authentication.k8s.io",
    verbs=("create",),
    stored=False,
)
CAN_I = Resource(
    "selfsubjectaccessreviews",
    "SelfSubjectAccessReview",
    namespaced=False,
    group="authorization.k8s.io",
    verbs=("create",),
    stored=False,
)

RESOURCES = (CONFIGMAPS, EVENTS, NAMESPACES, NODES, PODS, SECRETS, SERVICES, LEASES, WHOAMI, CAN_I)
_BY_PATH = {(r.group, r.version, r.plural): r for r in RESOURCES}


def find(group: str, version: str, plural: str) -> Resource | None:
    return _BY_PATH.get((group, version, plural))

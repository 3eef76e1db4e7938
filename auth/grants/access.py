"""What a grant allows in a cluster, in Kubernetes' terms, and whether a request is of that.

All conditions must hold. What every user may do in every cluster stays possible under each of them, because kubectl
needs it and it tells nothing of others: discovery and health (Kubernetes' system:discovery and
system:public-info-viewer), and questions about oneself (system:basic-user: `kubectl auth can-i`, `whoami`).

Source: kubernetes.io/docs/reference/access-authn-authz/authorization/#determine-the-request-verb
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from auth.attributes import Attributes
from auth.grants.patterns import Patterns
from auth.grants.resources import ResourcePattern, Resources

KINDS = frozenset({"exec", "attach", "portforward", "proxy", "console"})
READS = frozenset({"get", "list", "watch"})
DISCOVERY = (
    *("/api", "/api/*", "/apis", "/apis/*", "/openapi", "/openapi/*"),
    *("/healthz", "/livez", "/readyz", "/version", "/version/"),
)
_ONESELF = frozenset(
    {
        ("authentication.k8s.io", "selfsubjectreviews"),
        ("authorization.k8s.io", "selfsubjectaccessreviews"),
        ("authorization.k8s.io", "selfsubjectrulesreviews"),
    }
)
_STREAMS = frozenset({"exec", "attach", "portforward"})
_CONSOLES = frozenset({"console", "vnc", "usbredir", "vsock"})
_HANDS = _STREAMS | _CONSOLES | {"ephemeralcontainers", "proxy"}
_DISCOVERY = Patterns(DISCOVERY)


@dataclass(frozen=True, slots=True)
class Access:
    """The `access` of a grant; None allows everything of its kind, an empty set nothing. `urls` are beyond discovery
    and health.
    """

    read_only: bool = False
    verbs: frozenset[str] | None = None
    resources: tuple[ResourcePattern, ...] | None = None
    namespaces: tuple[str, ...] | None = None
    urls: tuple[str, ...] = ()
    interactive: frozenset[str] | None = None

    @property
    def all_verbs(self) -> frozenset[str] | None:
        """With what `read_only` leaves of them."""
        verbs = None if self.verbs is None or "*" in self.verbs else self.verbs
        if not self.read_only:
            return verbs
        return READS if verbs is None else READS & verbs

    @property
    def kinds(self) -> frozenset[str]:
        """The interactive ones. To read is never to have a hand inside, whatever the method."""
        if self.read_only:
            return frozenset()
        return KINDS if self.interactive is None else self.interactive


class Refusal(NamedTuple):
    """Why not, and how many conditions held before that one."""

    held: int
    reason: str


class Matcher:
    """An `Access`, prepared: a request is matched in less than a microsecond, without allocating."""

    __slots__ = (
        *("_kinds", "_namespaces", "_resources", "_urls", "_verbs"),
        *("_no_kind", "_no_namespace", "_no_resource", "_no_url", "_no_verb"),
    )

    def __init__(self, access: Access) -> None:
        self._verbs = access.all_verbs
        self._kinds = access.kinds
        self._resources = None if access.resources is None else Resources(access.resources)
        self._namespaces = None if access.namespaces is None else Patterns(access.namespaces)
        self._urls = Patterns(access.urls)
        only = "is read-only: " if access.read_only else ""
        self._no_verb = Refusal(0, f"{only}allows {_listed(self._verbs or ())} alone")
        self._no_url = Refusal(1, f"{only}allows no path but {_listed(('discovery', 'health', *access.urls))}")
        self._no_resource = Refusal(1, f"allows resources {_listed(map(str, access.resources or ()))} alone")
        self._no_namespace = Refusal(2, f"allows namespaces {_listed(access.namespaces or ())} alone")
        self._no_kind = Refusal(3, f"{only}allows of what gives a hand inside {_listed(self._kinds)} alone")

    def refusal(self, request: Attributes) -> Refusal | None:
        """Why the access does not allow this request, or None."""
        verb = request.verb
        if not request.is_resource_request:
            return self._of_url("get" if verb == "head" else verb, request.path)
        group, resource, subresource = request.api_group, request.resource, request.subresource
        if verb == "create" and not subresource and (group, resource) in _ONESELF:
            return None
        if self._verbs is not None and verb not in self._verbs:
            return self._no_verb
        if verb == "proxy":  # /api/v1/proxy/…, which old API servers had
            subresource = "proxy"
        if self._resources is not None and not self._resources.match(group, resource, subresource):
            return self._no_resource
        if self._namespaces is not None and not self._of_namespace(group, resource, request.namespace):
            return self._no_namespace
        if (subresource in _HANDS or request.interactive) and not (
            hands(group, resource, subresource, request.interactive) <= self._kinds
        ):
            return self._no_kind
        return None

    def _of_namespace(self, group: str, resource: str, namespace: str) -> bool:
        """Of what is in no namespace, only a namespace that matches is in one: itself."""
        if not namespace or (resource == "namespaces" and group):
            return False
        return self._namespaces is not None and self._namespaces.match(namespace)

    def _of_url(self, verb: str, path: str) -> Refusal | None:
        if verb == "get" and _DISCOVERY.match(path):
            return None
        if self._verbs is not None and verb not in self._verbs:
            return self._no_verb
        return None if self._urls.match(path) else self._no_url


def hands(group: str, resource: str, subresource: str, interactive: bool) -> frozenset[str]:
    """Which kinds of interaction a request is, by meaning: all of them must be allowed.

    An application behind a pod's or service's proxy is one kind; a node's kubelet runs commands, attaches and forwards,
    and what else a proxy leads to nobody knows. An ephemeral container is a command in somebody else's pod.
    """
    if subresource in _STREAMS:
        return frozenset((subresource,))
    if subresource == "ephemeralcontainers":
        return frozenset(("exec",))
    if subresource in _CONSOLES:
        return frozenset(("console",))
    if subresource == "proxy":
        plain = not group and resource in ("pods", "services")
        return frozenset(("proxy",)) if plain else KINDS
    return KINDS if interactive else frozenset()


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "nothing"

"""An agent's installation in its cluster, as Kubernetes objects in the order in which they are applied.

All of them bear the label by which the agent finds them again when it uninstalls itself (agent/cleanup.py), and are
what a removal names where it could not (gateway/membership/removals.py). The roles are those of charts/agent-rbac.yaml,
and the objects those that charts/kulvert-agent makes, but for what depends on a cluster's network and its drains
(tests/charts/test_manifest.py compares them). Plain documents with fixed names: a resource for Kustomize as they stand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import yaml

Object: TypeAlias = dict[str, Any]
NAMESPACE: Final = "kulvert"
NAME: Final = "kulvert-agent"
REMOVER: Final = "kulvert-agent-uninstall"
TOKEN: Final = "kulvert-agent-join"  # noqa: S105 -- a Secret's name
STATE: Final = "kulvert-agent-state"
"""The Secret in which agents keep key and certificate: a pod that takes another's place needs no join token."""
LABELS: Final = {"app.kubernetes.io/name": NAME, "app.kubernetes.io/managed-by": "kulvert"}
IMAGE: Final = "kulvert/kulvert"
_EXTRAS: Final = (
    "uids",
    "userextras/authentication.kubernetes.io/credential-id",
    "userextras/kulvert.dev/original-user",
)
_RBAC: Final = "rbac.authorization.k8s.io"
_CONFIG: Final = "/etc/kulvert"
_JOIN: Final = "/etc/kulvert-join"
_STATE: Final = "/var/lib/kulvert-agent"
"""A volume that is open to its pod; the agent makes a directory of its own in it."""
_ACCOUNT: Final = "/var/run/secrets/kubernetes.io/serviceaccount"
_USER: Final = 65_532
_RESTRICTED: Final = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


@dataclass(frozen=True, slots=True)
class Installation:
    """What differs from cluster to cluster. `servers` are the agents' addresses, `ca` what signs their certificate
    (PEM; empty: the system's CAs), `uninstall` whether the agent may take itself away when the cluster is removed,
    `constrained` whether it acts as others by constrained impersonation (KEP-5284), which needs Kubernetes 1.36.
    """

    cluster: str
    servers: tuple[str, ...]
    token: str = field(repr=False)
    ca: str = field(default="", repr=False)
    image: str = IMAGE
    replicas: int = 2
    uninstall: bool = True
    constrained: bool = False

    def objects(self) -> list[Object]:
        """All of them; the namespace first."""
        made = [*roles(uninstall=self.uninstall, constrained=self.constrained), *_state(), self._join(), self._config()]
        return [*made, self._deployment()]

    def text(self) -> str:
        """As YAML. Secret, for the join token is in it."""
        return "---\n".join(yaml.safe_dump(one, sort_keys=False) for one in self.objects())

    def _join(self) -> Object:
        return _namespaced("v1", "Secret", TOKEN) | {"type": "Opaque", "stringData": {"token": self.token}}

    def _config(self) -> Object:
        settings: Object = {
            "servers": list(self.servers),
            "cluster": self.cluster,
            "joinTokenFile": f"{_JOIN}/token",
            "stateDir": f"{_STATE}/own",
            "stateSecret": STATE,
        }
        data = {}
        if self.ca:
            settings["caFile"] = f"{_CONFIG}/ca.crt"
            data["ca.crt"] = self.ca
        return _namespaced("v1", "ConfigMap", NAME) | {
            "data": {"agent.yaml": yaml.safe_dump(settings, sort_keys=False)} | data
        }

    def _deployment(self) -> Object:
        selector = {"app.kubernetes.io/name": NAME}
        pod = {"metadata": {"labels": dict(LABELS)}, "spec": self._pod()}
        strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
        spec = {"replicas": self.replicas, "strategy": strategy, "selector": {"matchLabels": selector}, "template": pod}
        return _namespaced("apps/v1", "Deployment", NAME) | {"spec": spec}

    def _pod(self) -> Object:
        return {
            "serviceAccountName": NAME,
            "automountServiceAccountToken": False,  # the volume below is the same, with a shorter life
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": 30,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": _USER,
                "runAsGroup": _USER,
                "fsGroup": _USER,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [self._container()],
            "volumes": _volumes(),
            "topologySpreadConstraints": [
                {
                    "maxSkew": 1,
                    "topologyKey": "kubernetes.io/hostname",
                    "whenUnsatisfiable": "ScheduleAnyway",
                    "labelSelector": {"matchLabels": {"app.kubernetes.io/name": NAME}},
                }
            ],
        }

    def _container(self) -> Object:
        mounts = {"config": _CONFIG, "join": _JOIN, "state": _STATE, "account": _ACCOUNT, "tmp": "/tmp"}  # noqa: S108 -- the pod's own
        return {
            "name": "agent",
            "image": self.image,
            "args": ["agent", "--config", f"{_CONFIG}/agent.yaml"],
            "env": [{"name": "KULVERT_AGENT_AGENT", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
            "resources": {"requests": {"cpu": "50m", "memory": "96Mi"}, "limits": {"memory": "512Mi"}},
            "securityContext": dict(_RESTRICTED),
            "volumeMounts": [
                {"name": name, "mountPath": path} | ({} if name in ("state", "tmp") else {"readOnly": True})
                for name, path in mounts.items()
            ],
        }


def roles(*, uninstall: bool = True, constrained: bool = False) -> list[Object]:
    """Namespace, service account, and what it may do; `uninstall` is the optional part."""
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": dict(LABELS)}}
    made = [namespace, _namespaced("v1", "ServiceAccount", NAME), _agent_role(constrained), _bound("ClusterRole", NAME)]
    if uninstall:
        made += [_remover_role(), _bound("ClusterRole", REMOVER), _namespace_role(), _bound("Role", REMOVER)]
    return made


def _state() -> list[Object]:
    """Where the agents keep their key and certificate, and the right to read and write it."""
    rules = [{"apiGroups": [""], "resources": ["secrets"], "resourceNames": [STATE], "verbs": ["get", "update"]}]
    role = _namespaced(f"{_RBAC}/v1", "Role", STATE) | {"rules": rules}
    return [_namespaced("v1", "Secret", STATE) | {"type": "Opaque"}, role, _bound("Role", STATE)]


def _agent_role(constrained: bool) -> Object:
    """It acts as others, and reads the cluster's id. Nothing else."""
    rules = _constrained() if constrained else _unconstrained()
    own = {"apiGroups": [""], "resources": ["namespaces"], "resourceNames": ["kube-system"], "verbs": ["get"]}
    return _cluster_wide("ClusterRole", NAME) | {"rules": [*rules, own]}


def _unconstrained() -> list[Object]:
    return [
        {"apiGroups": [""], "resources": ["users", "groups"], "verbs": ["impersonate"]},
        {"apiGroups": ["authentication.k8s.io"], "resources": list(_EXTRAS), "verbs": ["impersonate"]},
    ]


def _constrained() -> list[Object]:
    """As users that are no nodes and no service accounts, and never as system:masters: the API server sees to that. By
    themselves the verbs for what is done give nothing: they count together with the first rule alone.
    """
    who = ["users", "groups", *_EXTRAS]
    on = "impersonate-on:user-info:"
    verbs = "get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"
    methods = "get", "head", "options", "post", "put", "patch", "delete"
    return [
        {"apiGroups": ["authentication.k8s.io"], "resources": who, "verbs": ["impersonate:user-info"]},
        {"apiGroups": ["*"], "resources": ["*"], "verbs": [on + verb for verb in verbs]},
        {"nonResourceURLs": ["*"], "verbs": [on + method for method in methods]},
    ]


def _remover_role() -> Object:
    """It takes away the agent's own roles, and this one (agent/cleanup.py says how)."""
    kinds = {"apiGroups": [_RBAC], "resources": ["clusterroles", "clusterrolebindings"]}
    rules = [
        kinds | {"resourceNames": [NAME, REMOVER], "verbs": ["get", "delete"]},
        {"apiGroups": [_RBAC], "resources": ["clusterroles"], "resourceNames": [REMOVER], "verbs": ["update"]},
    ]
    return _cluster_wide("ClusterRole", REMOVER) | {"rules": rules}


def _namespace_role() -> Object:
    """A namespace is in itself, to RBAC: so this role outlives the one above, and ends with what it deletes."""
    rules = [{"apiGroups": [""], "resources": ["namespaces"], "resourceNames": [NAMESPACE], "verbs": ["get", "delete"]}]
    return _namespaced(f"{_RBAC}/v1", "Role", REMOVER) | {"rules": rules}


def _bound(kind: str, name: str) -> Object:
    made = _cluster_wide(f"{kind}Binding", name) if kind == "ClusterRole" else None
    made = made or _namespaced(f"{_RBAC}/v1", f"{kind}Binding", name)
    return made | {
        "roleRef": {"apiGroup": _RBAC, "kind": kind, "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": NAME, "namespace": NAMESPACE}],
    }


def _cluster_wide(kind: str, name: str) -> Object:
    return {"apiVersion": f"{_RBAC}/v1", "kind": kind, "metadata": {"name": name, "labels": dict(LABELS)}}


def _namespaced(version: str, kind: str, name: str) -> Object:
    metadata = {"name": name, "namespace": NAMESPACE, "labels": dict(LABELS)}
    return {"apiVersion": version, "kind": kind, "metadata": metadata}


def _volumes() -> list[Object]:
    account = [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
    ]
    return [
        {"name": "config", "configMap": {"name": NAME}},
        {"name": "join", "secret": {"secretName": TOKEN, "defaultMode": 0o440}},
        {"name": "state", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
        {"name": "account", "projected": {"defaultMode": 0o440, "sources": account}},
        {"name": "tmp", "emptyDir": {}},
    ]


def path_of(made: Mapping[str, Any]) -> str:
    """Where the API server keeps this object."""
    version, metadata = made["apiVersion"], made["metadata"]
    base = f"/api/{version}" if version == "v1" else f"/apis/{version}"
    within = f"/namespaces/{metadata['namespace']}" if "namespace" in metadata else ""
    return f"{base}{within}/{made['kind'].lower()}s/{metadata['name']}"

"""The objects that tests put into a cluster, as plain dictionaries."""

from tests.support.cluster_api import Object

NODE = "node-1"
CONTAINER = "main"


def node() -> Object:
    """The cluster's one node; kwok brings it up."""
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}}


def namespace(name: str) -> Object:
    """A namespace."""
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


def service_account(name: str) -> Object:
    """A service account."""
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}}


def pod(name: str) -> Object:
    """A pod on the node, since nothing schedules here, that goes as soon as it is deleted."""
    container = {"name": CONTAINER, "image": "example.test/image:1"}
    spec = {"nodeName": NODE, "terminationGracePeriodSeconds": 0, "containers": [container]}
    metadata = {"name": name, "labels": {"app": name}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def token_request(seconds: int, audiences: tuple[str, ...] = ()) -> Object:
    """What makes a bound token; without audiences it is one for the API server."""
    spec = {"expirationSeconds": seconds, "audiences": list(audiences)}
    return {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}


def impersonator(name: str) -> Object:
    """What an agent's role has to allow: to be anybody, and to read what identifies the cluster.

    Keys of extras are subresources, and RBAC has no pattern for "all subresources of": hence the star.
    """
    rules = [
        {"apiGroups": [""], "resources": ["users", "groups", "serviceaccounts"], "verbs": ["impersonate"]},
        {"apiGroups": ["authentication.k8s.io"], "resources": ["*"], "verbs": ["impersonate"]},
        {"apiGroups": [""], "resources": ["namespaces"], "resourceNames": ["kube-system"], "verbs": ["get"]},
    ]
    return _rbac("ClusterRole", name) | {"rules": rules}


def access_review(rule: Object, *, user: str = "", group: str = "") -> Object:
    """Asks whether somebody may do the first thing that a role's rule allows."""
    resource, _, subresource = rule["resources"][0].partition("/")
    attributes = {"verb": rule["verbs"][0], "group": rule["apiGroups"][0], "resource": resource}
    who = {"user": user} if user else {"user": "anybody", "groups": [group]}
    spec = {**who, "resourceAttributes": {**attributes, "subresource": subresource}}
    return {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}


def binding(name: str, role: str, subject: Object) -> Object:
    """A ClusterRole for one subject."""
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role}
    return _rbac("ClusterRoleBinding", name) | {"roleRef": reference, "subjects": [subject]}


def user_subject(name: str) -> Object:
    """A user, as a binding names it."""
    return {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": name}


def group_subject(name: str) -> Object:
    """A group, as a binding names it."""
    return {"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": name}


def service_account_subject(namespace: str, name: str) -> Object:
    """A service account, as a binding names it."""
    return {"kind": "ServiceAccount", "namespace": namespace, "name": name}


def _rbac(kind: str, name: str) -> Object:
    return {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": {"name": name}}
